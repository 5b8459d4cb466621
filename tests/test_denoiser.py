"""One answer from eps, x0 and v; clipping; guidance; and what must not leak."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm_demo.config import PREDICTIONS, DiffusionConfig
from ddpm_demo.diffusion import Denoiser
from ddpm_demo.models.checkpoint import Checkpoint


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def ask(
    predict: str, network: Callable[..., Tensor], x_t: Tensor, t: Tensor, **options: Any
) -> Any:
    return Denoiser(network, DiffusionConfig(predict=predict), **options)(x_t, t)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("predict", PREDICTIONS)
def test_the_same_answer_whatever_the_network_predicts(predict: str, clip: bool) -> None:
    """alpha_bar is computed here anew, in double precision, for a t of each picture's own."""
    x_0, eps, t = (
        1.5 * normal(4, 3, 4, 4),
        normal(4, 3, 4, 4, seed=1),
        torch.tensor([1, 9, 250, 600]),
    )
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    ab = torch.stack([(1 - beta[:k]).prod() for k in t.tolist()]).reshape(4, 1, 1, 1)
    a, s = ab.sqrt(), (1 - ab).sqrt()
    x_t = a * x_0 + s * eps
    raw = {"eps": eps.double(), "x0": x_0.double(), "v": a * eps - s * x_0}[predict]
    seen_t = []

    def network(_x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        assert y is None
        seen_t.append(t.tolist())
        return raw.float()

    got = ask(predict, network, x_t.float(), t, clip=clip)
    assert seen_t == [[0, 8, 249, 599]]  # networks count from 0
    if clip:
        assert x_0.abs().max() > 1
        x0_hat = x_0.double().clamp(-1, 1)
        eps_hat = (x_t - a * x0_hat) / s  # not the network's eps: x_t has to stay what it is
        assert torch.equal(got.x0.clamp(-1, 1), got.x0)
    else:
        x0_hat, eps_hat = x_0.double(), eps.double()
    assert (got.x0 - x0_hat).abs().max() < 2e-5
    # float32 has lost some of eps where there is hardly any: s = 0.01 at t = 1
    assert ((got.eps - eps_hat) * s).abs().max() < 2e-6
    assert (a * got.x0 + s * got.eps - x_t).abs().max() < 2e-6


def test_clipping_is_on_by_default_and_tames_the_first_cosine_step() -> None:
    x_t, t = normal(1, 1, 4, 4), torch.tensor([1000])
    for clip, low, high in ((False, 30, math.inf), (True, 0.5, 1)):
        denoiser = Denoiser(
            lambda x, _t, _y: 0.99 * x, DiffusionConfig(schedule="cosine"), clip=clip
        )
        assert low < denoiser(x_t, t).x0.abs().max() <= high
    assert Denoiser(lambda x, _t, _y: x, DiffusionConfig()).clip


@pytest.mark.parametrize("w", [0.0, 1.0, 3.5])
def test_guidance(tiny: Callable[..., Checkpoint], w: float) -> None:
    checkpoint = tiny(num_classes=3)
    x_t, t, y = normal(4, 1, 8, 8), torch.tensor([1, 5, 12, 20]), torch.tensor([0, 1, 2, 1])

    def eps(y: Tensor | None, w: float) -> Tensor:
        return Denoiser(checkpoint.model, checkpoint.diffusion, clip=False, y=y, guidance=w)(
            x_t, t
        ).eps

    null, led = eps(None, 1), eps(y, 1)
    assert (null - led).abs().max() > 0.05
    assert torch.equal(null, eps(torch.full_like(y, 3), 1))
    assert (eps(y, w) - (null + w * (led - null))).abs().max() < 1e-5


@pytest.mark.parametrize("w", [1.0, 3.5])
def test_pictures_that_are_all_the_same_are_asked_for_once(
    tiny: Callable[..., Checkpoint], w: float
) -> None:
    """As at a fork. Where pictures, t or classes differ, each is asked for."""
    checkpoint, rows = tiny(num_classes=3), 2 if w != 1 else 1
    calls: list[int] = []

    def counted(x: Tensor, *rest: Any) -> Tensor:
        calls.append(len(x))
        return checkpoint.model(x, *rest)

    counted.config = checkpoint.model.config  # type: ignore[attr-defined]
    one, other = normal(1, 1, 8, 8), normal(1, 1, 8, 8, seed=1)

    def ask_for(x: Tensor, t: list[int], y: list[int]) -> Tensor:
        options: dict[str, Any] = {"y": torch.tensor(y), "guidance": w, "clip": False}
        return ask("v", counted, x, torch.tensor(t), **options).x0

    alone = ask_for(one, [7], [1])
    same = ask_for(one.repeat(4, 1, 1, 1), [7] * 4, [1] * 4)
    assert calls == [rows, rows]
    assert torch.equal(same, alone.repeat(4, 1, 1, 1))
    ask_for(torch.cat([one, other]), [7, 7], [1, 1])
    ask_for(one.repeat(2, 1, 1, 1), [7, 8], [1, 1])
    ask_for(one.repeat(2, 1, 1, 1), [7, 7], [1, 2])
    assert calls[2:] == [2 * rows] * 3


def test_a_step_for_each_picture(tiny: Callable[..., Checkpoint]) -> None:
    checkpoint = tiny()
    denoiser = Denoiser(checkpoint.model, checkpoint.diffusion, clip=False)
    x_t, t = normal(5, 1, 8, 8), torch.tensor([1, 20, 7, 3, 20])
    together = denoiser(x_t, t)
    for k in range(5):
        alone = denoiser(x_t[k : k + 1], t[k : k + 1])
        for a, b in zip(alone, together, strict=True):
            scale = max(1, float(a.abs().max()))
            assert (a - b[k : k + 1]).abs().max() < 1e-5 * scale


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_broken_network_is_an_error(tiny: Callable[..., Checkpoint], poison: float) -> None:
    checkpoint = tiny()
    denoiser = Denoiser(checkpoint.model, checkpoint.diffusion)
    x_t, t = normal(2, 1, 8, 8), torch.tensor([3, 4])
    denoiser(x_t, t)
    with torch.no_grad():
        checkpoint.model.conv_out.weight[0, 0, 0, 0] = poison
    with pytest.raises(FloatingPointError, match=r"^The network predicted NaN or infinity: .*\.$"):
        denoiser(x_t, t)


def test_no_graph_is_left_and_grad_mode_stays(tiny: Callable[..., Checkpoint]) -> None:
    checkpoint = tiny()
    x_t = normal(2, 1, 8, 8).requires_grad_()
    assert torch.is_grad_enabled()
    seen = Denoiser(checkpoint.model, checkpoint.diffusion)(x_t, torch.tensor([3, 4]))
    assert torch.is_grad_enabled()
    assert not seen.x0.requires_grad
    assert not seen.eps.requires_grad


def test_bf16_runs_the_network_only(tiny: Callable[..., Checkpoint]) -> None:
    checkpoint = tiny()
    x_t, t = normal(2, 1, 8, 8), torch.tensor([5, 15])
    full, half = (
        Denoiser(checkpoint.model, checkpoint.diffusion, clip=False, bf16=b)(x_t, t)
        for b in (False, True)
    )
    assert half.eps.dtype == half.x0.dtype == torch.float32
    assert 0 < (full.eps - half.eps).abs().max() < 0.05 * full.eps.abs().max()
