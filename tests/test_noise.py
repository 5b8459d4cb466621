"""Noise of unit variance, one stream a picture, that leaves the global generator alone."""

import pytest
import torch

from ddpm_demo.diffusion import KINDS, Noise

# Moments of Laplace noise with unit variance: E|x| = 1/sqrt(2), kurtosis 6.
MOMENTS = {"gaussian": (0.79788, 3.0), "laplace": (0.70711, 6.0)}


@pytest.mark.parametrize("kind", KINDS)
def test_moments(kind: str) -> None:
    x = Noise(kind, range(100)).draw((100, 1, 100, 100)).double()
    length, kurtosis = MOMENTS[kind]
    for value, wanted, tolerance in (
        (x.mean(), 0, 5e-3),  # five standard errors of a million draws, or more
        (x.var(), 1, 1.2e-2),
        (x.abs().mean(), length, 4e-3),
        ((x**3).mean(), 0, 0.06),
        ((x**4).mean(), kurtosis, 0.25),
    ):
        assert abs(float(value) - wanted) < tolerance
    assert x.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_has_its_seed_s_noise_in_any_batch(kind: str) -> None:
    batch, alone = Noise(kind, [3, 4, 5]), Noise(kind, [4])
    for shape in ((3, 5, 5), (1, 3, 2)):  # of odd size: torch fills those in another way
        drawn = batch.draw((3, *shape))
        assert torch.equal(drawn[1:2], alone.draw((1, *shape)))
        assert not torch.equal(drawn[0], drawn[1])
    again = Noise(kind, [4])
    first = again.draw((1, 3, 5, 5))
    assert not torch.equal(first, again.draw((1, 3, 5, 5)))  # a stream, not one picture of noise


@pytest.mark.parametrize("kind", KINDS)
def test_the_global_generator_is_left_alone(kind: str) -> None:
    before = torch.get_rng_state()
    first = Noise(kind, [0]).draw((1, 3, 8, 8))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(Noise(kind, [0]).draw((1, 3, 8, 8)), first)


def test_like_takes_shape_and_dtype() -> None:
    x = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    drawn = Noise("gaussian", [0, 1]).like(x)
    assert drawn.dtype == x.dtype
    assert torch.equal(drawn.float(), Noise("gaussian", [0, 1]).draw((2, 1, 4, 4)))


def test_refused() -> None:
    with pytest.raises(ValueError, match="2 seeds, but the batch has 3 pictures"):
        Noise("gaussian", [0, 1]).draw((3, 1, 4, 4))
    with pytest.raises(ValueError, match="Noise must be gaussian or laplace, not 'cauchy'"):
        Noise("cauchy", [0])
