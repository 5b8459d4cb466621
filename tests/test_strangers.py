"""A server for others than its host, such as a class: what they can't do, and how it ends."""

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from faults_server import PATIENCE, Server, Tab, error, frames
from PIL import Image

from ddpm_demo.ui.forward.asked import EXAMPLES
from ddpm_demo.ui.server.errors import CLOSING
from ddpm_demo.ui.server.settings import RUNS

LOGIN = {"username": "class", "password": "a:b c"}
LONG = {"steps": 1000, "n": 64}


@pytest.fixture(scope="module")
def server(tmp_path_factory: Any) -> Iterator[Server]:
    place = Path(tmp_path_factory.mktemp("strangers"))
    minutes = {"DDPM_DEMO_RUN_MINUTES": "600"}  # however slow the machine is
    running = Server(place, "--host", "0.0.0.0", DDPM_DEMO_AUTH="class:a:b c", **minutes)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def student(server: Server) -> Iterator[httpx.Client]:
    """A browser that is logged in."""
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as browser:
        assert browser.post("login", data=LOGIN).json() == {"success": True}
        yield browser


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "config"),
        ("GET", "gradio_api/info"),
        ("GET", "gradio_api/openapi.json"),
        ("GET", f"gradio_api/file={EXAMPLES[0]}"),
        ("GET", "gradio_api/queue/status"),
        ("GET", "gradio_api/queue/data?session_hash=a"),
        ("GET", "monitoring"),
        ("POST", "gradio_api/queue/join"),
        ("POST", "gradio_api/upload"),
        ("POST", "gradio_api/component_server/"),
        ("POST", "gradio_api/run/predict"),
        ("POST", "gradio_api/call/predict"),
    ],
)
def test_nothing_without_the_password(server: Server, method: str, path: str) -> None:
    body = {"data": [], "fn_index": 0, "session_hash": "a"}
    answer = httpx.request(method, server.url + path, json=body if method == "POST" else None)
    assert answer.status_code == 401, answer.text


def test_a_wrong_password_is_refused(server: Server) -> None:
    for wrong in ({"password": "a"}, {"password": ""}, {"username": "Class"}):
        assert httpx.post(f"{server.url}login", data=LOGIN | wrong).status_code in (400, 422)
    assert "a:b c" not in server.log


def test_a_student_generates(server: Server, student: httpx.Client) -> None:
    assert frames(list(Tab(server, student).generate(steps=5, n=2)))[-1]["step"] == 5


def test_the_disk_and_the_login_of_the_host_are_not_theirs(
    server: Server, student: httpx.Client
) -> None:
    def ask(elem_id: str, **values: Any) -> str:
        tab = Tab(server, student)
        return error(tab.call(tab.endpoint(elem_id), tab.values(tab.endpoint(elem_id), **values)))

    for repo in (str(server.zoo / "tiny"), "../zoo", "google/ddpm-of-somebody"):
        assert "google/ddpm-cifar10-32" in ask("hub-get", **{"hub-repo": repo})
    said = ask("tune-estimate", **{"tune-data": f"folder:{server.zoo}"})
    assert "visitors have no folders here" in said
    said = ask("tune-push", **{"tune-repo": "somebody/model"})
    assert "would use the login of this app" in said


@pytest.fixture(scope="module")
def inner() -> Iterator[tuple[str, list[str]]]:
    """A server that only this machine can reach, and the requests that come to it."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        do_POST = do_HEAD = do_GET

        def log_message(self, *args: Any) -> None:
            pass

    http = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}/secret.png", asked
    http.shutdown()
    http.server_close()


def test_files_of_the_host_and_other_servers_can_not_be_read(
    server: Server, student: httpx.Client, inner: tuple[str, list[str]], tmp_path: Path
) -> None:
    address, asked = inner
    (folder,) = server.temporary.glob("ddpm_demo-*")
    tuned = folder / "tuning-of-somebody" / "theirs.png"
    tuned.parent.mkdir()
    secret = tmp_path / "secret.png"
    for path in (secret, tuned):
        Image.new("RGB", (8, 8), "red").save(path)
    paths = [str(p) for p in (secret, tuned, "/etc/passwd", __file__, "/proc/self/environ")]
    paths += ["../" * 12 + "etc/passwd", f"{folder}/gradio/../tuning-of-somebody/theirs.png"]
    paths += [next(map(str, server.zoo.rglob("*.safetensors"))), f"file://{secret}"]
    urls = [
        address,
        address.replace("127.0.0.1", "localhost"),
        "http://[::1]/x",
        "https://1.1.1.1/",
    ]

    for source in paths + urls:
        for written in (source, quote(source, safe=""), quote(source).replace("..", "%2e%2e")):
            for route in ("file=", "file/", "proxy="):
                answer = student.get(f"gradio_api/{route}{written}")
                assert answer.status_code in (403, 404), (route, source, answer.text)

    def shown(given: dict[str, Any]) -> bool:
        """Whether a picture in the Forward tab is taken."""
        tab = Tab(server, student)
        picture = tab.endpoint("forward-picture", "input")
        end = tab.call(picture, tab.values(picture, **{"forward-picture": given}))
        message, *_ = end["output"].get("data") or [None]
        return isinstance(message, str)

    def loaded(given: dict[str, Any]) -> bool:
        """Whether weights in the Fine-tune tab are taken."""
        tab = Tab(server, student)
        kinds, takes = {i: p["type"] for i, p in tab.parts.items()}, tab.config["dependencies"]
        button = next(i for i, kind in kinds.items() if kind == "uploadbutton")
        tab.call(next(d for d in takes if [button, "upload"] in d["targets"]), [None])
        end = tab.call(next(d for d in takes if button in d["inputs"][2:]), [None, {}, given])
        *_, models = end["output"].get("data") or [{}]
        return "choices" in (models or {})

    meta = {"meta": {"_type": "gradio.FileData"}}
    for source in paths + urls:
        for given in ({"path": source}, {"path": source, **meta}):
            assert not shown(given), given
            assert not loaded(given), given
        shown({"url": source, **meta})  # is no path: the picture that was there is shown
    assert not asked
    weights = next(server.zoo.rglob("*.safetensors"))
    for path, taken in ((secret, shown), (weights, loaded)):  # uploads of one's own are
        (mine,) = Tab(server, student).upload(path.name, path.read_bytes()).json()
        assert taken({"path": mine, **meta})
    assert "Traceback" not in server.log


def crowding() -> float:
    """How many times as long as on a core of its own a thread's work takes now."""
    wall, own = time.monotonic(), time.thread_time()
    while time.thread_time() - own < 0.2:
        pass
    return (time.monotonic() - wall) / 0.2


def test_it_ends_within_ten_seconds_and_tells_those_who_wait(
    server: Server, student: httpx.Client
) -> None:
    all_run, told = threading.Barrier(RUNS + 1), []

    def press(k: int) -> None:
        run = Tab(server, student).generate(**LONG, seed=k)
        seen = [next(run)]
        all_run.wait(PATIENCE)
        told.append([*seen, *run])

    def wait_in_the_queue() -> None:
        told.append(list(Tab(server, student).generate(**LONG)))

    with ThreadPoolExecutor(RUNS + 2) as pool:
        pages = [pool.submit(press, k) for k in range(RUNS)]
        all_run.wait(PATIENCE)
        pages += [pool.submit(wait_in_the_queue) for _ in range(2)]
        while student.get("gradio_api/queue/status").json()["queue_size"] < 2:
            time.sleep(0.05)
        most = 10 * crowding()
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(most + PATIENCE) == 0
        assert time.monotonic() - start < most
        for page in pages:
            page.result(PATIENCE)
    assert len(told) == RUNS + 2
    for messages in told:
        done = [f for f in frames(messages) if f["step"] == LONG["steps"]]
        assert done or error(messages[-1]) == CLOSING
    assert not server.files()
    assert "Traceback" not in server.log
