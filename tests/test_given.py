"""Runs that begin with a picture, and runs that keep a part of one."""

import base64
import io
import json
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_demo.config import SAMPLERS, SampleConfig
from ddpm_demo.diffusion import Denoiser, Noise, Schedule
from ddpm_demo.inference import given
from ddpm_demo.inference.changes import write_mask
from ddpm_demo.inference.generate import generate, go_on, play
from ddpm_demo.inference.record import Record
from ddpm_demo.inference.spec import RunSpec
from ddpm_demo.inference.updates import updates
from ddpm_demo.ui.components.controls import Selected
from ddpm_demo.ui.forward import shot
from ddpm_demo.ui.generate import handlers, pausing
from ddpm_demo.ui.server import runtime

CONFIG = SampleConfig("ddpm", 6, n=1, seed=4)


def picture(channels: int = 1, seed: int = 0) -> torch.Tensor:
    """(1, C, 8, 8) in 256 levels."""
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, channels, 8, 8), generator=g) / 127.5 - 1


def last(steps: Any) -> torch.Tensor:
    *_, step = steps
    return step.x_t


def far(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_at_T_it_is_generation_and_at_1_it_is_the_picture(tiny, sampler):
    """At T the cosine schedule leaves nothing of the picture; at 1 the noise is small."""
    checkpoint, x_0 = tiny(), picture()
    config = CONFIG.but(sampler=sampler)
    T, schedule = checkpoint.diffusion.T, Schedule.from_config(checkpoint.diffusion)
    row, change = given.begun(checkpoint, config, [T], 6)
    plain = last(generate(checkpoint, config))
    assert far(last(play(checkpoint, row, [change], given=[x_0])), plain) < 0.02
    row, change = given.begun(checkpoint, config, [1])
    assert row.timesteps == (1,)
    sigma = float(1 - schedule.alpha_bar[1]) ** 0.5
    assert far(last(play(checkpoint, row, [change], given=[x_0])), x_0) < 6 * sigma


def test_a_row_begins_each_picture_at_its_own_t(tiny):
    """From equation 4, with the eps of each picture's seed."""
    checkpoint, x_0 = tiny(), picture()
    schedule = Schedule.from_config(checkpoint.diffusion)
    config, change = given.begun(checkpoint, CONFIG, [5, 17, 11])
    assert change == "picture=17,11,5:17"
    assert (config.n, {5, 11, 17} <= set(config.timesteps)) == (3, True)
    steps = list(play(checkpoint, config, [change], given=[x_0]))
    eps = Noise("gaussian", range(4, 7)).draw((3, 1, 8, 8))
    for step in steps[:-1]:
        noised = schedule.q_sample(x_0.expand(3, -1, -1, -1), step.t, eps)
        same = [torch.equal(a, b) for a, b in zip(step.x_t, noised, strict=True)]
        assert same == [step.t >= t for t in (17, 11, 5)]
    alone, one = given.begun(checkpoint, CONFIG.but(timesteps=None), [17])
    alone = alone.but(timesteps=config.timesteps)
    assert far(last(play(checkpoint, alone, [one], given=[x_0]))[0], steps[-1].x_t[0]) < 1e-4


def test_it_is_gone_on_with_and_branched(tiny):
    checkpoint, x_0 = tiny(), [picture()]
    config, change = given.begun(checkpoint, CONFIG, [18, 9])
    record = Record()
    whole = list(record.watch(play(checkpoint, config, [change], given=x_0)))
    for seen in record.steps.values():
        again = last(go_on(checkpoint, config, [change], [], seen.state, given=x_0))
        assert torch.equal(again, whole[-1].x_t)
    state = record.steps[0].state  # the second picture is still held
    more = [f"fork=3:{state.t}:1"]
    branches = last(go_on(checkpoint, config, [change], more, state, given=x_0))
    assert far(branches[0], whole[-1].x_t[1]) < 1e-4
    assert min(far(branches[0], other) for other in branches[1:]) > 1e-3


@pytest.mark.parametrize("times", [1, 3])
def test_a_part_is_kept_and_the_rest_is_made(tiny, times):
    checkpoint, x_0 = tiny(), [picture()]
    drawn = torch.zeros(8, 8, dtype=torch.bool)
    drawn[2:6, 1:5] = True
    t = [step.t for step in generate(checkpoint, CONFIG)]
    keep = f"keep={times}:{t[0]}:{write_mask(drawn)}:0"
    ends = last(play(checkpoint, CONFIG, [keep, f"fork=4:{t[0]}:0"], given=x_0))
    assert torch.equal(ends[:, 0, ~drawn], x_0[0][0, 0, ~drawn].expand(4, -1))
    assert (ends[:, 0, drawn] - x_0[0][0, 0, drawn]).abs().max(1).values.min() > 0.01
    record = Record()
    list(record.watch(play(checkpoint, CONFIG, [keep], given=x_0)))
    lines = updates(checkpoint, CONFIG, [keep])["lines"]
    for k, said in enumerate(lines):
        line = record.line(k, 0)
        assert [term.name for term in line.terms] == [name for name, _ in said]
        total = sum(c * term.tensor for (_, c), term in zip(said, line.terms, strict=True))
        assert far(total, line.after) < 1e-5
    assert lines[-1][-1] == ("known", 1.0)


def test_a_spec_says_its_pictures_and_is_read_again(tiny):
    for channels in (1, 3):
        model = tiny(channels=channels).model.config
        text = given.write(picture(channels))
        assert torch.equal(given.read([text], model)[0], picture(channels))
        spec = RunSpec("tiny", CONFIG, ("picture=5:5",), (text,))
        assert RunSpec.from_metadata(spec.to_metadata()) == spec
        assert "with" not in spec.to_query(tiny().facts)
    model = tiny(size=16).model.config
    for bad in ([text], ["%"], [base64.b64encode(b"no").decode()], [text] * 9, ["A" * 10**6]):
        with pytest.raises(ValueError, match=r"(?i)picture"):
            given.read(bad, model)


@pytest.mark.parametrize("ts", [[], [0], [21], [1.5], [*range(1, 10)]])
def test_a_t_that_is_not_there_is_refused(tiny, ts):
    with pytest.raises(ValueError, match="t to begin at"):
        given.begun(tiny(), CONFIG, ts)


def test_a_run_that_is_given_no_picture_says_so(tiny):
    for text in ("picture=5:5", f"keep=1:5:{write_mask(torch.ones(8, 8, dtype=torch.bool))}:0"):
        with pytest.raises(ValueError, match="pictures given"):
            play(tiny(), CONFIG, [text])
    with pytest.raises(ValueError, match="one for each picture"):
        play(tiny(), CONFIG.but(n=3), ["picture=5,4:5"], given=[picture()])


@pytest.mark.parametrize("predict", ["eps", "x0", "v"])
def test_one_shot_is_algorithm_1_with_one_call(tiny, predict):
    """eps is that of the seed, x_t is equation 4, and eps_hat and x0_hat make x_t again."""
    checkpoint, x_0, calls = tiny(predict=predict), picture(), []

    class Counts(Denoiser):
        def _network(self, x, t, y):
            calls.append(int(t[0]) + 1)
            return super()._network(x, t, y)

    made = given.one_shot(checkpoint, x_0, 7, 3, denoiser=Counts)
    bar = float(Schedule.from_config(checkpoint.diffusion).alpha_bar[7])
    eps = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(3))[None]
    assert calls == [7]
    assert torch.equal(made.eps, eps)
    assert far(made.x_t, bar**0.5 * x_0 + (1 - bar) ** 0.5 * eps) < 1e-6
    assert far(made.signal * made.x0_hat + made.sigma * made.eps_hat, made.x_t) < 1e-5
    assert made.loss == pytest.approx(float(((eps - made.eps_hat) ** 2).mean()))
    with pytest.raises(ValueError, match="t must be"):
        given.one_shot(checkpoint, x_0, 21)


# --- in the app -----------------------------------------------------------------------------------


def png(size: int = 300, mode: str = "RGB") -> str:
    buffer = io.BytesIO()
    Image.new(mode, (size, size // 2), "orange").save(buffer, "png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture
def app(monkeypatch, tiny):
    """Runs a handler; returns the header, and the frames of x_t by step."""
    selected = Selected("tiny", "tiny", tiny())
    for module in (handlers, pausing):
        monkeypatch.setattr(module, "find", lambda name, own: selected)
        monkeypatch.setattr(module, "require_time", lambda *_: None)
    monkeypatch.setattr(runtime, "denoiser", Denoiser)
    monkeypatch.setattr(runtime, "has_gpu", lambda: True)
    monkeypatch.setattr(runtime, "bf16", lambda: False)

    def shown(stream: Any) -> tuple[dict[str, Any], dict[int, np.ndarray]]:
        found = [json.loads(m) for m in stream if isinstance(m, str)]
        header = next(m["run"] for m in found if "run" in m)
        frames = [f for m in found for f in m.get("frames", [])]
        shape = (3, header["n"], 8, 8)
        raw = {f["step"]: np.frombuffer(base64.b64decode(f["d"]), np.uint8) for f in frames}
        return header, {step: data.reshape(shape)[0] for step, data in raw.items()}

    return shown


ASKED = ("ddpm", 6, 16, 4, "trailing", "beta_tilde", 0.0, True, "any", 1.0, 20)


def test_a_drawing_becomes_a_run_that_can_be_made_again(app):
    source = json.dumps({"picture": png(), "t": "15, 5"})
    header, frames = app(handlers.from_picture("me", {}, source, "tiny", *ASKED))
    assert (header["n"], header["columns"]) == (2, 2)
    assert "a picture, noised to t = 15, 5" in header["title"]
    place = {"run": "gone", "step": 0, "one": None, "meta": header["meta"], "mask": ""}
    form = ("nothing", "", False, "", 4, True)
    again, same = app(pausing.proceed("again", "me", {}, json.dumps(place), 0, *form))
    assert np.array_equal(same[max(same)], frames[max(frames)])
    assert again["meta"] == header["meta"]


def test_forward_noising_asks_a_model_once(app, monkeypatch):
    monkeypatch.setattr(shot, "find", handlers.find)
    source = json.dumps({"picture": png(), "t": "7"})
    (page,) = shot.shot({}, "tiny", source, 0)
    assert page.count("<img") == 5
    assert "at t = 7." in page
    for bad in (json.dumps({"picture": png(), "t": "1, 2"}), json.dumps({"t": "5"}), None):
        with pytest.raises(gr.Error):
            list(shot.shot({}, "tiny", bad, 0))


@pytest.mark.parametrize(
    "source",
    [
        *("", None, "[]", "{}", '{"picture": 5, "t": "5"}'),
        *(json.dumps({"picture": "data:image/png;base64,%%", "t": "5"}),),
        *(json.dumps({"picture": "aGFsbG8=", "t": "5"}),),
        *(json.dumps({"picture": "A" * 5_000_000, "t": "5"}),),
        *(json.dumps({"picture": png(), "t": t}) for t in ("", "0", "21", "x", "5," * 10_000)),
    ],
)
def test_what_no_pad_sends_gets_one_sentence(app, source):
    with pytest.raises(gr.Error) as error:
        app(handlers.from_picture("me", {}, source, "tiny", *ASKED))
    assert len(str(error.value)) < 250
