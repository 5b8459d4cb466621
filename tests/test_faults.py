"""What visitors can do to a running server, and that it goes on: the real app, over HTTP."""

import base64
import json
import random
import resource
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from faults_server import PATIENCE, Server, Tab, error, frames
from hostile import PATHS

from ddpm_demo.experiments import EXPERIMENTS
from ddpm_demo.media import encode
from ddpm_demo.ui.server.settings import RUNS

LONG = {"steps": 1000, "n": 64}
ODD = [None, -1, 1e308, float("nan"), 10**30, True, "x", "\0\U0001f600<b>" * 99, [], [["a"]], {}]
FILES = [{"path": path, "meta": {"_type": "gradio.FileData"}} for path in PATHS]


@pytest.fixture(scope="module")
def server(tmp_path_factory: Any) -> Iterator[Server]:
    running = Server(Path(tmp_path_factory.mktemp("server")), models=("first", "other", "unread"))
    yield running
    running.stop()


@pytest.fixture
def clean(server: Server) -> Iterator[Server]:
    """The server, which afterwards has said nothing of errors, and still works."""
    yield server
    assert "Traceback" not in server.log
    assert frames(list(Tab(server).generate(steps=5, n=2)))[-1]["step"] == 5


def one_line(message: dict[str, Any]) -> bool:
    """Whether a call ended well, or with one sentence."""
    said = message["output"].get("error")
    return message["success"] or (isinstance(said, str) and 0 < len(said.splitlines()) <= 1)


class Cards:
    """The controls of Experiments, of which a run looks only at those of one card."""

    def __init__(self, tab: Tab, endpoint: dict[str, Any]) -> None:
        inputs = [tab.parts[i]["props"] for i in endpoint["inputs"]]
        self.ids = [str(part.get("elem_id")) for part in inputs]
        self.there = "experiment-cards" in self.ids

    def asked(self, usual: list[Any], i: int) -> list[Any]:
        """Values for the card whose control is at place i."""
        if not self.there:
            return usual
        card = self.ids[i].split("-")[1] if self.ids[i].startswith("experiment-") else "race"
        k = self.ids.index("experiment-cards")
        return [*usual[:k], card if card in EXPERIMENTS else "race", *usual[k + 1 :]]

    def odd(self, k: int) -> Any:
        """A wrong value; True is a right one for a number, and a whole experiment would run."""
        found = ODD[k % len(ODD)]
        return "y" if found is True and self.there else found


@pytest.mark.timeout(300)  # some of the values are right, and then the work is done
def test_absurd_values_for_every_endpoint(clean: Server) -> None:
    def ask(endpoint: dict[str, Any]) -> int:
        """How often it was asked."""
        tab = Tab(clean, config=page.config)  # a visitor who did nothing else
        n, usual = len(endpoint["inputs"]), tab.values(endpoint)
        cards = Cards(tab, endpoint)
        odd = ODD[endpoint["id"] % 3 :: 3]  # each goes to one endpoint of three
        sets: list[Any] = [[], *([value] * n for value in (*odd, *FILES)), [True] * (n + 3)]
        for i in range(n):  # one wrong value among good ones goes further
            if tab.parts[endpoint["inputs"][i]]["type"] != "state":
                good = cards.asked(usual, i)
                sets.append([*good[:i], cards.odd(endpoint["id"] + i), *good[i + 1 :]])
        for asked in (sets[i : i + 10] for i in range(0, len(sets), 10)):  # the queue has room
            for data in asked:
                body = json.dumps(  # httpx refuses NaN
                    {"data": data, "fn_index": endpoint["id"], "session_hash": tab.session}
                )
                kind = {"Content-Type": "application/json"}
                joined = tab.http.post("gradio_api/queue/join", content=body, headers=kind)
                assert joined.status_code == 200, (endpoint["api_name"], data, joined.text)
            ends = [m for m in tab.messages() if m["msg"] == "process_completed"]
            assert len(ends) == len(asked), endpoint["api_name"]
            assert all(map(one_line, ends)), endpoint["api_name"]
        return len(sets)

    page = Tab(clean)
    calls = [e for e in page.config["dependencies"] if e["backend_fn"]]
    one_of_each = {  # several events may call the same function with the same controls
        (e["api_name"].rstrip("_0123456789"), *e["inputs"], None, *e["outputs"]): e for e in calls
    }
    endpoints = list(one_of_each.values())
    endpoints.sort(key=lambda e: -len(e["inputs"]))  # the longest first
    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(ask, endpoints)) > 500
    assert "Traceback" not in clean.log


def test_absurd_requests_to_routes(clean: Server) -> None:
    http = Tab(clean).http
    for path, body in (
        ("queue/join", {"data": [], "fn_index": 10**6, "session_hash": "a"}),
        ("queue/join", {"data": [], "fn_index": "x", "session_hash": "a"}),
        ("queue/join", {"data": "abc", "fn_index": 1, "session_hash": "a"}),
        ("queue/join", {"data": [], "fn_index": 1, "session_hash": ["a"]}),
        ("queue/join", {"data": []}),
        ("queue/join", ["a"]),
        ("run/predict", {"data": [1]}),
        ("call/nothing", {"data": [1]}),
        ("cancel", {"session_hash": "a", "fn_index": 3, "event_id": "none"}),
        ("cancel", {}),
        (
            "component_server/",
            {"data": 1, "component_id": 10**6, "fn_name": "x", "session_hash": 1},
        ),
        ("component_server/", {"data": 1, "component_id": [], "fn_name": "x", "session_hash": "a"}),
        ("component_server/", {"data": 1, "component_id": 1, "fn_name": "get_config"}),
        ("upload", {}),
        ("process_recording", {}),
        ("vibe-edit/", {"prompt": "x"}),
    ):
        answer = http.post(f"gradio_api/{path}", json=body)
        wrong = answer.status_code in (200, 400, 403, 404, 422)
        assert wrong, (path, body, answer.status_code, answer.text)
    for path in ("deep_link?session_hash=a", "vibe-code", "dev/reload"):
        assert http.get(f"gradio_api/{path}").status_code == 403
    zeros = (bytes(2**20) for _ in range(90))
    answer = http.post("gradio_api/component_server/", content=zeros)
    assert answer.status_code == 413
    nothing = http.post("gradio_api/upload", content=b"-", headers={"Content-Type": "multipart/x"})
    assert nothing.status_code == 400


def test_fifty_who_leave_in_the_middle(clean: Server) -> None:
    def leave(k: int) -> None:
        run = Tab(clean).generate(**LONG, seed=k)
        assert any(frames([message]) for message in run)  # as soon as there are some
        run.close()  # and with it the connection

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(leave, range(50)))
    # As many as may run at the same time do so: none of the fifty holds a place any more.
    together = threading.Barrier(RUNS)

    def first_frame(k: int) -> None:
        for message in Tab(clean).generate(**LONG, seed=k):
            if frames([message]):
                together.wait(PATIENCE)
                return

    with ThreadPoolExecutor(RUNS) as pool:
        list(pool.map(first_frame, range(RUNS)))


def test_two_tabs_of_one_visitor(clean: Server) -> None:
    run = {"steps": 200, "n": 4, "seed": 7}
    alone = frames(list(Tab(clean).generate(**run)))
    with httpx.Client(base_url=clean.url, timeout=PATIENCE) as browser:
        first, second = Tab(clean, browser), Tab(clean, browser)
        endless = first.generate(**LONG)
        next(endless)
        with ThreadPoolExecutor(1) as pool:
            whole = pool.submit(lambda: frames(list(second.generate(**run))))
            next(endless)
            first.stop()
            stopped = frames(list(endless))
            shared = whole.result(PATIENCE)
    assert not stopped or stopped[-1]["step"] < LONG["steps"]
    assert shared[-1]["step"] == run["steps"]

    def pixels(frame: dict[str, Any]) -> np.ndarray:
        return np.frombuffer(base64.b64decode(frame["d"]), np.uint8).astype(int)

    assert np.abs(pixels(shared[-1]) - pixels(alone[-1])).max() <= 1


def test_a_checkpoint_is_overwritten_and_deleted_while_it_is_used(clean: Server) -> None:
    file = clean.zoo / "other" / "model.safetensors"
    run = Tab(clean).generate(model="other", steps=300, n=4)
    begun = next(message for message in run if frames([message]))
    whole = file.read_bytes()
    with file.open("r+b") as garbage:  # in place, as a copy that breaks off does it
        garbage.write(bytes(1000))
        garbage.truncate(len(whole) // 2)
    assert frames([begun, *run])[-1]["step"] == 300
    again = Tab(clean).generate(model="other", steps=5, n=2)  # what is loaded stays
    assert frames(list(again))[-1]["step"] == 5
    file.unlink()
    *_, last = Tab(clean).generate(model="other", steps=5, n=2)
    assert error(last) == "Model must be first or unread, not &#x27;other&#x27;."


def test_a_broken_checkpoint_is_said_and_read_again_when_it_is_whole(clean: Server) -> None:
    file = clean.zoo / "unread" / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:5000])
    for _ in range(2):
        *_, last = Tab(clean).generate(model="unread", steps=5, n=2)
        assert "model.safetensors is not a whole safetensors file" in error(last)
    file.write_bytes(whole)
    assert frames(list(Tab(clean).generate(model="unread", steps=5, n=2)))[-1]["step"] == 5


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux")
def test_a_full_disk_refuses_an_upload_in_one_sentence(clean: Server) -> None:
    """The kernel refuses to write more bytes of a file: what a full disk does, but with EFBIG."""
    tab, pid = Tab(clean), clean.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        refused = tab.upload("large.png", random.Random(0).randbytes(200_000))
        assert refused.status_code == 507
        assert refused.text == "The upload can't be kept: File too large"
        assert tab.upload("small.png", b"small").status_code == 200
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    assert tab.upload("large.png", random.Random(0).randbytes(200_000)).status_code == 200


@pytest.mark.parametrize("kind", ["png", "gif", "mp4"])
def test_a_full_disk_keeps_the_old_export(kind: str, tmp_path: Path) -> None:
    """As above, in this process, for a file that the command line writes."""
    path = tmp_path / f"film.{kind}"
    path.write_bytes(b"old")
    picture = np.frombuffer(random.Random(0).randbytes(64 * 64 * 3), np.uint8).reshape(64, 64, 3)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(OSError, match=f"film.{kind} was not written: File too large"):
            encode.write(path, [picture])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
