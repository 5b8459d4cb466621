"""Hashes the program's results, to show that a change leaves all others bit-identical.

    python -m benchmarks.bits write before.json     # with the old code
    python -m benchmarks.bits compare before.json   # with the new code, on the same machine

It uses only the command line, so the code behind it may move. Each sampler draws pictures with each
shipped model (three seeds, float32), a small network trains for 20 steps, a model is exported for
diffusers, and a film's frames are decoded. Compare only results of the same machine and version of
torch: on another CPU, kernels may add numbers in another order.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from safetensors.numpy import load_file

MODELS = ("mnist", "mnist-laplace", "fashion-mnist", "cifar10", "cifar10-ship", "cifar10-horse")
SAMPLERS = ("ddpm", "ddim", "dpmpp_2m", "dpmpp_2m_sde", "heun", "unipc")
STEPS = 4
TRAIN = (
    "train --dataset folder:{pictures} --size 16 --width 16 --multipliers 1,2 --batch-size 4 "
    "--images 80 --preview-every 40 --warmup 5 --no-bf16 --device cpu --out {out}"
)


def command(*words: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-m", "ddpm_demo", *words], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr}")


def digest(*arrays: np.ndarray) -> str:
    h = hashlib.sha256()
    for array in arrays:
        h.update(str((array.shape, array.dtype)).encode() + np.ascontiguousarray(array).tobytes())
    return h.hexdigest()[:16]


def of_weights(path: Path) -> str:
    tensors = load_file(path)
    return digest(*(tensors[k] for k in sorted(tensors)))


def pictures(folder: Path) -> None:
    """Write 24 pictures of noise that are the same on every machine."""
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), np.uint8)
    for k, picture in enumerate(noise):
        iio.imwrite(folder / f"{k}.png", picture)


def samples(folder: Path) -> dict[str, str]:
    found = {}
    for model in MODELS:
        for sampler in SAMPLERS:
            out = folder / "run.npz"
            guided = ["--class", "any"] if model.startswith("cifar10") else []
            if model == "cifar10-ship":
                guided = ["--guidance", "2", "--class", "ship"]
            command(
                *("sample", "--model", model, "--sampler", sampler, "--steps", str(STEPS)),
                *("-n", "3", "--seed", "0", "--device", "cpu", "--out", str(out), *guided),
            )
            with np.load(out) as file:
                found[f"sample {model} {sampler}"] = digest(*(file[k] for k in sorted(file)))
            print(f"sample {model} {sampler}", flush=True)
    return found


def films(folder: Path) -> dict[str, str]:
    found = {}
    for suffix in ("gif", "mp4"):
        film = folder / f"film.{suffix}"
        options = ["--steps", "6", "-n", "4", "--device", "cpu", "--out", str(film)]
        command("sample", "--model", "mnist", "--sampler", "ddim", *options)
        found[f"film {suffix}"] = digest(np.stack(list(iio.imiter(film))))
    return found


def trained(folder: Path) -> dict[str, str]:
    run = folder / "run"
    pictures(folder / "pictures")
    command(*TRAIN.format(pictures=folder / "pictures", out=run).split())
    return {"train 20 steps": of_weights(run / "model.safetensors")}


def exported(folder: Path) -> dict[str, str]:
    run, out = folder / "group", folder / "exported"
    words = TRAIN.format(pictures=folder / "pictures", out=run).split()
    command(*words, "--norm", "group", "--width", "32")
    command("export", str(run), str(out))
    unet = out / "unet"
    configs = [json.loads((out / name).read_text()) for name in ("model_index.json",)]
    configs += [json.loads((unet / "config.json").read_text())]
    text = json.dumps(configs, sort_keys=True).encode()
    weights = of_weights(next(unet.glob("*.safetensors")))
    return {"export": weights + digest(np.frombuffer(text, np.uint8))}


def main() -> int:
    if len(sys.argv) != 3 or sys.argv[1] not in ("write", "compare"):
        raise SystemExit(__doc__)
    path = Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as name:
        found: dict[str, str] = {}
        for part in (trained, exported, films, samples):
            found |= part(Path(name))
    if sys.argv[1] == "write":
        path.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        return 0
    before = json.loads(path.read_text("utf-8"))
    changed = [k for k in before if found.get(k) != before[k]]
    print("\n".join(f"changed: {k}" for k in changed) or f"All {len(before)} are the same.")
    return bool(changed)


if __name__ == "__main__":
    sys.exit(main())
