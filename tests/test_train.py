"""The training loop: what a step computes, what a killed run loses (nothing), and two processes."""

import contextlib
import dataclasses
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ddpm_demo.config import (
    LOSSES,
    NOISES,
    NORMS,
    PREDICTIONS,
    SCHEDULES,
    WEIGHTINGS,
    DiffusionConfig,
    ModelConfig,
    TrainConfig,
)
from ddpm_demo.data import Images
from ddpm_demo.diffusion import Denoiser, Noise
from ddpm_demo.diffusion.samplers.ddim import ddim
from ddpm_demo.models.checkpoint import Checkpoint, CheckpointError, load_tensors, save_tensors
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.nn.unet import UNet
from ddpm_demo.training import trainer as tr
from ddpm_demo.training.state import load_run
from ddpm_demo.training.train import Progress, train
from ddpm_demo.training.trainer import DivergedError, Shuffle, Trainer

BATCH = 4


def network(**changes: Any) -> ModelConfig:
    few: dict[str, Any] = {"size": 8, "channels": 1, "width": 8, "multipliers": (1, 2)}
    return ModelConfig(**(few | {"attention": (4,), "time_dim": 16} | changes))


def pictures(n: int = 10, classes: int = 3) -> Images:
    """Random pictures whose first pixel is their label."""
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, 1, 8, 8), generator=g).byte()
    labels = torch.arange(n) % classes
    pixels[:, 0, 0, 0] = labels.byte()
    return Images(pixels, labels, tuple(f"kind {i}" for i in range(classes)), flip=True)


def settings(**changes: Any) -> TrainConfig:
    short: dict[str, Any] = {"batch_size": BATCH, "warmup": 2, "images": 8 * BATCH}
    return TrainConfig(**(short | changes))


def run(out: Path | None = None, resume: bool = False, **changes: Any) -> Iterator[Progress]:
    """Eight steps with everything random that there is: dropout, flips, labels dropped."""
    options = {k: changes.pop(k) for k in ("should_stop", "held_out", "compiled") if k in changes}
    model = network(**({"num_classes": 3, "dropout": 0.3} | changes.pop("model", {})))
    process = DiffusionConfig(10, "cosine")
    config = settings(**({"preview_every": 2 * BATCH} if out else {}) | changes)
    return train(model, process, config, pictures(), out, resume=resume, bf16=False, **options)


def trainer(
    process: DiffusionConfig | None = None, data: Images | None = None, **changes: Any
) -> Trainer:
    model = network(**changes.pop("model", {}))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = UNet(model)
    process = process or DiffusionConfig(20)
    return Trainer(net, process, settings(**changes), data or pictures())


def state(out: Path) -> dict[str, Tensor]:
    return load_tensors(out / "state.safetensors")[0]


def differ(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    assert any(k.startswith("adam.") for k in a)
    return max(float((a[k] - b[k]).abs().max()) for k in a)


# What a step computes


def distance(loss: str, d: Tensor) -> Tensor:
    if loss == "mse":
        return d**2
    if loss == "l1":
        return d.abs()
    return torch.where(d.abs() < 1, d**2 / 2, d.abs() - 0.5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("predict", PREDICTIONS)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_one_step(loss: str, noise: str, schedule: str, predict: str, weighting: str) -> None:
    """A fresh network says 0, so its losses, and the gradient of its last bias, have formulas."""
    process = DiffusionConfig(20, schedule, noise=noise, predict=predict)
    t = trainer(process, loss=loss, weighting=weighting, grad_clip=1e6)
    x_0, steps, eps, _ = t.draw(0, 0)
    before = [p.clone() for p in t.model.parameters()]
    seen, each = t.advance(1e-3)

    assert torch.equal(seen, steps)
    ab = t.schedule.alpha_bar[steps].reshape(-1, 1, 1, 1)
    target = {"eps": eps, "x0": x_0, "v": ab.sqrt() * eps - (1 - ab).sqrt() * x_0}[predict]
    said = torch.zeros_like(target).requires_grad_()
    wanted = distance(loss, said - target).mean((1, 2, 3))
    assert (each - wanted).abs().max() < 1e-6
    weight = torch.ones(BATCH)
    if weighting == "min-snr":
        snr = (ab / (1 - ab)).flatten()
        weight = {"eps": 5 / snr, "x0": snr + 0 * snr, "v": snr / (snr + 1)}[predict]
        capped = {"eps": 1 + 0 * snr, "x0": 5 + 0 * snr, "v": 5 / (snr + 1)}[predict]
        weight = torch.minimum(weight, capped)
    (weight * wanted).mean().backward()
    gradient = t.model.conv_out.bias.grad
    assert gradient is not None
    assert said.grad is not None
    assert (gradient - said.grad.sum()).abs().max() < 1e-5 * max(1, float(weight.max()))
    assert any(not torch.equal(a, b) for a, b in zip(before, t.model.parameters(), strict=True))
    assert all(p.isfinite().all() for p in t.model.parameters())


@pytest.mark.parametrize("size", [28, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_step_on_the_shapes_of_the_data_sets(channels: int, size: int) -> None:
    pixels = torch.randint(0, 256, (6, channels, size, size), dtype=torch.uint8)
    data = Images(pixels, torch.zeros(6, dtype=torch.long), flip=True)
    shape = {"size": size, "channels": channels, "multipliers": (1, 2, 2), "attention": (7, 8)}
    t = trainer(data=data, model=shape)
    t.held_out = data
    before = t.model.conv_out.weight.clone()
    _, each = t.advance(1e-3)
    assert bool(each.isfinite().all())
    assert not torch.equal(before, t.model.conv_out.weight)
    loss = t.held_out_loss()
    assert loss is not None
    assert math.isfinite(loss)
    assert t.preview().shape == (16, channels, size, size)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attention", [(), (8, 4)])
@pytest.mark.parametrize(("blocks", "scale_shift"), [(1, True), (2, False)])
@pytest.mark.parametrize(("classes", "dropout"), [(0, 0.0), (3, 0.5)])
def test_one_step_of_each_network(
    norm: str,
    attention: tuple[int, ...],
    blocks: int,
    scale_shift: bool,
    classes: int,
    dropout: float,
) -> None:
    """Every parameter that can have a gradient has one, and the step goes down it."""
    shape = {"norm": norm, "groups": 4, "attention": attention, "blocks": blocks}
    shape |= {"scale_shift": scale_shift, "num_classes": classes, "dropout": dropout}
    t = trainer(model=shape, lr=1e-4, ema=0.0, weighting="min-snr")
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():  # fresh blocks pass no gradient on: they are zero at their ends
        for p in t.model.parameters():
            p += 0.1 * torch.randn(p.shape, generator=g)
    before = {n: p.detach().clone() for n, p in t.model.named_parameters()}
    t.advance(1e-4)
    for name, p in t.model.named_parameters():
        assert p.grad is not None, name
        assert bool(p.grad.isfinite().all()), name
        if "to_k.bias" not in name:  # which softmax ignores
            assert bool((p.grad != 0).any()), name
            assert not torch.equal(p, before[name]), name
        moved, down = p.detach() - before[name], -p.grad.sign()
        assert float((moved * down).min()) >= 0, name


def test_the_network_sees_x_t_and_t_from_0() -> None:
    t = trainer(model={"num_classes": 3})
    x_0, steps, eps, y = t.draw(0, 0)
    seen = []

    def spy(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        seen.extend([x, t, y])
        return torch.zeros_like(x)

    t.losses(spy, x_0, steps, eps, y)  # type: ignore[arg-type]
    ab = t.schedule.alpha_bar[steps].reshape(-1, 1, 1, 1)
    assert (seen[0] - (ab.sqrt() * x_0 + (1 - ab).sqrt() * eps)).abs().max() < 1e-6
    assert torch.equal(seen[1], steps - 1)
    assert torch.equal(seen[2], y)


def test_gradients_are_clipped() -> None:
    lengths = []
    for clip in (1e6, 0.01):
        t = trainer(grad_clip=clip)
        t.advance(1e-3)
        gradients = [p.grad.flatten() for p in t.model.parameters() if p.grad is not None]
        lengths.append(float(torch.cat(gradients).norm()))
    assert lengths[0] > 0.1
    assert abs(lengths[1] - 0.01) < 1e-5


def test_ema_is_an_average_that_warms_up() -> None:
    t = trainer(ema=0.3, lr=0.01)
    names = [n for n, _ in t.model.named_parameters()]
    wanted = [p.detach().clone() for p in t.model.parameters()]
    for step in range(5):
        t.advance(0.01)
        decay = min(0.3, (1 + step) / (10 + step))  # 0.1, 0.18, 0.25, 0.3, 0.3
        for w, p in zip(wanted, t.model.parameters(), strict=True):
            w.copy_(decay * w + (1 - decay) * p.detach())
    ema = dict(t.ema.named_parameters())
    assert max(float((ema[n] - w).abs().max()) for n, w in zip(names, wanted, strict=True)) < 1e-6
    assert (t.model.conv_out.bias - ema["conv_out.bias"]).abs().max() > 1e-4
    assert not any(p.requires_grad for p in t.ema.parameters())


@pytest.mark.parametrize(("width", "gamma"), [(0.05, 16.97), (0.10, 6.94)])
def test_an_average_is_as_wide_as_it_says(width: float, gamma: float) -> None:
    """The two widths, and their gammas, are those of Karras et al. 2024."""
    assert tr.exponent(width) == pytest.approx(gamma, abs=0.01)
    n = 20_000
    t, moves = np.arange(1, n + 1), np.zeros(n)
    for step in t:
        beta = (1 - 1 / step) ** (tr.exponent(width) + 1)
        moves *= beta
        moves[step - 1] = 1 - beta
    assert moves.sum() == pytest.approx(1)
    mean = (moves * t).sum()
    assert np.sqrt((moves * (t - mean) ** 2).sum()) / n == pytest.approx(width, rel=1e-3)


def test_averages_of_several_widths_are_kept_and_resumed(tmp_path: Path) -> None:
    widths, folders = (0.05, 0.2), (tmp_path / "whole", tmp_path / "parts")
    list(run(folders[0], ema_rel=widths))
    whole, plain = state(folders[0]), tmp_path / "plain"
    list(run(plain))
    for name, weight in state(plain).items():  # the rest of the run is the same
        assert torch.equal(whole[name], weight), name
    stops = iter([False, False, True])
    list(run(folders[1], ema_rel=widths, should_stop=lambda: next(stops)))
    list(run(folders[1], resume=True, ema_rel=widths))
    assert differ(state(folders[1]), whole) == 0
    with pytest.raises(CheckpointError, match=r"ema_rel"):
        run(folders[1], resume=True, ema_rel=(0.1,))


def test_a_power_function_average() -> None:
    t = trainer(ema_rel=(0.2,), lr=0.01)
    wanted = [torch.zeros_like(p) for p in t.model.parameters()]
    for step in range(1, 5):
        t.advance(0.01)
        beta = (1 - 1 / step) ** (tr.exponent(0.2) + 1)
        for w, p in zip(wanted, t.model.parameters(), strict=True):
            w.copy_(beta * w + (1 - beta) * p.detach())
    for w, p in zip(wanted, t.nets["ema-0.2"].parameters(), strict=True):
        assert (w - p).abs().max() < 1e-6


def test_the_learning_rate_warms_up_and_falls_to_nothing() -> None:
    rates = [p.lr for p in run(lr=0.01, warmup=4, decay=0.5)]
    wanted = [0.01 * k for k in (0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25)]
    assert np.abs(np.array(rates) - wanted).max() < 1e-9
    assert {p.lr for p in run(lr=0.01, warmup=0, decay=0)} == {0.01}


def test_the_loss_falls() -> None:
    """Sixty steps on stripes, by held-out loss, which is of the EMA weights."""
    stripes = torch.arange(8).remainder(2).mul(255).byte().expand(16, 1, 8, 8)
    data = Images(stripes, torch.zeros(16, dtype=torch.long))
    config = settings(lr=5e-3, ema=0.9, images=480, batch_size=8, preview_every=240)
    steps = list(train(network(), DiffusionConfig(20), config, data, held_out=data, bf16=False))
    reports = [p.report for p in steps if p.report]
    assert [p.images for p in steps if p.report] == [240, 480]
    assert reports[1].held_out is not None
    assert reports[0].held_out is not None
    assert reports[1].held_out < reports[0].held_out < 1
    assert reports[1].held_out < 0.35  # a fresh network's is 1


def test_bf16_takes_a_step() -> None:
    t = trainer()
    t.bf16 = True
    before = t.model.conv_out.weight.clone()
    _, each = t.advance(1e-3)
    assert each.dtype == torch.float32
    assert not torch.equal(before, t.model.conv_out.weight)


# What is drawn


def test_every_epoch_sees_every_picture_once() -> None:
    shuffle = Shuffle(7, seed=1)
    order = torch.cat([shuffle.take(s, 3) for s in range(0, 42, 3)])
    epochs = order.reshape(6, 7)
    assert epochs.sort(dim=1).values.tolist() == [list(range(7))] * 6
    assert len({tuple(e.tolist()) for e in epochs}) > 3
    assert torch.equal(Shuffle(7, seed=1).take(10, 20), order[10:30])  # any position alone
    assert not torch.equal(Shuffle(7, seed=2).take(0, 42), order)


@pytest.mark.parametrize("flip", [None, True, False])
def test_draws(flip: bool | None) -> None:
    data = pictures()
    t = trainer(data=data, batch_size=200, flip=flip, model={"num_classes": 3}, label_dropout=0.25)
    x_0, steps, eps, y = t.draw(0, 0)
    assert x_0.shape == eps.shape == (200, 1, 8, 8)
    assert (steps.min(), steps.max()) == (1, 20)
    assert abs(float(steps.float().mean()) - 10.5) < 1.5
    known = {tuple(p.flatten().tolist()): i for i, p in enumerate(data.pixels)}
    levels = ((x_0 + 1) * 127.5).round().byte()
    mirrored = 0
    for k in range(200):
        plain = known.get(tuple(levels[k].flatten().tolist()))
        turned = known.get(tuple(levels[k].flip(2).flatten().tolist()))
        assert (plain is None) != (turned is None)
        mirrored += plain is None
        label = data.labels[plain if plain is not None else turned]
        assert y[k] in (label, 3)
    assert 70 < mirrored < 130 if flip is not False else mirrored == 0
    assert 30 < int((y == 3).sum()) < 70  # the null class
    assert abs(float(eps.std()) - 1) < 0.05
    again = t.draw(1, 200)
    assert not torch.equal(again[1], steps)
    assert not torch.equal(again[2], eps)
    for a, b in zip(t.draw(0, 0), (x_0, steps, eps, y), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("dropped", "null"), [(0.0, 0), (1.0, 200)])
def test_label_dropout_at_its_ends(dropped: float, null: int) -> None:
    t = trainer(batch_size=200, label_dropout=dropped, model={"num_classes": 3})
    assert int((t.draw(0, 0)[3] == 3).sum()) == null


def test_no_randomness_comes_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    runs = []
    for _ in range(2):
        runs.append([p.loss for p in run()])
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(9)
        before = torch.get_rng_state()
    assert runs[0] == runs[1]
    assert runs[0] != [p.loss for p in run(seed=1)]


# Looking


def test_previews_and_held_out_losses_have_no_dropout_and_repeat() -> None:
    t = trainer(model={"num_classes": 3, "dropout": 0.9})
    for _ in range(3):
        t.advance(0.05)
    t.held_out = pictures()
    preview = t.preview()
    assert torch.equal(preview, t.preview())
    assert t.held_out_loss() == t.held_out_loss()
    assert t.model.training
    plain = UNet(network(num_classes=3))
    plain.load_state_dict(t.ema.state_dict())
    y = torch.arange(16) % 3  # classes in turn
    denoiser = Denoiser(plain, t.diffusion, y=y)
    noise = Noise("gaussian", range(16))
    *_, last = ddim(denoiser, noise.draw((16, 1, 8, 8)), list(range(20, 0, -1)), noise=noise)
    assert preview.shape == (16, 1, 8, 8)
    assert (preview - last.x_t).abs().max() < 1e-4


def test_reports() -> None:
    steps = list(run(held_out=pictures(3), preview_every=2 * BATCH))
    assert [p.step for p in steps] == list(range(1, 9))
    assert [p.images for p in steps] == [4 * k for k in range(1, 9)]
    assert [round(p.done, 6) for p in steps] == [k / 8 for k in range(1, 9)]
    assert [p.step for p in steps if p.report] == [2, 4, 6, 8]
    assert all(p.rate > 0 and math.isfinite(p.eta) for p in steps)
    for a, b in zip(steps[::2], steps[1::2], strict=True):
        report = b.report
        assert report is not None
        assert report.train_loss == pytest.approx((a.loss + b.loss) / 2)
        seen = [v for v in report.loss_by_t if v is not None]
        assert len(report.loss_by_t) == 10
        assert 1 <= len(seen) <= 8
        assert min(seen) <= report.train_loss <= max(seen)
        assert report.held_out is not None
        assert report.preview.abs().max() <= 1
    alone = [p.report for p in run() if p.report]
    assert alone[-1].held_out is None


def test_losses_are_put_down_to_their_t(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_t(self: Trainer, _net: Any, _x: Tensor, t: Tensor, *_: Tensor) -> Tensor:
        return (t - 1) + 0 * self.model.conv_out.bias.sum()

    monkeypatch.setattr(Trainer, "losses", by_t)
    *_, last = run(batch_size=64, images=64, held_out=None)
    assert last.report is not None
    assert last.report.loss_by_t == list(range(10))  # T = 10: one t in each tenth


@pytest.mark.parametrize(
    ("length", "steps"), [({"images": 9}, 3), ({"images": None, "epochs": 1.5}, 4)]
)
def test_lengths(length: dict[str, Any], steps: int) -> None:
    assert len(list(run(**length))) == steps


def test_minutes() -> None:
    steps = list(run(images=None, minutes=1e-3))
    assert steps[-1].done == 1
    assert steps[-1].seconds >= 0.06 > (steps[-2].seconds if len(steps) > 1 else 0)


# Files, and going on


def test_what_is_written(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "run"
    list(run(out, model={"dropout": 0}))
    previews = [f"preview-{n:09d}.png" for n in (8, 16, 24, 32)]
    names = ["log.jsonl", "model.safetensors", *previews, "state.safetensors"]
    assert sorted(p.name for p in out.iterdir()) == names
    got, tensors = load_checkpoint(out), state(out)
    for name, value in got.model.state_dict().items():
        assert torch.equal(value, tensors[f"ema.{name}"])
    assert got.diffusion == DiffusionConfig(10, "cosine")
    assert (got.info["images"], got.info["dataset"]) == (32, "mnist")
    assert got.classes == ["kind 0", "kind 1", "kind 2"]
    assert got.info["train"]["batch_size"] == BATCH
    about = load_tensors(out / "state.safetensors")[1]
    assert [h["images"] for h in about["history"]] == [8, 16, 24, 32]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    out = tmp_path_factory.mktemp("unbroken")
    list(run(out))
    return state(out)


def test_a_stopped_run_goes_on_as_if_nothing_had_been(
    tmp_path: Path, unbroken: dict[str, Tensor]
) -> None:
    for stops in ([3], [5, 1]):  # steps of each session before the last
        out = tmp_path / str(stops)
        for n in stops:
            left = [n]

            def stop(left: list[int] = left) -> bool:
                left[0] -= 1
                return left[0] == 0

            *_, last = run(out, resume=True, should_stop=stop)
            assert last.report is not None
        resumed = list(run(out, resume=True))
        assert resumed[0].step == sum(stops) + 1
        assert differ(state(out), unbroken) == 0


def killed(out: str, when: str) -> None:
    """Run until killed, in a process of its own."""
    if when == "while writing":
        renamed, replace = [], os.replace

        def dying(source: str, target: str) -> None:
            renamed.append(target)
            if len(renamed) == 5:  # four files a report: the state of the second one
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        os.replace = dying  # type: ignore[assignment]
    for p in run(Path(out)):
        if p.step == 5:
            os.kill(os.getpid(), signal.SIGKILL)


def python(call: str, **environment: str) -> subprocess.Popen[str]:
    """Call a function of this file in a process of its own."""
    here = Path(__file__)
    code = f"import sys; sys.path[:0] = {[str(here.parent), str(here.parent.parent)]!r}\n"
    return subprocess.Popen(
        [sys.executable, "-c", code + f"import {here.stem}; {here.stem}.{call}"],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
@pytest.mark.parametrize("when", ["while writing", "between two steps"])
def test_a_killed_run_loses_nothing(when: str, tmp_path: Path, unbroken: dict[str, Tensor]) -> None:
    process = python(f"killed({str(tmp_path)!r}, {when!r})")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, errors
    saved = {"while writing": 2, "between two steps": 4}[when]
    assert load_tensors(tmp_path / "state.safetensors")[1]["step"] == saved
    resumed = list(run(tmp_path, resume=True))
    assert [p.step for p in resumed] == list(range(saved + 1, 9))
    assert differ(state(tmp_path), unbroken) == 0


def test_moments_keep_the_layout_of_their_weights(tmp_path: Path) -> None:
    """Fused AdamW reads memory in order: moments laid out otherwise would be those of others."""
    list(run(tmp_path))
    t = trainer(model={"num_classes": 3, "dropout": 0.3}, preview_every=1)
    t.diffusion = DiffusionConfig(10, "cosine")
    load_run(tmp_path, t)
    laid_out = {
        p.stride() == t.optimizer.state[p][k].stride()
        for p in t.model.parameters()
        for k in ("exp_avg", "exp_avg_sq")
    }
    assert laid_out == {True}


def test_compiled_steps_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced for real, into one graph, of which no code is made: that would take a minute."""
    traced, compile_ = [], nn.Module.compile

    def trace(net: nn.Module) -> None:
        traced.append(net)
        compile_(net, backend="eager", fullgraph=True)

    monkeypatch.setattr(nn.Module, "compile", trace)
    plain = [p.loss for p in run()]
    assert not traced
    assert [p.loss for p in run(compiled=True)] == plain
    assert len(traced) == 1


def test_resuming_another_run_is_refused(tmp_path: Path) -> None:
    list(run(tmp_path, images=BATCH))
    with pytest.raises(CheckpointError) as caught:
        run(tmp_path, resume=True, lr=0.02, batch_size=2, model={"width": 16}, images=8)
    message = str(caught.value)
    assert str(tmp_path) in message
    for part in (
        "model.width was 8 and is 16",
        "train.lr was 0.001 and is 0.02",
        "train.batch_size was 4 and is 2",
    ):
        assert part in message
    assert "images" not in message  # a run may become longer
    assert [p.step for p in run(tmp_path, resume=True, images=2 * BATCH)] == [2]


def test_a_broken_state_is_refused(tmp_path: Path) -> None:
    list(run(tmp_path, images=BATCH))
    file = tmp_path / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=r"state\.safetensors is not a whole"):
        run(tmp_path, resume=True)
    save_tensors(file, {"x": torch.zeros(1)}, {"version": 1})
    with pytest.raises(CheckpointError, match=r"state\.safetensors is not the state of a run"):
        run(tmp_path, resume=True)


# What stops a run


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_nan_stops_with_the_last_good_checkpoint(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, calls = Trainer.losses, []

    def poisoned(self: Trainer, net: Any, *batch: Tensor) -> Tensor:
        each = right(self, net, *batch)
        if net is not self.ema:
            calls.append(1)
        if len(calls) < 4:
            return each
        zero = 0 * self.model.conv_out.bias.sum()
        return each * torch.nan if kind == "loss" else each + zero.sqrt()  # whose slope is infinite

    monkeypatch.setattr(Trainer, "losses", poisoned)
    seen = []
    with pytest.raises(DivergedError) as caught:
        seen.extend(run(tmp_path, warmup=0, decay=0))
    message = str(caught.value)
    assert "at step 4, learning rate 0.001." in message
    assert f"The last good checkpoint is in {tmp_path}." in message
    assert "nan" in message
    monkeypatch.undo()
    assert load_checkpoint(tmp_path).info["images"] == 2 * BATCH
    assert next(run(tmp_path, resume=True, warmup=0, decay=0)).step == 3


def test_nan_weights_stop_at_once(tiny: Callable[..., Checkpoint]) -> None:
    checkpoint = tiny()
    with torch.no_grad():
        checkpoint.model.conv_out.bias += torch.nan
    fresh = train(checkpoint, checkpoint.diffusion, settings(), pictures(), bf16=False)
    with pytest.raises(
        DivergedError, match=r"loss is nan .* at step 1, .* No checkpoint was saved"
    ):
        next(fresh)


def test_wrong_arguments_are_refused_by_the_call(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a number of images, epochs or minutes"):
        run(images=None)
    with pytest.raises(ValueError, match="Channels of the data must be 3, as"):
        run(model={"channels": 3})


# Fine-tuning


def test_fine_tuning_starts_from_the_weights_and_leaves_them(
    tiny: Callable[..., Checkpoint],
) -> None:
    checkpoint = tiny()
    before = {k: v.clone() for k, v in checkpoint.model.state_dict().items()}
    config = settings(warmup=10**6, images=BATCH)  # so slow that hardly anything moves
    frozen = checkpoint.model.requires_grad_(False)
    out: list[Checkpoint] = []
    right = Trainer.checkpoint
    with contextlib.ExitStack() as stack:
        patch = pytest.MonkeyPatch()
        stack.callback(patch.undo)
        patch.setattr(Trainer, "preview", lambda self: out.append(right(self)) or torch.zeros(1))
        list(train(checkpoint, checkpoint.diffusion, config, pictures(), bf16=False))
    tuned = out[0].model.state_dict()
    moved = max(float((tuned[k] - before[k]).abs().max()) for k in before)
    assert 0 < moved < 1e-6
    assert all(torch.equal(v, before[k]) for k, v in frozen.state_dict().items())


# Two processes


def shared(out: str) -> None:
    """What each of two processes runs: the second has a slower clock, and the only signal."""
    rank, calls = int(os.environ["RANK"]), []
    plain = {"dropout": 0, "attention": (), "mid_attention": False}
    list(run(Path(out), model=plain, images=3 * BATCH))

    def late() -> bool:
        time.sleep(0.01 * rank)
        return False

    timed = list(run(images=None, minutes=2e-3, decay=1, should_stop=late))

    def second_stops() -> bool:
        calls.append(1)
        return rank == 1 and len(calls) == 3

    stopped = list(run(should_stop=second_stops))
    same = [[p.step, p.loss, p.lr, p.seconds] for p in (timed[-1], stopped[-1])]
    print("SAW", same)
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="this torch has no gloo",
)
def test_two_processes_are_one_with_the_joint_batch(tmp_path: Path) -> None:
    """Weights and gradients (Adam's moments), and both end at the same step, by clock or signal.

    Without attention: its keys' bias has no gradient but rounding, which Adam makes a step of.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    if sys.platform == "linux":
        group["GLOO_SOCKET_IFNAME"] = "lo"
    folders = [tmp_path / "0", tmp_path / "1"]
    both = [python(f"shared({str(folders[rank])!r})", RANK=str(rank), **group) for rank in range(2)]
    try:
        said = [process.communicate(timeout=150) for process in both]
    finally:
        for process in both:
            process.kill()
            process.wait()
    for process, (_, errors) in zip(both, said, strict=True):
        assert process.returncode == 0, errors
    plain = {"dropout": 0, "attention": (), "mid_attention": False}
    list(run(tmp_path / "one", model=plain, images=3 * BATCH))
    assert differ(state(folders[0]), state(tmp_path / "one")) < 1e-6
    assert not list(folders[1].iterdir())  # one of them writes
    lines = [out.splitlines()[-1] for out, _ in said]
    assert lines[0].startswith("SAW [[")
    assert lines[0] == lines[1]
    assert "], [3, " in lines[0]


def test_a_batch_that_cannot_be_shared_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tr, "join", lambda model, _device: (0, 3, model))
    with pytest.raises(ValueError, match="batch_size must be a multiple of the 3 process"):
        trainer()


def test_shares_of_a_batch_are_disjoint_and_all_of_it() -> None:
    whole, parts = trainer(batch_size=6), []
    for rank in range(2):
        part = trainer(batch_size=6)
        part.rank, part.world = rank, 2
        parts.append(part.draw(4, 24))
    for one, *halves in zip(whole.draw(4, 24), *parts, strict=True):
        assert torch.equal(one[::2], halves[0])
        assert torch.equal(one[1::2], halves[1])


def test_configurations_that_must_stay_are_all_in_the_state() -> None:
    names = {f.name for f in dataclasses.fields(TrainConfig)}
    kept = set(trainer().configs()["train"])
    assert names - kept == {"images", "epochs", "minutes", "preview_every"}
