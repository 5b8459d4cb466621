"""Measures the speed of a step beside diffusers, what bfloat16 changes, and the app's first frame.

    python -m benchmarks.speed

It needs requirements-dev.txt. Runs of the two sides take turns, and their medians are compared, so
a machine that slows down slows both. Nothing else should be running.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import httpx
import torch
from diffusers import UNet2DModel

from ddpm_demo.config import ModelConfig, SampleConfig
from ddpm_demo.evaluation.classifier import load_classifier
from ddpm_demo.inference.generate import generate
from ddpm_demo.machine.devices import bf16_pays, keep_memory
from ddpm_demo.media.convert import to_uint8
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.models.zoo import available
from ddpm_demo.nn.unet import UNet

PAPER = {  # Ho et al.'s CIFAR-10 network, as published in diffusers' layout
    "sample_size": 32,
    "block_out_channels": (128, 256, 256, 256),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "attention_head_dim": None,
    "norm_eps": 1e-6,
}


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def alternate(rounds: int, *calls: Callable[[], object]) -> list[float]:
    """Median seconds of each call. The calls take turns, and the first round doesn't count."""
    times = [[seconds(call) for call in calls] for _ in range(rounds + 1)][1:]
    return [statistics.median(column) for column in zip(*times, strict=True)]


@torch.no_grad()
def networks(rounds: int) -> None:
    theirs = UNet2DModel(**PAPER).eval()
    ours = UNet(ModelConfig.paper()).eval()
    ours.load_state_dict(theirs.state_dict())
    print(
        f"One forward pass of the paper's network, {torch.get_num_threads()} threads; peer in fp32"
    )
    print("| ours in | batch | ours ms | diffusers ms | ratio | max-abs error |")
    print("| :-- | --: | --: | --: | --: | --: |")
    for low in (False, True)[: 1 + bf16_pays("cpu")]:
        for batch in (1, 16):
            x, t = torch.randn(batch, 3, 32, 32), torch.full((batch,), 500)

            def mine(x: torch.Tensor = x, t: torch.Tensor = t, low: bool = low) -> torch.Tensor:
                with torch.autocast("cpu", torch.bfloat16, enabled=low):
                    return ours(x, t)

            def other(x: torch.Tensor = x, t: torch.Tensor = t) -> torch.Tensor:
                return theirs(x, t).sample

            error = (mine() - other()).abs().max().item()
            a, b = (1e3 * s for s in alternate(rounds, mine, other))
            name = "bf16" if low else "fp32"
            print(f"| {name} | {batch} | {a:.1f} | {b:.1f} | {b / a:.2f} | {error:.1e} |")


def precision(model: str, n: int, steps: int = 20) -> None:
    """Sample the same seeds in fp32 and in bf16, with the model's own settings.

    Print how much faster bf16 is, and how many pictures keep their class for a classifier.
    """
    checkpoint = load_checkpoint(model)
    best = checkpoint.best
    judge = load_classifier(checkpoint.info["dataset"])
    took, said = [0.0, 0.0], []
    for k in range(n // 50):
        config = replace(best, n=50, seed=50 * k, steps=steps)
        for low in (False, True):

            def run(config: SampleConfig = config, low: bool = low) -> None:
                *_, last = generate(checkpoint, config, bf16=low)
                pixels = torch.from_numpy(to_uint8(last.x_t)).permute(0, 3, 1, 2)
                said.append(judge.extract(pixels)[1].argmax(1))

            took[low] += seconds(run)
    same = torch.cat(said[::2]) == torch.cat(said[1::2])
    print(
        f"{model}, {n} pictures in {steps} steps of {best.sampler}, w = {best.guidance:g}, in "
        f"bf16: {took[0] / took[1]:.2f} times as fast as in fp32, and "
        f"{100 * same.float().mean():.1f} % keep their class"
    )


@contextmanager
def app(*options: str) -> Iterator[Callable[[str, SampleConfig], tuple[float, float]]]:
    """Run the app in a separate process, and give a function that presses Generate.

    The function returns the seconds until the first frame and until the end of the run.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "app.py", "--port", str(port), *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert server.stdout
    server.stdout.readline()  # once the app runs, it prints its address
    try:
        url = f"http://127.0.0.1:{port}"
        page = httpx.get(f"{url}/config").json()
        go = next(c["id"] for c in page["components"] if c["props"].get("elem_id") == "go")
        run = next(d["id"] for d in page["dependencies"] if [go, "click"] in d["targets"])

        def press(model: str, config: SampleConfig) -> tuple[float, float]:
            settings = [config.sampler, config.steps, config.n, config.seed]
            settings += ["trailing", "beta_tilde", 0.0, True, "any", 1.0, 1000]  # all have T = 1000
            call = {"data": [None, model, *settings], "fn_index": run, "session_hash": "benchmark"}
            start, first = time.perf_counter(), 0.0
            httpx.post(f"{url}/gradio_api/queue/join", json=call).raise_for_status()
            stream = f"{url}/gradio_api/queue/data?session_hash=benchmark"
            with httpx.stream("GET", stream, timeout=600) as answer:
                for line in answer.iter_lines():  # a browser would draw the frames here
                    if '"process_generating"' in line and not first:
                        first = time.perf_counter() - start
                    if '"process_completed"' in line:
                        assert '"success":true' in line.replace(" ", "")
                        break
            return first, time.perf_counter() - start

        yield press
    finally:
        server.terminate()
        server.wait()


def live(model: str, rounds: int) -> None:
    """Compare a run through the app with a bare loop over the sampler. Time the first frame."""
    checkpoint, config = load_checkpoint(model), SampleConfig(n=16, steps=100)

    def bare() -> None:
        for _ in generate(checkpoint, config):
            pass

    for low in (False, True)[: 1 + bf16_pays("cpu")]:
        with app(*["--bf16"] * low) as press:
            if not low:
                alone, streamed = alternate(rounds, bare, lambda: press(model, config))
                print(
                    f"\n{config.n} pictures of {model}, {config.steps} steps of DDIM, fp32: bare "
                    f"loop over the sampler {alone:.2f} s, streamed through the app "
                    f"{streamed:.2f} s: streaming costs {100 * (streamed / alone - 1):+.1f} %"
                )
            short = SampleConfig(n=16, steps=20)
            seen = [press("cifar10", short) for _ in range(rounds + 1)][1:]
            first, last = map(statistics.median, zip(*seen, strict=True))
            print(
                f"{short.n} pictures of cifar10, {short.steps} steps, {'bf16' if low else 'fp32'}, "
                f"through the app: first frame {first:.2f} s after the click, last {last:.2f} s"
            )


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--model", default="mnist", choices=available())
    o = p.parse_args()
    keep_memory()  # as the app does; it makes diffusers faster, too
    networks(o.rounds)
    if bf16_pays("cpu"):
        print()
        precision(o.model, 500)
    live(o.model, o.rounds)
