"""The program from Python: thin, lazy, and the same pictures as everywhere else."""

import doctest
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ddpm_demo as dd
from ddpm_demo.api import learning, pictures
from ddpm_demo.api import model as model_of_api
from ddpm_demo.config import DiffusionConfig, ModelConfig, SampleConfig
from ddpm_demo.data import Images
from ddpm_demo.diffusion import Noise
from ddpm_demo.evaluation import frechet
from ddpm_demo.evaluation import references as metrics_data
from ddpm_demo.evaluation.classifier import Classifier, ClassifierConfig
from ddpm_demo.evaluation.features import summarise
from ddpm_demo.inference.generate import generate
from ddpm_demo.inference.spec import RunSpec
from ddpm_demo.media.convert import to_uint8
from ddpm_demo.models.checkpoint import Checkpoint

ROOT = Path(__file__).parent.parent


def test_the_import_is_lazy() -> None:
    line = (
        "import sys, time; begin = time.perf_counter(); import ddpm_demo as dd; "
        "took = time.perf_counter() - begin; "
        "print('torch' in sys.modules, 'numpy' in sys.modules, took < 0.2, 'load' in dir(dd))"
    )
    said = subprocess.run([sys.executable, "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert said.stdout.split() == ["False", "False", "True", "True"], said.stderr


def test_every_name_is_there() -> None:
    for name in dd.__all__:
        assert callable(getattr(dd, name))
    with pytest.raises(AttributeError, match="no attribute 'smaple'"):
        dd.smaple  # noqa: B018


def test_the_examples_run() -> None:
    parts = (learning, model_of_api, pictures)
    ran = [doctest.testmod(part, extraglobs={"torch": torch}) for part in parts]
    assert sum(r.attempted for r in ran) == 9
    assert not any(r.failed for r in ran)


@pytest.fixture
def model(tiny: Callable[..., Checkpoint]) -> dd.Model:
    return dd.Model(tiny(num_classes=3))


def by_hand(model: dd.Model, **settings: object) -> np.ndarray:
    config = SampleConfig(**({"n": 5, "steps": 3} | settings))  # type: ignore[arg-type]
    *_, last = generate(model.checkpoint, config)
    return to_uint8(last.x_t)


def test_samples_are_those_of_a_run(model: dd.Model) -> None:
    got = model.sample(5, steps=3, seed=2)
    assert np.array_equal(got.pixels, by_hand(model, seed=2, labels=(0, 1, 2)))
    assert RunSpec.from_metadata(got.about, model.checkpoint.classes).sample == model.config(
        n=5, steps=3, seed=2
    )
    for labels, numbers in (("any", None), ("kind 2,kind 0", (2, 0)), ([1], (1,))):
        assert np.array_equal(
            model.sample(5, labels, steps=3).pixels, by_hand(model, labels=numbers)
        )


def test_samples_come_in_batches(model: dd.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_of_api, "BATCH", 2)
    many = model.sample(5, steps=3).pixels.astype(int)
    assert np.abs(many - by_hand(model, labels=(0, 1, 2))).max() <= 1


def test_a_run_is_watched_and_stopped(model: dd.Model) -> None:
    seen: list[dd.Step] = []
    whole = model.sample(5, steps=3, on_step=seen.append)
    assert [step.t for step in seen] == [20, 13, 7, 0]
    assert torch.equal(whole.x, seen[-1].x_t)
    stopped = model.sample(5, steps=3, on_step=lambda step: step.t == 13)
    assert torch.equal(stopped.x, seen[1].x_t)

    def fail(step: dd.Step) -> None:
        raise RuntimeError("of the caller's own")

    with pytest.raises(RuntimeError, match="own"):
        model.sample(5, steps=3, on_step=fail)


@pytest.mark.parametrize(
    ("labels", "settings", "says"),
    [
        ("frgo", {}, "Class must be .*, not 'frgo'"),
        ([3], {}, "Label must be .*, not 3"),
        (None, {"stpes": 3}, "Setting must be sampler, steps, .*, not 'stpes'"),
        (None, {"steps": 0}, "Steps must be .*, not 0"),
    ],
)
def test_bad_values(labels: object, settings: dict[str, int], says: str, model: dd.Model) -> None:
    with pytest.raises(ValueError, match=says):
        model.steps(2, labels, **settings)  # type: ignore[arg-type]


def test_noise_is_equation_4(tmp_path: Path) -> None:
    x_0 = torch.rand(2, 1, 8, 8) * 2 - 1
    eps = Noise("laplace", [4, 5]).draw(x_0.shape)
    ab = float(dd.Schedule.cosine(1000).alpha_bar[300])
    got = dd.noise(x_0, 300, "cosine", seed=4, kind="laplace").x
    assert torch.allclose(got, ab**0.5 * x_0 + (1 - ab) ** 0.5 * eps, atol=1e-6)
    Image.new("RGB", (30, 20), (255, 0, 0)).save(tmp_path / "red.png")
    clean = dd.noise(tmp_path / "red.png", 0, size=16).pixels
    assert clean.shape == (1, 16, 16, 3)
    assert (clean == (255, 0, 0)).all()


def test_files_and_notebooks(model: dd.Model, tmp_path: Path) -> None:
    pictures = model.sample(4, steps=2)
    pictures.save(tmp_path / "grid.png", scale=1)
    with Image.open(tmp_path / "grid.png") as saved:
        assert np.array_equal(np.array(saved), np.array(dd.grid(pictures, scale=1)))
        assert saved.text["seed"] == "0"  # type: ignore[attr-defined]
    with Image.open(io.BytesIO(pictures._repr_png_())) as shown:
        assert shown.size == (4 * 17, 4 * 17)
    film = dd.film(model.steps(4, steps=2), scale=1)
    film.save(tmp_path / "run.gif")
    with Image.open(tmp_path / "run.gif") as saved:
        assert (saved.size, saved.n_frames) == ((17, 17), 3)  # type: ignore[attr-defined]
    assert film._repr_html_().startswith('<img src="data:image/gif;base64,R0lGOD')


def test_training_and_fine_tuning(model: dd.Model, tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (12, 1, 8, 8), dtype=torch.uint8)
    data = Images(pixels, torch.arange(12) % 3, ("kind 0", "kind 1", "kind 2"))
    net = ModelConfig(size=8, channels=1, width=8, multipliers=(1,), attention=())
    options = {"batch_size": 4, "images": 8, "device": "cpu"}
    *_, last = dd.train(data, tmp_path, model=net, process=DiffusionConfig(20), **options)  # type: ignore[arg-type]
    assert (last.images, last.done) == (8, 1)
    assert dd.load(tmp_path).checkpoint.diffusion.T == 20
    before = {k: v.clone() for k, v in model.checkpoint.model.state_dict().items()}
    *_, last = dd.finetune(model, "kind 1", dataset=data, batch_size=4, images=4)
    assert last.images == 4
    assert all(torch.equal(v, before[k]) for k, v in model.checkpoint.model.state_dict().items())
    with pytest.raises(ValueError, match="Length of the run must be"):
        dd.train(data)


def test_evaluate_says_no_without_a_judge(model: dd.Model) -> None:
    with pytest.raises(ValueError, match=r"Data of the model must be .*, not 'none'"):
        dd.evaluate(model)


def test_evaluate_compares_the_model_s_samples_with_the_data(
    model: dd.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    shape = {"size": 8, "channels": 1, "widths": (8, 8, 8, 8), "dim": 5}
    judge = Classifier(ClassifierConfig(("a", "b", "c"), **shape)).eval()
    *_, data = summarise(judge, torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8))
    monkeypatch.setattr(model_of_api, "judge_of", lambda _model: judge)
    monkeypatch.setattr(metrics_data, "read", lambda _judge, _split: data)
    said = dd.evaluate(model, 20, steps=2, labels="kind 2")
    drawn = torch.from_numpy(by_hand(model, n=20, steps=2, labels=(2,))).permute(0, 3, 1, 2)
    *_, mine = summarise(judge, drawn)
    assert said["fd"] == pytest.approx(frechet.distance(mine, data), rel=1e-3)
    assert said["floor"] == pytest.approx(frechet.floor(data, 20))
    assert (said["n"], said["n_data"]) == (20, 40)
