"""The Python half of the player: messages, thinning, stopping, and files."""

import base64
import io
import json
import threading
import time
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_demo.ui.components import player
from ddpm_demo.ui.components.player import export, messages


def steps(total, shape=(4, 1, 8, 8), pause=0.0, pulled=None):
    for k in range(total + 1):
        time.sleep(pause)
        if pulled is not None:
            pulled.append(k)
        x = torch.full(shape, 2 * k / total - 1)
        yield SimpleNamespace(index=k, total=total, t=total - k, x_t=x, x0_hat=-x)


def frames(values):
    return [f for v in values if isinstance(v, str) for f in json.loads(v).get("frames", [])]


def request(kind="png", count=12, shape=(4, 8, 8, 3), **changes):
    """What the page sends to have a file made."""
    rng = np.random.default_rng(0)
    meta = {"model": "MNIST", "sampler": "ddim", "steps": 50, "seed": 0, "guidance": 1.5}
    run = json.loads(player.header(shape, count - 1, meta=meta))["run"]
    shown = []
    for k in range(count):
        pictures = rng.integers(0, 256, (2, *shape), dtype=np.uint8)
        shown += json.loads(player.frame(k, count - 1 - k, *pictures))["frames"]
    return {"kind": kind, "run": run, "frames": shown, "one": None, **changes}


def saved(**options):
    reply = player.export_film(request(**options))
    assert "error" not in reply
    return reply["name"], reply["mime"], base64.b64decode(reply["data"])


def test_the_first_message_holds_the_header_and_the_first_frame():
    first, *_ = player.stream(steps(10), columns=2, title="ten", meta={"seed": 3})
    message = json.loads(first)
    assert message["run"] == {
        "n": 4,
        "h": 8,
        "w": 8,
        "c": 1,
        "columns": 2,
        "panels": list(player.PANELS.values()),
        "panes": ["x_t", "x0_hat"],
        "total": 10,
        "unit": "step",
        "title": "ten",
        "fps": messages.FPS,
        "meta": {"seed": "3"},
    }
    assert message["frames"][0]["step"] == 0
    raw = base64.b64decode(message["frames"][0]["d"])
    assert raw == bytes([0] * 256 + [255] * 256)  # x_t = -1, then x0_hat = 1


def test_panels_are_chosen_by_attribute():
    first, *_ = player.stream(steps(3), panels={"x0_hat": "result"})
    assert json.loads(first)["run"]["panels"] == ["result"]
    assert base64.b64decode(json.loads(first)["frames"][0]["d"]) == bytes([255] * 256)


def test_slow_steps_are_all_sent_one_a_message():
    values = list(player.stream(steps(6, pause=0.02), fps=100))
    assert [len(json.loads(v)["frames"]) for v in values] == [1] * 7


def test_fast_steps_are_all_pulled_and_thinned_by_time():
    pulled = []
    start = time.perf_counter()
    values = list(player.stream(steps(600, pause=0.001, pulled=pulled), fps=10))
    seconds = time.perf_counter() - start
    sent = [f["step"] for f in frames(values)]
    assert pulled == list(range(601))
    assert sent[0] == 0
    assert sent[-1] == 600
    assert sent == sorted(set(sent))
    assert len(values) <= 2 + 10 * seconds
    assert len(sent) <= 2 + 10 * seconds * messages.FRAMES_PER_MESSAGE
    assert len(sent) > len(values)  # a message carries several frames


def test_many_runs_share_the_messages_and_lose_no_frame(monkeypatch):
    monkeypatch.setattr(messages, "_streams", set(range(11)))  # of others
    for sparing, share in ((False, 1), (True, 12)):
        start = time.perf_counter()
        values = list(player.stream(steps(30, pause=0.02), fps=100, sparing=sparing))
        seconds = time.perf_counter() - start
        assert len(frames(values)) == 31
        assert len(values) <= 2 + seconds * 100 / share
        assert len(values) == 31 or sparing
    assert len(messages._streams) == 11


def test_a_run_counts_as_one_until_it_ends_or_is_closed():
    run = player.stream(steps(9), fps=1e6)
    next(run)
    next(run)
    assert len(messages._streams) == 1
    run.close()
    assert not messages._streams


def test_a_run_sends_no_more_than_it_may_keep(monkeypatch):
    sent = frames(player.stream(steps(500, pause=0.001), fps=1e6, keep=20))
    assert len(sent) <= 22
    monkeypatch.setattr(messages, "CHARS_PER_RUN", 10 * len(sent[0]["d"]))
    sent = frames(player.stream(steps(500, pause=0.001), fps=1e6))
    assert len(sent) <= 12
    assert sent[-1]["step"] == 500


def test_big_pictures_are_sent_less_often(monkeypatch):
    (one, *_) = frames(player.stream(steps(1)))
    monkeypatch.setattr(messages, "CHARS_PER_SECOND", 10 * len(one["d"]))
    start = time.perf_counter()
    sent = frames(player.stream(steps(200, pause=0.001), fps=1e6))
    assert len(sent) <= 2 + 10 * (time.perf_counter() - start)


def test_something_is_yielded_at_every_tick_so_that_stop_works():
    """Gradio stops a generator at a yield; hidden steps must not be a gap."""
    values = list(player.stream(steps(50, pause=0.01), fps=200, keep=2))
    assert len(frames(values)) == 3
    assert len(values) == 51
    assert values[1] == gr.skip()


def test_closing_closes_the_sampler_within_a_step():
    pulled, closed = [], []

    def sampler():
        try:
            yield from steps(1000, pause=0.001, pulled=pulled)
        finally:
            closed.append(True)

    run = player.stream(sampler(), fps=1e6)
    for _ in range(5):
        next(run)
    run.close()
    assert closed
    assert len(pulled) <= 6


def test_an_interrupted_sampler_still_shows_its_last_step():
    some = (s for s in steps(100) if s.index <= 40)
    assert frames(player.stream(some, fps=0.1))[-1]["step"] == 40
    assert list(player.stream(iter(()))) == []


def test_thinning_costs_little():
    """A hidden step costs about 1 µs; the bound is generous, and counts this thread alone."""
    many = list(steps(5_000, shape=(1, 1, 1, 1)))
    start = time.thread_time()
    list(player.stream(many, keep=2))
    assert (time.thread_time() - start) / len(many) < 50e-6


@pytest.mark.parametrize(
    ("kind", "name", "magic"),
    [
        ("gif", "ddpm-mnist-ddim-50-seed0.gif", b"GIF89a"),
        ("mp4", "ddpm-mnist-ddim-50-seed0.mp4", b"ftyp"),
        ("strip", "ddpm-mnist-ddim-50-seed0-strip.png", b"\x89PNG"),
        ("png", "ddpm-mnist-ddim-50-seed0-t0.png", b"\x89PNG"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_files(kind, name, magic, channels):
    got, mime, data = saved(kind=kind, shape=(4, 8, 8, channels))
    assert got == name
    assert mime == player.MIMES[kind]
    assert magic in data[:8]
    if kind == "mp4":
        return
    image = Image.open(io.BytesIO(data))
    assert image.width >= (512 if kind == "gif" else 1024)
    if kind == "gif":
        assert image.n_frames == 12
        assert json.loads(image.info["comment"])["seed"] == "0"
    else:
        assert image.text["sampler"] == "ddim"
        assert image.text["program"] == "ddpm_demo"


def film_of(made):
    return Image.open(io.BytesIO(base64.b64decode(player.export_film(made)["data"])))


def test_a_film_of_few_frames_may_be_slow():
    made = request(kind="gif")
    made["run"]["fps"] = 2.5
    assert film_of(made).info["duration"] == 400


@pytest.mark.parametrize("count", [3, 12, 21])
def test_a_short_film_lasts_four_seconds(count):
    film = film_of(request(kind="gif", count=count))
    seconds = 0.0
    for k in range(film.n_frames):
        film.seek(k)
        seconds += film.info["duration"] / 1000
    assert 3.9 < seconds < 5.5


def test_a_film_says_when_and_what():
    """Above the pictures are two lines of black letters on white; t changes from frame to frame."""
    film = film_of(request(kind="gif", shape=(4, 8, 8, 1)))
    heads = []
    for k in (0, 11):
        film.seek(k)
        heads.append(np.array(film.convert("L"))[:24])
    assert all((head == 255).mean() > 0.7 for head in heads)
    assert all(head.min() < 80 for head in heads)
    assert (heads[0] != heads[1]).any()
    assert export.moment_words({"step": 3, "t": 500}, "step") == "t = 500"
    assert export.moment_words({"step": 40, "t": None}, "step") == "step 40"
    assert [export.plain(label) for label in player.PANES.values()] == [
        "Current picture x_t",
        "Predicted picture x0_hat",
        "Predicted noise eps_hat",
        "Fresh noise sigma z",
    ]


def test_a_picture_says_which_one_it_is():
    _, _, data = saved(count=7, one=2)
    about = Image.open(io.BytesIO(data)).text
    assert (about["t"], about["step"], about["picture"]) == ("0", "6", "3")


def test_a_png_holds_the_very_pixels_sent():
    _, _, data = saved(count=1, shape=(4, 8, 8, 3))
    sheet = np.array(Image.open(io.BytesIO(data)))
    sent = np.frombuffer(base64.b64decode(request(count=1)["frames"][0]["d"]), np.uint8)
    sent = sent.reshape(2, 4, 8, 8, 3)
    scale = 27  # two panels of two 8 x 8 pictures: 2 * 17 + 4 = 38 pixels wide
    assert sheet.shape == (17 * scale, 38 * scale, 3)
    small = sheet[::scale, ::scale]
    assert (sheet == small.repeat(scale, 0).repeat(scale, 1)).all()  # crisp
    assert (small[:8, :8] == sent[0, 0]).all()
    assert (small[9:, 9:17] == sent[0, 3]).all()
    assert (small[:8, 21:29] == sent[1, 0]).all()


def test_one_picture_alone():
    _, _, data = saved(count=1, one=2)
    small = np.array(Image.open(io.BytesIO(data)))[::52, ::52]
    sent = np.frombuffer(base64.b64decode(request(count=1)["frames"][0]["d"]), np.uint8)
    assert small.shape == (8, 20, 3)
    assert (small[:, :8] == sent.reshape(2, 4, 8, 8, 3)[0, 2]).all()


@pytest.mark.parametrize(
    ("meta", "name"),
    [
        ({}, "ddpm.gif"),
        ({"model": "../../etc/passwd", "seed": 7}, "ddpm-etc-passwd-seed7.gif"),
        ({"model": "a/b c", "sampler": "DPM++ 2M", "steps": 20}, "ddpm-a-b-c-dpm-2m-20.gif"),
        (
            {"model": "cifar10", "class": "ship", "guidance": "1.5", "seed": 0, "t": 500},
            "ddpm-cifar10-ship-w1-5-seed0-t500.gif",
        ),
        ({"model": "cifar10", "class": "any", "guidance": "1.5"}, "ddpm-cifar10-any.gif"),
        ({"model": "x" * 500}, "ddpm-" + "x" * 95 + ".gif"),
    ],
)
def test_file_names_are_plain(meta, name):
    assert player.file_name("gif", meta) == name


def hostile():
    def with_run(**changes):
        made = request()
        made["run"].update(changes)
        return made

    def with_frame(**changes):
        made = request()
        made["frames"][3].update(changes)
        return made

    yield from (None, [], "x", 3, {}, {"kind": "gif"}, {"kind": ["gif"], "run": {}, "frames": []})
    yield from (request(kind=k) for k in ("exe", None, 1, {}))
    yield from (request(frames=f) for f in (None, [], {}, [None], "abc", 500 * [{}]))
    yield from (request(one=k) for k in (-1, 4, 1.0, True, "0", []))
    for name in ("n", "h", "w", "c", "columns"):
        yield from (with_run(**{name: v}) for v in (0, -1, 10**9, 1.5, "8", None, True))
    yield from (
        with_run(panels=p) for p in (None, [], ["a"] * 5, "ab", ["a"], [1, 2], ["a" * 80] * 2)
    )
    yield from (with_run(meta=m) for m in (None, [], {"a": 1}, {"a": "x" * 999}, {"k" * 99: ""}))
    yield from (with_run(fps=v) for v in (0, 0.5, 31, "2", None, True, float("nan")))
    yield with_run(c=2)
    yield with_run(meta={str(k): "" for k in range(99)})
    yield from (with_frame(d=d) for d in (None, "", "A" * 10, "!" * 2048, "é" * 2048, "=" * 2048))
    yield from (with_frame(step=s) for s in (None, "1", -1, 1.5, 10**99))
    yield from (with_frame(t=t) for t in ("1", -1, [], float("nan")))


@pytest.mark.parametrize("made", list(hostile()))
def test_hostile_requests_give_a_sentence(made):
    reply = player.export_film(made)
    assert list(reply) == ["error"]
    assert len(reply["error"]) < 200


def test_requests_have_a_cap(monkeypatch):
    monkeypatch.setattr(export, "REQUEST_CHARS", 12 * 2048 - 1)
    assert "too large" in player.export_film(request())["error"]
    monkeypatch.undo()
    assert "data" in player.export_film(request())


def test_tall_pictures_are_not_blown_up():
    made = request(kind="png", count=1, shape=(1, 1024, 1, 1))
    made["run"]["panels"] = ["one"]
    raw = base64.b64decode(made["frames"][0]["d"])[:1024]
    made["frames"][0]["d"] = base64.b64encode(raw).decode()
    image = Image.open(io.BytesIO(base64.b64decode(player.export_film(made)["data"])))
    assert image.size == (1, 1024)


def test_no_more_than_two_films_at_once(monkeypatch):
    now, most, lock, full = 0, 0, threading.Lock(), threading.Event()

    def encode(*_):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        full.wait(0.1)
        with lock:
            now -= 1
        return b"film"

    monkeypatch.setattr(export, "_encode", encode)
    replies = []
    workers = [
        threading.Thread(target=lambda: replies.append(player.export_film(request())))
        for _ in range(6)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert most == 2
    assert all("data" in reply for reply in replies)


def test_a_busy_server_says_so(monkeypatch):
    monkeypatch.setattr(export, "_encoders", threading.BoundedSemaphore(1))
    monkeypatch.setattr(export, "PATIENCE", 0.01)
    with export._encoders:
        assert "busy" in player.export_film(request())["error"]
    assert "data" in player.export_film(request())


def test_a_failing_encoder_gives_its_slot_back(monkeypatch):
    def broken(*_):
        raise RuntimeError("no codec")

    monkeypatch.setattr(export, "_encode", broken)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            player.export_film(request())


def test_no_file_stays_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    for kind in player.MIMES:
        saved(kind=kind)
    assert list(tmp_path.iterdir()) == []
