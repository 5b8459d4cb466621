"""Points and noises: exact scores, moments and distances that are known."""

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PIL

from ddpm_demo.data import Images
from ddpm_demo.diffusion import Prediction, Schedule, split
from ddpm_demo.experiments import EXPERIMENTS, between, noises, plane
from ddpm_demo.experiments.asked import OTHER_NOISES, SHAPES, Between, Noises, Plane
from ddpm_demo.experiments.noises import DRAW, kurtosis, noise_of_chain
from ddpm_demo.experiments.slide import as_gif
from ddpm_demo.experiments.tools import Sheet, Tools
from ddpm_demo.inference.generate import generate
from ddpm_demo.media import convert
from ddpm_demo.models.checkpoint import Checkpoint, save_checkpoint
from ddpm_demo.models.load import load_checkpoint


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("t", [1, 300, 1000])
def test_the_exact_score_is_the_gradient_of_the_log_density(name: str, t: int) -> None:
    schedule = Schedule.linear()
    exact = plane.ExactPoints(plane.shape(name), schedule)
    g = torch.Generator().manual_seed(t)
    x = torch.randn(20, 2, generator=g, dtype=torch.float64).requires_grad_()
    (score,) = torch.autograd.grad(exact.log_density(x, t).sum(), x)
    seen = exact(x.detach().view(-1, 2, 1, 1), torch.full((20,), t))
    known = -seen.eps.flatten(1) / math.sqrt(1 - float(schedule.alpha_bar[t]))
    assert torch.allclose(known, score, rtol=1e-6, atol=1e-8)


def test_samples_of_the_exact_denoiser_are_the_data() -> None:
    middles = plane.shape("eight gaussians")
    exact = plane.ExactPoints(middles, Schedule.linear())
    for sampler in ("ddim", "ddpm"):
        end = plane.ways(exact, sampler, 0, 200)[-1]
        near = torch.cdist(end, middles[:8])
        assert float(near.min(1).values.quantile(0.95)) < 0.2
        assert len(near.argmin(1).unique()) == 8


def test_the_energy_distance_of_gaussians_is_the_known_one() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(3000, 1, generator=g), torch.randn(3000, 1, generator=g) + 2
    # E|X - Y| of N(m, 2) is 2 / sqrt(pi) exp(-m^2 / 4) + m erf(m / 2)
    known = 2 * (2 / math.sqrt(math.pi) * math.exp(-1) + 2 * math.erf(1)) - 4 / math.sqrt(math.pi)
    assert plane.energy(a, b) == pytest.approx(known, abs=0.1)
    assert plane.energy(a, torch.randn(3000, 1, generator=g)) == pytest.approx(0, abs=0.01)


def test_the_small_network_learns_the_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plane, "TRAIN", 300)
    monkeypatch.setattr(plane, "STEPS", 10)
    monkeypatch.setattr(plane, "SEEN", 120)
    *_, report = EXPERIMENTS["plane"](Plane("moons"), Tools())
    distance = {name: float(words.split()[0]) for name, words in report.numbers["distance"]}
    assert distance["DDIM, exact"] < 0.1
    assert distance["DDIM, network"] < 0.3
    noise = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    assert distance["DDIM, network"] < plane.energy(noise, plane.shape("moons"))


def test_a_visitors_own_points_are_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TRAIN", 50), ("STEPS", 10), ("SEEN", 60), ("PATHS", 60)):
        monkeypatch.setattr(plane, name, value)
    plots = []
    monkeypatch.setattr(plane, "plane_plot", lambda *a, **_: plots.append(a) or "")
    list(EXPERIMENTS["plane"](Plane(points="-2,0; 2,1.5;0,-2"), Tools()))
    middles = torch.tensor([[-2, 0], [2, 1.5], [0, -2]])
    for kind in ({"data": None}, {"samples": None}):  # the data, and where DDIM's samples end
        points = next(torch.tensor(p[0][k]) for p in plots for k in kind if k in p[0])
        near = torch.cdist(points, middles).min(1)
        assert float(near.values.quantile(0.95)) < 0.3
        assert set(near.indices.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    "points", ["1,2", "1,2;3,x;0,0", "0,0;1,1;9,0", "0,0,0;1,1;1,2", "nan,0;1,1;0,1"]
)
def test_what_is_no_list_of_points_is_refused(points: str) -> None:
    with pytest.raises(ValueError, match=r"must be 3 to 200 points"):
        Plane(points=points)


@pytest.mark.parametrize("kind", OTHER_NOISES)
def test_noises_have_unit_variance_and_their_chain_the_known_kurtosis(kind: str) -> None:
    g = torch.Generator().manual_seed(0)
    values = DRAW[kind]((200_000,), g)
    assert float(values.mean()) == pytest.approx(0, abs=0.01)
    assert float(values.var()) == pytest.approx(1, abs=0.02)
    own = {"gaussian": 0, "laplace": 3, "uniform": -1.2, "coin": -2}[kind]
    schedule, t = Schedule.linear(), 3
    parts = schedule.beta[1 : t + 1] * schedule.alpha_bar[t] / schedule.alpha_bar[1 : t + 1]
    parts = parts / parts.sum()  # shares of the variance; kurtosis goes by their squares
    found, _ = kurtosis(noise_of_chain(kind, schedule, t, 0))
    assert found == pytest.approx(own * float((parts**2).sum()), abs=0.15)


def test_a_model_is_sampled_with_each_noise(tiny: Callable[..., Checkpoint]) -> None:
    model = tiny()
    *_, report = EXPERIMENTS["noises"](Noises("coin", model="tiny"), Tools(load=lambda _: model))
    sheet = next(panel for panel in report.panels if isinstance(panel, Sheet))
    assert sheet.rows == OTHER_NOISES
    pictures = [cell for (cell,) in sheet.cells if cell is not None]
    assert len({p.tobytes() for p in pictures}) == 4


def test_a_model_of_another_noise_stands_beside(
    zoo: Path, tiny: Callable[..., Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noises, "VALUES", 100)
    for name in ("tiny-laplace", "tiny-laplace-tuned"):
        model = tiny(noise="laplace", seed=2)
        model.info |= {"dataset": load_checkpoint("tiny").info.get("dataset")}
        model.info |= {"base": "tiny-laplace"} if name.endswith("tuned") else {}
        save_checkpoint(zoo / name, model)
    assert "tiny-laplace" in noises.siblings("tiny")
    assert "tiny-laplace-tuned" not in noises.siblings("tiny")
    assert noises.siblings("tiny-laplace")[-1] == "tiny"
    assert noises.siblings("of-nobody") == []
    *_, report = EXPERIMENTS["noises"](Noises("coin", model="tiny"), Tools())
    sheet = next(panel for panel in report.panels if isinstance(panel, Sheet))
    assert sheet.columns == ("tiny, trained with gaussian", "tiny-laplace, trained with laplace")
    pictures = [cell.tobytes() for row in sheet.cells for cell in row]
    assert len(set(pictures)) == 2 * len(OTHER_NOISES)


def test_there_and_back_with_an_analytic_denoiser() -> None:
    """For N(0, 1) data x0_hat = sqrt(ab) x_t, and many small steps lose nothing."""
    schedule = Schedule.linear()

    class Unit:
        def __call__(self, x: torch.Tensor, t: torch.Tensor) -> Prediction:
            ab = schedule.at(schedule.alpha_bar, t, x)
            return split(ab.sqrt() * x, x, ab, "x0")

    denoise = Unit()
    denoise.schedule = schedule  # type: ignore[attr-defined]
    x_0 = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    errors = []
    for steps in (10, 100, 1000):
        way = schedule.timesteps(steps, "trailing")
        *_, back = between.there_and_back(denoise, x_0, way)  # type: ignore[arg-type]
        errors.append(float((back - x_0).abs().max()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.01
    way = schedule.timesteps(20, "trailing")
    *_, back = between.there_and_back(denoise, x_0, way, rounds=60)  # type: ignore[arg-type]
    assert float((back - x_0).abs().max()) < 1e-4


def test_a_great_circle_keeps_the_length() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(784, generator=g), torch.randn(784, generator=g)
    b *= a.norm() / b.norm()
    middle = between.slerp(a, b, 0.5)
    assert float(middle.norm()) == pytest.approx(float(a.norm()), rel=1e-5)
    assert float(middle @ a) == pytest.approx(float(middle @ b), rel=1e-5)
    assert torch.allclose(between.slerp(a, a, 0.3), a, atol=1e-5)


def test_the_card_between_noises_begins_and_ends_with_generate_s(
    tiny: Callable[..., Checkpoint],
) -> None:
    model = tiny(num_classes=3)
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (6, 1, 8, 8), generator=g).byte()
    data = Images(pixels, torch.arange(6) % 3)
    tools = Tools(load=lambda _: model, data=lambda *_, **__: data)  # type: ignore[arg-type]
    *_, report = EXPERIMENTS["between"](Between("tiny", label=1, seed=5), tools)
    film, row, grid, classes = report.panels[:4]
    run = model.best.but(sampler="ddim", steps=10, n=1, labels=(1,), guidance=1.0)
    for k, seed in ((0, 5), (-1, 6)):
        *_, end = generate(model, run.but(seed=seed))
        assert np.abs(row.cells[0][0][k] - convert.to_uint8(end.x_t)[0].astype(int)).max() <= 1
    for k, seed in ((0, 5), (4, 6), (20, 7), (24, 8)):  # the corners
        *_, end = generate(model, run.but(seed=seed))
        assert np.abs(grid.cells[0][0][k] - convert.to_uint8(end.x_t)[0].astype(int)).max() <= 1
    there, back = film.frames[: between.WAY], film.frames[between.WAY - 1 :]
    assert np.array_equal(there[:: between.EACH], row.cells[0][0])
    assert np.array_equal(there[1:], back[::-1])  # the film begins again with its first frame
    with PIL.open(io.BytesIO(as_gif(film))) as gif:
        assert gif.size == (224, 224)
        assert gif.info["loop"] == 0
        seen = np.asarray(gif.convert("L"))[::28, ::28]
        assert np.abs(seen - there[0, :, :, 0].astype(int)).max() <= 1
    assert len(classes.cells[0][0]) == 3
    assert len(report.numbers["error"]) == 3


def test_a_picture_of_one_s_own_is_inverted_and_mixed(
    tiny: Callable[..., Checkpoint], tmp_path: Path
) -> None:
    model = tiny()
    pixels = torch.zeros(6, 1, 8, 8, dtype=torch.uint8)
    data = Images(pixels, torch.zeros(6).long())
    tools = Tools(load=lambda _: model, data=lambda *_, **__: data)  # type: ignore[arg-type]
    own = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    PIL.fromarray(own).save(tmp_path / "own.png")
    asked = Between("tiny", own=str(tmp_path / "own.png"), level=0.05, weight=0.0)
    *_, report = EXPERIMENTS["between"](asked, tools)
    mixed = next(p for p in report.panels if isinstance(p, Sheet) and "mixed at" in p.title)
    inverted = next(p for p in report.panels if isinstance(p, Sheet) and "back" in p.title)
    assert np.array_equal(mixed.cells[0][0][0, :, :, 0], own)
    assert np.array_equal(inverted.cells[0][0][0, :, :, 0], own)
    assert not inverted.cells[0][0][1].any()
    with pytest.raises(ValueError, match=r"none.png. cannot be read"):
        list(EXPERIMENTS["between"](Between("tiny", own=str(tmp_path / "none.png")), tools))


def test_the_same_noise_goes_through_a_model_and_its_fine_tunes(
    zoo: Path, tiny: Callable[..., Checkpoint]
) -> None:
    tuned = tiny(seed=1)
    tuned.info["base"] = "tiny"
    save_checkpoint(zoo / "tiny-tuned", tuned)
    models = {name: load_checkpoint(name) for name in ("tiny", "tiny-tuned")}
    data = Images(torch.zeros(6, 1, 8, 8, dtype=torch.uint8), torch.zeros(6).long())
    tools = Tools(load=models.__getitem__, data=lambda *_, **__: data)  # type: ignore[arg-type]
    assert between.relatives("tiny-tuned") == between.relatives("tiny") == ["tiny", "tiny-tuned"]
    assert between.relatives("classy") == []
    *_, report = EXPERIMENTS["between"](Between("tiny-tuned", seed=2), tools)
    sheet = next(p for p in report.panels if isinstance(p, Sheet) and "other models" in p.title)
    assert sheet.rows == ("tiny", "tiny-tuned")
    for (cell,), model in zip(sheet.cells, models.values(), strict=True):
        run = model.best.but(sampler="ddim", steps=10, n=4, seed=2)
        *_, end = generate(model, run)
        assert np.abs(cell.astype(int) - convert.to_uint8(end.x_t)).max() <= 1
