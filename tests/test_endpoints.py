"""API and MCP as clients see them, on the real server: names, types, streams, README's lines."""

import ast
import asyncio
import base64
import html
import io
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults_server import Server, Tab, error
from gradio_client import Client
from gradio_client.exceptions import AppError
from hostile import NAMES
from PIL import Image

from ddpm_demo.ui import serve

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def server(tmp_path_factory: Any) -> Iterator[Server]:
    options = ["--mcp"] if find_spec("mcp") else []
    running = Server(Path(tmp_path_factory.mktemp("api")), *options, models=("first",))
    yield running
    assert "Traceback" not in running.log
    running.stop()


@pytest.fixture(scope="module")
def client(server: Server) -> Client:
    return Client(server.url, verbose=False)


def pixels(uri: str) -> np.ndarray:
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def grey(level: int, size: int = 8) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (level,) * 3).save(buffer, "png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def test_the_endpoints_have_names_types_and_words(client: Client) -> None:
    info = client.view_api(return_format="dict")["named_endpoints"]
    assert set(info) == {"/generate", "/noise", "/denoise", "/models", "/evaluate"}
    given = {p["parameter_name"]: p for p in info["/generate"]["parameters"]}
    assert given["n"]["python_type"]["type"] == "int"
    assert given["n"]["parameter_default"] == 4
    assert "dict" in info["/generate"]["returns"][0]["python_type"]["type"]
    assert all(one["description"] for one in info.values())


def test_generate_streams_and_is_the_run_of_the_seed(client: Client) -> None:
    (model,) = (row for row in client.predict(api_name="/models") if row["name"] == "first")
    job = client.submit(model="first", n=2, seed=5, steps=4, api_name="/generate")
    last = job.result(timeout=60)
    steps = [said["step"] for said in job.outputs() if "step" in said]  # it may have had to load
    assert steps == [0, 1, 2, 3, 4]
    assert (last["step"], last["total"], last["t"]) == (4, 4, 0)
    assert pixels(last["picture"]).shape[0] >= 4 * model["size"]


def test_noise_and_denoise(client: Client) -> None:
    said = client.predict(picture=grey(200), t=0, size=8, api_name="/noise")
    assert said["alpha_bar"] == 1.0
    assert np.abs(pixels(said["picture"]).astype(int) - 200).max() <= 1
    far = client.predict(picture=grey(200), t=1000, size=64, api_name="/noise")
    assert pixels(far["picture"]).std() > 50
    last = client.predict(picture=grey(200), t=3, model="first", api_name="/denoise")
    assert last["t"] == 0


@pytest.mark.parametrize(
    ("endpoint", "values", "said"),
    [
        ("/generate", {"model": "../../etc/passwd"}, ", not '../../etc/passwd'."),
        ("/generate", {"model": "google/ddpm-cifar10-32"}, "Model must be"),
        ("/generate", {"model": "first", "n": 10**6}, "number of pictures|n must be"),
        ("/generate", {"model": "first", "sampler": "magic"}, "Sampler must be .*, not 'magic'"),
        ("/generate", {"model": "first", "seed": -1}, "Seed must be .*, not -1"),
        ("/noise", {"picture": "/etc/passwd", "t": 5}, "Picture must be .*, not '/etc/passwd'"),
        ("/noise", {"picture": "http://127.0.0.1:1/x", "t": 5}, "[Pp]icture|address"),
        ("/noise", {"picture": "aGFsbG8=", "t": 5}, "[Pp]icture|file"),
        ("/denoise", {"picture": grey(9), "t": 0, "model": "first"}, "t must be .*, not 0"),
        ("/evaluate", {"model": "first", "n": 500}, "classifier|data of the model"),
    ],
)
def test_bad_values_get_a_sentence(
    client: Client, endpoint: str, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(AppError) as error:
        client.predict(**values, api_name=endpoint)
    words = html.unescape(str(error.value))
    assert re.search(said, words), words
    assert len(words.splitlines()) == 1


def refused(message: dict[str, Any]) -> bool:
    """Whether a call ended with one short sentence, which has nothing of a file in it."""
    said = html.unescape(error(message))
    return 0 < len(said) < 400 and "root:" not in said and "<img" not in error(message)


@pytest.mark.parametrize("way", ["page", "generate", "denoise", "evaluate"])
def test_hostile_names_of_models(server: Server, way: str) -> None:
    """One set of names, given as the page gives them, and to the API."""
    tab = Tab(server)
    if way == "page":
        run = tab.endpoint("go")
        sent = [tab.values(run, model=name) for name in NAMES]
    else:
        run = next(d for d in tab.config["dependencies"] if d["api_name"] == way)
        usual = {"generate": {"steps": 2}, "denoise": {"picture": grey(9), "t": 5}}.get(way, {})
        sent = [values(tab, run, **usual, model=name) for name in NAMES]
    for name, data in zip(NAMES, sent, strict=True):
        assert refused(tab.call(run, data)), name


@pytest.mark.parametrize("way", ["noise", "denoise"])
def test_hostile_pictures(server: Server, way: str) -> None:
    tab = Tab(server)
    run = next(d for d in tab.config["dependencies"] if d["api_name"] == way)
    for name in NAMES:
        assert refused(tab.call(run, values(tab, run, picture=name, t=5))), name


def values(tab: Tab, run: dict[str, Any], **given: Any) -> list[Any]:
    """What an endpoint of the API is sent: what is given, and defaults."""
    info = tab.http.get("gradio_api/info").json()["named_endpoints"][f"/{run['api_name']}"]
    return [given.get(p["parameter_name"], p.get("parameter_default")) for p in info["parameters"]]


def test_the_lines_of_the_readme(client: Client) -> None:
    (lines,) = re.findall(r"```python\n(from gradio_client.*?)```", README, re.S)
    lines = lines.replace("http://127.0.0.1:7860", client.src)
    values: dict[str, Any] = {}
    exec(lines.replace('"cifar10"', '"first"').replace('"ship"', '"any"'), values)
    assert pixels(values["last"]["picture"]).size


def test_mcp_without_its_packages_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        serve.main(["--mcp"])
    assert capsys.readouterr().err.endswith("pip install 'gradio[mcp]'.\n")


# MCP


@pytest.fixture
def asked(server: Server) -> Callable[[Callable[[Any], Awaitable[Any]]], Any]:
    """Asks as a client does that is set up with the README's lines."""
    mcp = pytest.importorskip("mcp")
    from mcp.client.streamable_http import streamable_http_client

    (lines,) = re.findall(r"```json\n(.*?mcpServers.*?)```", README, re.S)
    (entry,) = json.loads(lines)["mcpServers"].values()
    url = entry["url"].replace("http://127.0.0.1:7860/", server.url)

    async def go(ask: Callable[[Any], Awaitable[Any]]) -> Any:
        async with (
            streamable_http_client(url) as (read, write, *_),
            mcp.ClientSession(read, write) as session,
        ):
            await session.initialize()
            return await ask(session)

    return lambda ask: asyncio.run(go(ask))


def test_the_tools_are_the_endpoints(asked: Any) -> None:
    tools = {tool.name: tool for tool in asked(lambda client: client.list_tools()).tools}
    assert set(tools) == {"models", "generate", "noise", "denoise", "evaluate"}
    given = tools["generate"].inputSchema["properties"]
    assert (given["n"]["type"], given["n"]["default"]) == ("integer", 4)
    assert all(tool.description for tool in tools.values())


def test_tools_answer_as_the_api_does(asked: Any, client: Client) -> None:
    run = {"model": "first", "n": 2, "seed": 5, "steps": 3}

    async def both(tools: Any) -> list[Any]:
        answers = [await tools.call_tool("models", {}), await tools.call_tool("generate", run)]
        assert not any(answer.isError for answer in answers)
        return [ast.literal_eval(answer.content[-1].text) for answer in answers]

    listed, last = asked(both)
    assert listed == client.predict(api_name="/models")
    assert last == client.predict(**run, api_name="/generate")


def test_tools_refuse_with_a_sentence(asked: Any) -> None:
    async def each(tools: Any) -> list[Any]:
        return [await tools.call_tool("generate", {"model": name}) for name in NAMES]

    for name, answer in zip(NAMES, asked(each), strict=True):
        assert answer.isError, name
        said = html.unescape(answer.content[0].text)
        assert said.startswith("Model must be "), said
        assert len(said) < 400
