"""Going on with a run from the step that the page shows."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch

from ddpm_demo.config import SampleConfig
from ddpm_demo.diffusion import Denoiser, ScaleEps
from ddpm_demo.inference.batching import BatchedDenoiser, Batcher
from ddpm_demo.inference.changes import write_mask
from ddpm_demo.inference.generate import generate
from ddpm_demo.inference.record import Record
from ddpm_demo.inference.spec import RunSpec
from ddpm_demo.ui.components.controls import Selected
from ddpm_demo.ui.generate import handlers, pausing
from ddpm_demo.ui.generate.asked_change import Place, breakpoints, change_text
from ddpm_demo.ui.server import runtime
from ddpm_demo.ui.server.runs import GONE, Runs, pixels, runs

CONFIG = SampleConfig("ddpm", 5, n=3, seed=2)
FORM = {"kind": "nothing", "value": "", "once": False, "breaks": "", "count": 4, "switch": True}


@pytest.fixture(autouse=True)
def selected(monkeypatch, tiny):
    found = Selected("tiny", "tiny", tiny())
    monkeypatch.setattr(pausing, "find", lambda name, own: found)
    monkeypatch.setattr(pausing, "require_time", lambda *_: None)
    monkeypatch.setattr(runtime, "denoiser", Denoiser)
    monkeypatch.setattr(runtime, "has_gpu", lambda: True)
    monkeypatch.setattr(runtime, "bf16", lambda: False)
    return found


def messages(stream: Any) -> list[dict[str, Any]]:
    return [json.loads(m) for m in stream if isinstance(m, str)]


def whole(selected: Selected) -> list[dict[str, Any]]:
    steps = generate(selected.checkpoint, CONFIG)
    return messages(handlers.show("me", selected, RunSpec("tiny", CONFIG), steps))


def header(found: list[dict[str, Any]]) -> dict[str, Any]:
    return next(m["run"] for m in found if "run" in m)


def frames(found: list[dict[str, Any]]) -> dict[int, str]:
    return {f["step"]: f["d"] for m in found for f in m.get("frames", [])}


def place(run: dict[str, Any], step: int, **changes: Any) -> str:
    at = {"run": run["id"], "step": step, "one": None, "meta": run["meta"], "mask": ""}
    return json.dumps(at | changes)


def proceed(way: str, at: str, until: Any = 0, **form: Any) -> list[dict[str, Any]]:
    values = (FORM | form).values()
    return messages(pausing.proceed(way, "me", {}, at, until, *values))


@pytest.mark.parametrize("forgotten", [False, True])
def test_going_on_shows_the_same_pictures(selected, forgotten):
    """Also where the server has forgotten the run and makes it again."""
    first = whole(selected)
    run = header(first)
    if forgotten:
        runs.leave("me")
    on = proceed("on", place(run, 2))
    assert header(on)["since"] == {"id": run["id"], "step": 2}
    assert header(on)["meta"] == run["meta"]
    last = frames(on)
    assert min(last) == 2
    assert last[5] == frames(first)[5]
    again = proceed("again", place(header(on), 4))
    assert frames(again)[5] == frames(first)[5]


def test_it_pauses_where_it_was_asked_to(selected):
    run = header(whole(selected))
    t = run["updates"]["t"]
    for way, until, breaks, end in (
        ("step", 0, "", 2),
        ("to", t[3], "", 3),
        ("to", t[4] - 1, "", 5),
        ("on", 0, f"{t[4]}, {t[3] + 1}", 3),
        ("on", 0, "", 5),
    ):
        found = proceed(way, place(run, 1), until, breaks=breaks)
        assert max(frames(found)) == end
        assert ("Paused" in found[-1].get("note", "")) == (end < 5)


def test_a_changed_run_says_so_and_can_be_made_again(selected):
    run = header(whole(selected))
    t = run["updates"]["t"][2]
    changed = proceed("on", place(run, 2), kind="z=0")
    said = header(changed)
    assert said["meta"]["with"] == f"z=0:{t}"
    assert f"z left out from t = {t}" in said["title"]
    assert [c for name, c in said["updates"]["lines"][2] if name == "z"] == [0]
    more = proceed("on", place(said, 3), kind="draw=flip")
    assert header(more)["meta"]["with"].startswith(f"z=0:{t};draw=flip:")
    runs.leave("me")
    assert frames(proceed("again", place(said, 0)))[5] == frames(changed)[5]


def test_branches(selected):
    run = header(whole(selected))
    found = proceed("branch", place(run, 2, one=1))
    assert header(found)["n"] == 4
    raw = np.frombuffer(base64.b64decode(frames(found)[5]), np.uint8).reshape(3, 4, 64)
    assert len({x.tobytes() for x in raw[0]}) == 4
    start = np.frombuffer(base64.b64decode(frames(found)[2]), np.uint8).reshape(3, 4, 64)
    assert len({x.tobytes() for x in start[0]}) == 1


def test_a_drawing_on_branches_is_on_all_of_them(selected):
    run = header(whole(selected))
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:4] = True
    drawn = {"one": 1, "mask": write_mask(mask)}
    plain, painted = (
        frames(proceed("branch", place(run, 2, **drawn), kind=kind))[2]
        for kind in ("nothing", "draw=bright")
    )
    a, b = (
        np.frombuffer(base64.b64decode(text), np.uint8).reshape(3, 4, 8, 8)[0]
        for text in (plain, painted)
    )
    assert (a[:, 4:] == b[:, 4:]).all()
    assert (b[:, :4].mean((1, 2)) > a[:, :4].mean((1, 2))).all()


@pytest.mark.parametrize(("way", "n"), [("branch", 4), ("on", 1)])
@pytest.mark.parametrize("over", [True, False])
def test_a_drawn_part_is_made_anew_and_the_rest_stays(selected, way, n, over):
    """Also where the run was stopped before its end."""
    if over:
        run = header(whole(selected))
    else:
        run = header(proceed("to", place(header(whole(selected)), 1), 5))
    end = np.frombuffer(base64.b64decode(frames(whole(selected))[5]), np.uint8)
    end = end.reshape(3, 3, 8, 8)[0, 2]
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:7, 3:6] = True
    found = proceed(way, place(run, 1, one=2, mask=write_mask(mask)), kind="keep=", value="2")
    said = header(found)
    assert said["n"] == n
    assert "all kept but a drawn part, each step 2 times" in said["title"]
    raw = np.frombuffer(base64.b64decode(frames(found)[5]), np.uint8).reshape(3, n, 8, 8)[0]
    assert (raw[:, ~mask.numpy()] == end[~mask.numpy()]).all()
    assert (raw[:, mask.numpy()] != end[mask.numpy()]).any()
    runs.leave("me")
    assert frames(proceed("again", place(said, 1)))[5] == frames(found)[5]


def test_a_pixel_of_a_run_that_is_kept(selected):
    run = header(whole(selected))
    reply = pixels({"run": run["id"], "step": 1, "picture": 2})
    values = np.frombuffer(base64.b64decode(reply["values"]), np.float32).reshape(-1, 64)
    terms = np.array(reply["coefficients"])[:, None] * values[:-1]
    assert reply["names"] == ["x0_hat", "x_t", "z"]
    assert abs(terms.sum(0) - values[-1]).max() < 1e-5
    steps = list(generate(selected.checkpoint, CONFIG))
    assert np.array_equal(values[-1], steps[2].x_t[2].reshape(-1).numpy())
    assert pixels({"run": run["id"], "step": 5, "picture": 2}) == GONE
    assert pixels({"run": "x", "step": 1, "picture": 2}) == GONE
    for bad in (None, [], {}, {"run": 1, "step": "1", "picture": 0}, {"step": -1, "picture": 0}):
        assert "must be" in pixels(bad)["error"]


def test_a_hook_that_raises_ends_its_own_run_with_a_sentence(selected, monkeypatch):
    """Another visitor's run in the same batches goes on, and is right."""
    batcher = Batcher()
    monkeypatch.setattr(runtime, "denoiser", lambda *a, **o: BatchedDenoiser(batcher, *a, **o))
    run = header(whole(selected))

    def broken(*_: Any) -> None:
        raise KeyError("a bug of ours")

    monkeypatch.setattr(ScaleEps, "predicted", broken)
    with ThreadPoolExecutor(2) as pool:
        fails = pool.submit(proceed, "on", place(run, 1), kind="eps=", value="1.1")
        good = pool.submit(proceed, "again", place(run, 0))
        with pytest.raises(gr.Error, match="A change of this run failed"):
            fails.result(30)
        last = np.frombuffer(base64.b64decode(frames(good.result(30))[5]), np.uint8)
    plain = np.frombuffer(base64.b64decode(frames(whole(selected))[5]), np.uint8)
    assert np.abs(last.astype(int) - plain).max() <= 1


def test_the_first_run_has_breakpoints_and_changes(selected, monkeypatch):
    monkeypatch.setattr(handlers, "find", lambda name, own: selected)
    monkeypatch.setattr(handlers, "require_time", lambda *_: None)
    asked = ("ddpm", 5, 3, 2, "trailing", "beta_tilde", 0.0, True, "any", 1.0, 20)

    def first(breaks: Any, texts: Any) -> list[dict[str, Any]]:
        return messages(handlers.run("me", {}, "tiny", *asked, breaks, texts))

    found = first("13, 5, 20", " z=0:16 ; eps=1.01:8")
    assert header(found)["meta"]["with"] == "z=0:16;eps=1.01:8"
    assert max(frames(found)) == 2
    assert found[-1]["note"].startswith("Paused at t = 12.")
    assert max(frames(first("", ""))) == 5
    for breaks, texts in (("1 " * 10_000, ""), ("x", ""), ("", "z"), ("", 5), ("", "z=0:9;" * 9)):
        with pytest.raises(gr.Error):
            first(breaks, texts)


def test_places_that_no_page_has_written(selected):
    run = header(whole(selected))
    bad = ["", "{}", "[]", None, place(run, -1), place(run, 2, one="a"), place(run, 2, meta=[])]
    for text in [*bad, place(run, 2, mask=5), place(run, 10**9)]:
        with pytest.raises(gr.Error):
            proceed("on", text)
    for text in (place(run, 5), place(run, 2, meta={**run["meta"], "n": "100000"})):
        with pytest.raises(gr.Error):
            proceed("on", text)
    for form in ({"breaks": "1 " * 10_000}, {"breaks": "x"}, {"kind": "rm"}, {"value": "a;b"}):
        with pytest.raises(gr.Error):
            proceed("on", place(run, 2), **({"kind": "eps="} | form))
    with pytest.raises(gr.Error):
        proceed("branch", place(run, 2), count=17)


def test_texts_of_a_form():
    at = Place("a", 2, None)
    assert change_text("nothing", "", False, 9, at, []) == []
    assert change_text("z=0", "", True, 9, at, []) == ["z=0:9:9"]
    assert change_text("class=", "Dog", True, 9, at, ["cat", "dog"]) == ["class=1:9"]
    assert change_text("draw=flip", "", False, 9, at, []) == ["draw=flip:9"]
    drawn = replace(at, one=3, mask="AAAA")
    assert change_text("draw=dark", "", False, 9, drawn, []) == ["draw=dark:9:3:AAAA"]
    assert change_text("draw=dark", "", False, 9, replace(drawn, one=None), []) == [
        "draw=dark:9::AAAA"
    ]
    assert change_text("keep=", "2", False, 9, drawn, []) == ["keep=2:9:AAAA"]
    with pytest.raises(ValueError, match="Drawing must be"):
        change_text("keep=", "2", False, 9, at, [])
    assert breakpoints(" 700,400 3") == [700, 400, 3]


def test_each_visitor_has_a_share_of_the_memory():
    def record(size: int) -> Record:
        made = Record()
        made.nbytes = size
        return made

    kept = Runs(visitor_bytes=100, all_bytes=250)
    a = [kept.begin("a", record(60)) for _ in range(2)]
    assert [kept.get(name) is not None for name in a] == [False, True]
    b = [kept.begin(name, record(90)) for name in "bcd"]
    assert [kept.get(name) is not None for name in [a[1], *b]] == [False, False, True, True]
    kept.leave("d")
    assert kept.get(b[2]) is None
