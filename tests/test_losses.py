"""Targets, distances and weights against their formulas, pixel by pixel in numpy."""

import numpy as np
import pytest
import torch

from ddpm_demo.config import LOSSES, PREDICTIONS, DiffusionConfig
from ddpm_demo.diffusion import Schedule, losses, split

SCHEDULE = Schedule.from_config(DiffusionConfig(1000, "cosine"))


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def distance(loss: str, d: float) -> float:
    d = abs(d)
    if loss == "mse":
        return d * d
    if loss == "l1":
        return d
    return d * d / 2 if d < 1 else d - 0.5  # smooth L1, which is Huber's at 1


@pytest.mark.parametrize("loss", LOSSES)
def test_per_picture(loss: str) -> None:
    a, b = normal(3, 1, 4, 4), normal(3, 1, 4, 4, seed=1, scale=2)
    assert (a - b).abs().max() > 1 > (a - b).abs().min()  # both branches of smooth L1
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 1e-6)):
        said = a.to(dtype)
        got = losses.per_picture(loss, said, b)
        diff = (said.double() - b.double()).flatten(1).tolist()
        wanted = [np.mean([distance(loss, d) for d in picture]) for picture in diff]
        assert (got.dtype, got.shape) == (torch.float32, (3,))
        assert np.abs(np.array(got.tolist()) - wanted).max() < tolerance


def test_huber_is_smooth_l1_by_another_name() -> None:
    a, b = normal(8, 3, 4, 4, scale=3), normal(8, 3, 4, 4, seed=1)
    each = [losses.per_picture(loss, a, b) for loss in ("smooth_l1", "huber")]
    assert torch.equal(*each)
    assert (each[0] - losses.per_picture("l1", a, b)).abs().min() > 0.1


@pytest.mark.parametrize("predict", PREDICTIONS)
def test_a_network_that_says_the_target_knows_x_0_and_eps(predict: str) -> None:
    x_0, eps = normal(4, 3, 4, 4), normal(4, 3, 4, 4, seed=1)
    t = torch.tensor([1, 300, 700, 990])
    x_t = SCHEDULE.q_sample(x_0, t, eps)
    alpha_bar = SCHEDULE.at(SCHEDULE.alpha_bar, t, x_0)
    wanted = losses.target(predict, x_0, eps, alpha_bar)
    seen = split(wanted, x_t, alpha_bar, predict)
    scale = (1 / alpha_bar.sqrt()).clamp(min=1 / (1 - alpha_bar).sqrt()).float()  # of rounding
    assert ((seen.x0 - x_0) / scale).abs().max() < 1e-5
    assert ((seen.eps - eps) / scale).abs().max() < 1e-5


def test_v_is_the_paper_s() -> None:
    """Salimans & Ho 2022: v = alpha eps - sigma x, the derivative of x_t by its angle."""
    x_0, eps, angle, h = 0.3, -1.2, 0.7, 1e-5

    def x(a: float) -> float:
        return np.cos(a) * x_0 + np.sin(a) * eps

    ab = torch.tensor(np.cos(angle) ** 2).reshape(1, 1, 1, 1)
    v = losses.target("v", *(torch.full((1, 1, 1, 1), k) for k in (x_0, eps)), ab)
    assert abs(float(v) - (x(angle + h) - x(angle - h)) / (2 * h)) < 1e-6


@pytest.mark.parametrize("predict", PREDICTIONS)
def test_min_snr(predict: str) -> None:
    t = torch.tensor([1, 2, 100, 400, 500, 999, 1000])
    snr = (SCHEDULE.alpha_bar / (1 - SCHEDULE.alpha_bar))[t].numpy()
    assert snr.max() > 5 > snr.min()
    wanted = {
        "x0": np.minimum(snr, 5),
        "eps": np.minimum(1, 5 / snr),
        "v": np.minimum(snr, 5) / (snr + 1),
    }[predict]
    got = losses.weights("min-snr", SCHEDULE, t, predict)
    assert got.dtype == torch.float32
    assert np.abs(got.numpy() / wanted - 1).max() < 1e-6


@pytest.mark.parametrize("predict", PREDICTIONS)
def test_no_weighting_is_one(predict: str) -> None:
    t = torch.tensor([1, 500, 1000])
    assert losses.weights("none", SCHEDULE, t, predict).tolist() == [1, 1, 1]


def test_min_snr_weighs_the_same_error_alike_whatever_is_predicted() -> None:
    """The same x0_hat costs the same in the x0 and the eps parametrisation (Hang et al. 3.4)."""
    x_0, eps, guess = (normal(4, 1, 4, 4, seed=s) for s in range(3))
    t = torch.tensor([5, 300, 500, 900])
    alpha_bar = SCHEDULE.at(SCHEDULE.alpha_bar, t, x_0)
    x_t = SCHEDULE.q_sample(x_0, t, eps)
    costs = []
    for predict in ("x0", "eps"):
        weight = losses.weights("min-snr", SCHEDULE, t, predict)
        said = guess if predict == "x0" else split(guess, x_t, alpha_bar, "x0").eps
        wanted = losses.target(predict, x_0, eps, alpha_bar)
        costs.append(weight * losses.per_picture("mse", said, wanted))
    assert (costs[0] / costs[1] - 1).abs().max() < 1e-3
