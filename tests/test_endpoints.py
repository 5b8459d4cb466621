"""The API as a client sees it, on the real server: names, types, streams, and README's lines."""

import base64
import html
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults_server import Server
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image

from ddpm_demo.ui import serve

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def client(tmp_path_factory: Any) -> Iterator[Client]:
    running = Server(Path(tmp_path_factory.mktemp("api")), models=("first",))
    found = Client(running.url, verbose=False)
    found.src_of_test = running.url  # type: ignore[attr-defined]
    yield found
    assert "Traceback" not in running.log
    running.stop()


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
        ("/generate", {"model": "../../etc/passwd"}, "model is '../../etc/passwd'; allowed is"),
        ("/generate", {"model": "google/ddpm-cifar10-32"}, "allowed is"),
        ("/generate", {"model": "first", "n": 10**6}, "number of pictures|n is"),
        ("/generate", {"model": "first", "sampler": "magic"}, "sampler is 'magic'"),
        ("/generate", {"model": "first", "seed": -1}, "seed is -1"),
        ("/noise", {"picture": "/etc/passwd", "t": 5}, "picture is '/etc/passwd'"),
        ("/noise", {"picture": "http://127.0.0.1:1/x", "t": 5}, "picture|address"),
        ("/noise", {"picture": "aGFsbG8=", "t": 5}, "picture|file"),
        ("/denoise", {"picture": grey(9), "t": 0, "model": "first"}, "t is 0"),
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


def test_the_lines_of_the_readme(client: Client) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(from gradio_client.*?)```", text, re.S)
    lines = lines.replace("http://127.0.0.1:7860", client.src_of_test)  # type: ignore[attr-defined]
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
