"""The time to go of a fine-tuning, by a clock of the test's own."""

import random

import pytest

from ddpm_demo.config import TrainConfig
from ddpm_demo.training.preview import STEPS, N
from ddpm_demo.ui.finetune.eta import GRID_PICTURES, GRID_STEPS, Eta, grids_left


@pytest.mark.parametrize(
    ("steps", "every", "step", "grid"),
    [
        (20, 3, 0.4, 4.0),  # a run as it was seen: most of its time goes to the grids
        (40, 5, 0.5, 3.0),
        (400, 50, 0.02, 2.5),
        (100, 100, 1.0, 0.1),
    ],
)
def test_it_is_right_within_a_quarter_from_a_tenth_on(
    steps: int, every: int, step: float, grid: float
) -> None:
    """Steps vary by a third, the first takes three times as long, and the grid before the run took
    a fifth longer than those on the way."""
    rng, now = random.Random(0), 0.0
    batch = 16
    config = TrainConfig(batch_size=batch, images=steps * batch, preview_every=every * batch)
    eta, said = Eta(1.2 * grid, clock=lambda: now), []
    for k in range(1, steps + 1):
        now += step * rng.uniform(2 / 3, 4 / 3) * (3 if k == 1 else 1)
        shown = k % every == 0 or k == steps
        now += grid * rng.uniform(0.9, 1.1) * shown
        eta.saw(shown)
        left = grids_left(config, k * batch, steps * batch)
        said.append((k, now, eta.to_go(steps - k, left)))
    for k, at, to_go in said:
        if steps / 10 <= k < steps:
            assert at + to_go == pytest.approx(now, rel=0.25), k  # when it ends
            assert to_go == pytest.approx(now - at, rel=0.25, abs=1.5 * step), k


@pytest.mark.parametrize("every", [1, 3, 7, 20, 100])
def test_grids_are_counted_as_the_trainer_draws_them(every: int) -> None:
    steps, batch = 20, 4
    config = TrainConfig(batch_size=batch, images=steps * batch, preview_every=every * batch)
    drawn = [k for k in range(1, steps + 1) if k % every == 0 or k == steps]
    for k in range(steps):
        assert grids_left(config, k * batch, steps * batch) == sum(at > k for at in drawn)
    assert grids_left(config, steps * batch, steps * batch) == 0


def test_a_grid_is_what_the_trainer_draws() -> None:
    assert (GRID_PICTURES, GRID_STEPS) == (N, STEPS)
