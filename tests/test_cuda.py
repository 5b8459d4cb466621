"""On a GPU, what a CPU says is right; where there is none, nothing of this runs."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from ddpm_demo.config import SAMPLERS, SampleConfig, TrainConfig
from ddpm_demo.data import Images
from ddpm_demo.diffusion import KINDS
from ddpm_demo.inference.batching import BatchedDenoiser, Batcher
from ddpm_demo.inference.generate import generate
from ddpm_demo.models.checkpoint import Checkpoint, save_checkpoint
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.training.train import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def both(tiny: Callable[..., Checkpoint], tmp_path: Path) -> tuple[Checkpoint, Checkpoint]:
    """The same model on the CPU and on the GPU."""
    here = tiny(num_classes=3, channels=3, norm="layer")
    save_checkpoint(tmp_path, here)
    return here, load_checkpoint(tmp_path, "cuda")


@pytest.fixture
def data() -> Images:
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (64, 3, 8, 8), generator=g, dtype=torch.uint8)
    return Images(pixels, torch.arange(64) % 3, ("kind 0", "kind 1", "kind 2"), flip=True)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_seed_is_the_same_picture(both: tuple[Checkpoint, Checkpoint], sampler: str) -> None:
    config = SampleConfig(sampler, steps=10, n=3, labels=(1,), guidance=2.0)
    *_, cpu = generate(both[0], config)
    *_, gpu = generate(both[1], config)
    assert gpu.x_t.is_cuda
    assert (cpu.x_t - gpu.x_t.cpu()).abs().max() < 0.02  # TF32 in the convolutions


def test_shared_batches(both: tuple[Checkpoint, Checkpoint]) -> None:
    config = SampleConfig(steps=5, n=3)
    *_, alone = generate(both[1], config)
    *_, shared = generate(both[1], config, denoiser=partial(BatchedDenoiser, Batcher()))
    assert (alone.x_t - shared.x_t).abs().max() < 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_drawn_where_its_generator_is(kind: str) -> None:
    drawn = KINDS[kind]((200, 1000), torch.Generator("cuda").manual_seed(0))
    assert drawn.is_cuda
    assert abs(float(drawn.mean())) < 0.01
    assert abs(float(drawn.std()) - 1) < 0.01


@pytest.mark.parametrize("compiled", [False, True])
def test_training(
    both: tuple[Checkpoint, Checkpoint], data: Images, tmp_path: Path, compiled: bool
) -> None:
    """It learns, and a run that was stopped goes on as if it had not been."""
    out, (here, _) = tmp_path / "run", both

    def run(images: int, out: Path | None, resume: bool = False) -> list[float]:
        config = TrainConfig(batch_size=16, images=images, decay=0, warmup=2, preview_every=32)
        steps = train(
            here, here.diffusion, config, data, out,
            held_out=data, resume=resume, device="cuda", compiled=compiled,
        )  # fmt: skip
        return [p.loss for p in steps]

    whole = run(160, None)
    assert whole[-1] < whole[0]
    first = run(80, out)
    again = run(160, out, resume=True)
    assert len(first) == len(again) == 5
    assert first + again == pytest.approx(whole, rel=1e-2)
    assert load_checkpoint(out).info["images"] == 160
