"""What the tab "Forward noising" sends to the page: a picture, one noise, and tables of alpha_bar.

The browser mixes them, q(x_t | x_0) of Ho et al. 2020, eq. 4, so that the slider over t answers at
once.
"""

from __future__ import annotations

import base64
import filecmp
import functools
import html
import io
import json
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from ddpm_demo.config import (
    SEED_MAX,
    T_MAX,
    T_MIN,
    default_timesteps,
    number,
    one_of,
    parse_timesteps,
    require,
)
from ddpm_demo.diffusion import Noise, Schedule
from ddpm_demo.media.convert import square
from ddpm_demo.media.open import ImageError, open_image
from ddpm_demo.ui.components.uploads import uploaded
from ddpm_demo.ui.forward import link
from ddpm_demo.ui.forward.asked import SIZES, VIEWS, words_of

PNG = "data:image/png;base64,"


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def picture_message(source: str | bytes, size: int, noise: str, seed: int) -> dict[str, Any]:
    """x_0 (uint8) and eps (int16, times `scale`), both (size, size, 3).

    Raises:
        ValueError: the file is no picture (`ImageError`), or size, noise or seed is bad.
    """
    require(size in SIZES, "resolution", size, "32, 64, 128 or 256")
    number("seed", seed, 0, SEED_MAX, whole=True)
    x_0 = np.asarray(square(open_image(source, at_least=size), size))
    eps = Noise(noise, [seed]).draw((1, 3, size, size))[0].permute(1, 2, 0).numpy()
    scale = float(np.abs(eps).max()) / 32767
    return {
        "size": size,
        "noise": noise,
        "seed": seed,
        "x0": _base64(x_0),
        "eps": _base64(np.rint(eps / scale).astype("<i2")),
        "scale": scale,
    }


def schedules_message(
    view: str, T: int, beta_start: float, beta_end: float, timesteps: str
) -> dict[str, Any]:
    """Tables of beta and alpha_bar (float64, T + 1 entries) of both schedules, and the strip's t.

    Raises:
        ValueError: T, a beta or the list of timesteps is bad.
    """
    one_of("schedule", view, tuple(VIEWS))
    tables = {"linear": Schedule.linear(T, beta_start, beta_end), "cosine": Schedule.cosine(T)}
    return {
        "T": T,
        "views": VIEWS[view],
        "about": {
            "linear": f"linear, beta {beta_start:g} to {beta_end:g}",
            "cosine": "cosine, s = 0.008",
        },
        "strip": parse_timesteps(timesteps, T),
        "tables": {
            name: {
                "beta": _base64(schedule.beta.numpy()),
                "alpha_bar": _base64(schedule.alpha_bar.numpy()),
            }
            for name, schedule in tables.items()
        },
    }


@functools.lru_cache(maxsize=8)
def _message(found: link.Shown) -> str:
    shape = (found.schedule, found.T, found.beta_start, found.beta_end, link.strip_of(found))
    file = link.PICTURES[found.picture]
    picture = picture_message(file, found.size, found.noise, found.seed)
    return json.dumps({"picture": picture, "schedules": schedules_message(*shape)})


def first_message(given: dict[str, str]) -> str:
    """What a new page shows: the link's picture and schedules, or the first example."""
    return _message(link.shown(given)[0])


def fit(timesteps: Any, T: object) -> str:
    """The list for a new T. The default follows T; the visitor's own stays while it is valid."""
    if not isinstance(T, int) or not T_MIN <= T <= T_MAX:
        return str(timesteps)
    try:
        own = parse_timesteps(timesteps, T)
    except ValueError:
        own = []
    if own and own != default_timesteps(own[-1]):
        return timesteps
    return words_of(default_timesteps(T))


def _warn(error: ValueError) -> None:
    gr.Warning(html.escape(str(error)))


def _keep(path: str) -> str:
    """An upload as a `data:` address, no larger than it is ever shown. The page keeps it, so that
    the server need not."""
    side = max(SIZES)
    image, png = open_image(path, at_least=side), io.BytesIO()
    if min(image.size) > side:
        image = square(image, side)
    image.save(png, "PNG")
    return PNG + base64.b64encode(png.getvalue()).decode()


def _example(path: str) -> str | None:
    """The name of the example that a file is, if it is one."""
    file = Path(path)
    example = link.PICTURES.get(file.stem)
    same = example and file.is_file() and filecmp.cmp(file, example, shallow=False)
    return file.stem if same else None


def _source(kept: Any) -> str | bytes:
    """The picture for x_0: an example by its name, what `_keep` made, or the first example.

    Raises:
        ImageError: it is none of these.
    """
    if not kept or kept in list(link.PICTURES):  # a forged one may have any type
        return link.PICTURES[kept or link.Shown.picture]
    try:
        require(isinstance(kept, str) and kept.startswith(PNG), "picture", "…", "an upload")
        return base64.b64decode(kept[len(PNG) :])
    except ValueError as error:
        raise ImageError(f"the picture can't be read: {error}") from None


def set_picture(
    first: Any, upload: Any, kept: Any, size: int | None, noise: str, seed: int
) -> tuple[Any, ...]:
    """Message, picture shown in the input, and the last good picture, which outlives a bad one: an
    example by its name, or an upload as `_keep` makes it.

    Args:
        first: what the input shows at first.
        size: None if the page has no figure yet. Then nothing is done.
    """
    if size is None:
        return gr.skip(), gr.skip(), gr.skip()
    try:
        path = uploaded(upload)
        chosen = (_example(path) or _keep(path)) if path else kept
        message = json.dumps({"picture": picture_message(_source(chosen), size, noise, seed)})
    except ImageError as error:
        _warn(error)
        return gr.skip(), _seen(kept) if kept else first, gr.skip()
    except ValueError as error:
        _warn(error)
        return gr.skip(), gr.skip(), gr.skip()
    return message, _seen(chosen) if path else gr.skip(), chosen


def _seen(kept: Any) -> dict[str, Any]:
    """The picture in the input."""
    known = kept in list(link.PICTURES)  # a forged one may have any type
    return {"path": None, "url": _keep(link.PICTURES[kept]) if known else kept}


def set_schedules(view: str | None, T: int, start: float, end: float, timesteps: str) -> Any:
    """Message of new schedules; none if the page has no figure yet (`view` is None)."""
    if view is None:
        return gr.skip()
    try:
        return json.dumps({"schedules": schedules_message(view, T, start, end, timesteps)})
    except ValueError as error:
        _warn(error)
        return gr.skip()


def set_length(
    view: str | None, T: int, start: float, end: float, timesteps: str
) -> tuple[Any, Any]:
    """As `set_schedules`, and the list of timesteps that goes with the new T."""
    if view is None:
        return gr.skip(), gr.skip()
    timesteps = fit(timesteps, T)
    return set_schedules(view, T, start, end, timesteps), timesteps
