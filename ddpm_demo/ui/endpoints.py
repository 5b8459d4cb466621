"""The program's API: named endpoints with types, for gradio_client, plain HTTP and MCP.

They have the same guard, queue and limits as the page. Pictures come and go as data URIs.
"""

# No `from __future__ import annotations`: Gradio reads the types.

import base64
import binascii
import functools
import inspect
import time
from collections.abc import Iterator
from typing import Any

from gradio.events import api

from ddpm_demo.config import SampleConfig, number, one_of, require
from ddpm_demo.models.zoo import available, facts
from ddpm_demo.ui.components.controls import first_model
from ddpm_demo.ui.server import runtime, settings
from ddpm_demo.ui.server.errors import friendly
from ddpm_demo.ui.server.settings import GPU
from ddpm_demo.ui.server.work import EVERY, LANE, give_way

PICTURE_CHARS = 7_000_000  # of base64: 5 MB
SIZE_MOST = 512  # pixels a side of what `noise` returns
SCALE = 4  # pixels of a returned PNG for each pixel of a model


def models() -> list[dict[str, Any]]:
    """List the shipped models.

    Returns:
        For each: name, size, channels, T, classes, and how it is sampled by default.
    """
    rows = []
    for name in available():
        model = facts(name)
        best = model.best
        rows.append(
            {
                "name": name,
                "size": model.config.size,
                "channels": model.config.channels,
                "T": model.diffusion.T,
                "classes": model.classes,
                "sampler": best.sampler,
                "steps": best.steps,
                "guidance": best.guidance,
                "labels": model.class_words(best.labels),
            }
        )
    return rows


@GPU
@friendly
def generate(
    model: str = "",
    labels: str = "",
    n: int = 4,
    seed: int = 0,
    sampler: str = "",
    steps: int = 0,
    guidance: float = -1.0,
) -> Iterator[dict[str, Any]]:
    """Turn noise into pictures, and stream the way.

    Args:
        model: the name of a shipped model; nothing: the one that the app starts with.
        labels: names of classes with commas between, "each" or "any"; nothing: as the model says.
        n: number of pictures.
        seed: picture k uses seed + k.
        sampler: ddpm, ddim, dpmpp_2m, dpmpp_sde, heun or unipc; nothing: the model's own.
        steps: how many of the T steps to take; 0: as many as the model takes by itself.
        guidance: how strictly the class is followed; below 0: as the model says.

    Returns:
        For each step: step, total and t; a few times a second, and at the end, two PNGs as data
        URIs besides: picture (x_t) and guess (x0_hat).
    """
    selected, config = _asked(model, labels, n, seed, (sampler, steps, guidance))
    from ddpm_demo.inference.generate import generate as begin

    options: dict[str, Any] = {"bf16": runtime.bf16(), "denoiser": runtime.denoiser}
    yield from _streamed(begin(selected.checkpoint, config, **options))


@friendly
def noise(
    picture: str,
    t: int,
    schedule: str = "linear",
    kind: str = "gaussian",
    seed: int = 0,
    size: int = 128,
) -> Iterator[dict[str, Any]]:
    """Noise a picture: x_t of the forward process.

    Args:
        picture: a data URI, or base64, of a PNG, JPEG or other picture of at most 5 MB.
        t: 0 (the picture) to 1000 (noise).
        schedule: linear or cosine.
        kind: of noise: gaussian or laplace.
        seed: of the noise.
        size: pixels a side of the square that is cut out.

    Returns:
        t, alpha_bar, and picture: a PNG as a data URI.
    """
    from ddpm_demo import api
    from ddpm_demo.config import DiffusionConfig
    from ddpm_demo.diffusion import Schedule

    one_of("schedule", schedule, ("linear", "cosine"))
    one_of("kind", kind, ("gaussian", "laplace"))
    number("size", size, 8, SIZE_MOST, whole=True)
    number("t", t, 0, 1000, whole=True)
    number("seed", seed, 0, 2**32 - 1, whole=True)
    tables = Schedule.from_config(DiffusionConfig(schedule=schedule))
    made = api.noise(_opened(picture), t, tables, size=size, seed=seed, kind=kind)
    yield {"t": t, "alpha_bar": float(tables.alpha_bar[t]), "picture": _uri(made.x, 1)}


@GPU
@friendly
def denoise(
    picture: str,
    t: int,
    model: str = "",
    labels: str = "",
    seed: int = 0,
    sampler: str = "",
    steps: int = 0,
) -> Iterator[dict[str, Any]]:
    """Noise a picture up to t, and let a model take the noise away (SDEdit, Meng et al. 2022).

    Args:
        picture: as for /noise; it is resized to the model, and made grey where the model is.
        t: 1 to T: the larger, the freer the model.
        model, seed, sampler: as for /generate.
        labels: the name of a class; nothing: any.
        steps: from t to 0; 0: the model's own share for that part of the way.

    Returns:
        As /generate.
    """
    from ddpm_demo.inference import given
    from ddpm_demo.inference.generate import play

    opened = _opened(picture)
    selected, config = _asked(model, labels, 1, seed, (sampler, 0, -1.0))
    checkpoint = selected.checkpoint
    number("t", t, 1, checkpoint.diffusion.T, whole=True)
    number("steps", steps, 0, t, whole=True)
    config, change = given.begun(checkpoint, config, [t], steps)
    known = given.fitted(opened, checkpoint.model.config)
    options: dict[str, Any] = {"bf16": runtime.bf16(), "denoiser": runtime.denoiser}
    yield from _streamed(play(checkpoint, config, [change], given=[known], **options))


@friendly
def evaluate(model: str = "", n: int = 500, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Measure how far samples of a model are from its data: a Fréchet distance, which is not FID.

    Args:
        model: the name of a shipped model; nothing: the one that the app starts with.
        n: samples; compare only results of the same n.
        seed: of the first sample.

    Returns:
        While it runs: drawn and n. At the end: fd, floor (what perfect samples would have), sure,
        sure_data, classes and classes_data.
    """
    import torch

    from ddpm_demo.evaluation import frechet, references
    from ddpm_demo.evaluation.classifier import judge_of
    from ddpm_demo.evaluation.features import Summary
    from ddpm_demo.evaluation.samples import pages
    from ddpm_demo.inference import timing
    from ddpm_demo.ui.measure.handlers import most_seconds

    number("n", n, 1, 50_000, whole=True)
    selected, config = _asked(model, "", 1, seed, ("", 0, -1.0))
    config = config.but(n=n)
    judge = judge_of(selected.checkpoint)
    frechet.require_enough(n, judge.dim)
    data, summary = references.read(judge, "test"), Summary(0)
    runs, seconds = pages(config, 64), runtime.seconds(selected.source)
    _require_seconds(sum(timing.estimate(run, seconds) for run in runs), most_seconds())
    for run in runs:
        said = {"drawn": run.seed - config.seed, "n": n}
        for _ in give_way():
            yield said
        for _, pixels in runtime.draw(selected.source, run):
            yield said
            if pixels is not None:
                summary.add(*judge.extract(torch.from_numpy(pixels).permute(0, 3, 1, 2)))
    found = frechet.judge(summary, data, judge.config.classes)
    yield found | {"floor": frechet.floor(data, n)}


def add_endpoints() -> None:
    """Call it inside the page: each function above becomes an endpoint of its name."""
    shared: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": settings.RUNS}
    for function, lane in (
        (generate, shared),
        (noise, {"concurrency_limit": 2}),
        (denoise, shared),
        (models, {"concurrency_limit": 2}),
        (evaluate, LANE),
    ):
        api(_ready(function), api_name=function.__name__, **lane)


# --- what they share ------------------------------------------------------------------------------


def _ready(function: Any) -> Any:
    """Wrap a function so that it waits until torch is imported."""
    if not inspect.isgeneratorfunction(inspect.unwrap(function)):
        return function

    @functools.wraps(function)
    def wait(*values: Any) -> Iterator[Any]:
        while runtime.starting() and not runtime.ready.wait(EVERY):
            yield {"note": "The model is being loaded."}
        yield from function(*values)

    # A stream has the type of each of its values.
    said = inspect.signature(function).replace(return_annotation=dict[str, Any])
    wait.__signature__ = said  # type: ignore[attr-defined]
    return wait


def _asked(
    model: Any, labels: Any, n: Any, seed: Any, rest: tuple[Any, Any, Any]
) -> tuple[Any, SampleConfig]:
    """The model and the run, checked against the limits of the page.

    Args:
        rest: sampler, steps and guidance. An empty text, 0 and less than 0 mean the model's own.
    """
    from ddpm_demo.inference import timing
    from ddpm_demo.ui.components.controls import find, most_pictures
    from ddpm_demo.ui.generate.handlers import most_seconds

    sampler, steps, guidance = rest
    words = {"model": model, "labels": labels, "sampler": sampler}
    for name, value in words.items():
        require(isinstance(value, str), name, str(value)[:40], "a text")
    selected = find(model or first_model(), {})
    number("n", n, 1, most_pictures(selected.facts), whole=True)
    number("steps", steps, 0, selected.checkpoint.diffusion.T, whole=True)
    number("guidance", guidance, -1, 20)
    selected.facts.require_guided(guidance if guidance >= 0 else 1)
    changes: dict[str, Any] = {"n": n, "seed": seed}
    changes |= {"sampler": sampler} if sampler else {}
    changes |= {"steps": steps} if steps else {}
    changes |= {"guidance": guidance} if guidance >= 0 else {}
    if labels:
        changes["labels"] = selected.facts.parse_classes(labels)
    config = selected.best.but(**changes)
    if not settings.ZERO:  # that has a limit of its own
        each = runtime.seconds(selected.source)
        _require_seconds(timing.estimate(config, each), most_seconds())
    return selected, config


def _require_seconds(seconds: float, most: float) -> None:
    from ddpm_demo.inference.timing import spoken

    if seconds > most:
        raise ValueError(
            f"This would take about {spoken(seconds)}, and the limit here is {spoken(most)}. "
            "Ask for fewer steps or pictures."
        )


def _streamed(steps: Iterator[Any]) -> Iterator[Any]:
    """Yield every step, so that a client can leave at any. Some have pictures; the last does."""
    sent = 0.0
    for step in steps:
        now, shown = time.monotonic(), {"step": step.index, "total": step.total, "t": step.t}
        if step.index == step.total or now - sent > EVERY:
            shown |= {"picture": _uri(step.x_t), "guess": _uri(step.x0_hat)}
            sent = now
        yield shown


def _uri(pictures: Any, scale: int = SCALE) -> str:
    """A PNG of (B, C, H, W) pictures side by side, as a data URI."""
    from ddpm_demo.media import convert, encode

    sheet = convert.grid(convert.to_uint8(pictures), scale=scale)
    return f"data:image/png;base64,{base64.b64encode(encode.encode([sheet], 'png')).decode()}"


def _opened(picture: Any) -> Any:
    """The picture of a data URI, or of base64.

    Raises:
        ValueError: it can't be read, or is too large.
    """
    from ddpm_demo.media.open import open_image

    ok = isinstance(picture, str) and 0 < len(picture) <= PICTURE_CHARS
    require(ok, "picture", str(picture)[:40], "a data URI, or base64, of at most 5 MB")
    try:
        raw = base64.b64decode(picture.rpartition(",")[2], validate=True)
    except (binascii.Error, ValueError):
        require(False, "picture", picture[:40], "a data URI, or base64")
    return open_image(raw)
