"""Denoise in one shot: what a model sees in the picture at t, with one call of its network."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from ddpm_demo.config import SEED_MAX, number, parse_timesteps, require
from ddpm_demo.inference.given import Shot, fitted, one_shot
from ddpm_demo.media import convert, encode
from ddpm_demo.ui.components.controls import Selected, find
from ddpm_demo.ui.components.pad import drawn
from ddpm_demo.ui.server import runtime
from ddpm_demo.ui.server.errors import friendly
from ddpm_demo.ui.server.settings import GPU

EPS_RANGE = 3  # noise is shown from -3 to 3
SIDE = 112  # pixels of a shown picture, about
SAID = {
    "eps": "This network predicts ε itself.",
    "x0": "This network predicts x₀; ε̂ follows from it.",
    "v": "This network predicts v = √ᾱ ε − √(1 − ᾱ) x₀; ε̂ and x̂₀ follow from it.",
}


@GPU
@friendly
def shot(own: Mapping[str, str], name: Any, source: Any, seed: Any) -> Iterator[str]:
    """Noise the picture that the page shows, ask the network once, and compare.

    Args:
        source: JSON of the page: `picture`, a data URI, and `t`.
        seed: of the noise.

    Raises:
        gr.Error: a value is bad.
    """
    picture, words = drawn(source)
    selected = find(name, own)
    ts = parse_timesteps(words, selected.checkpoint.diffusion.T)
    require(len(ts) == 1, "number of timesteps", len(ts), "1")
    number("seed", seed, 0, SEED_MAX, whole=True)
    x_0 = fitted(picture, selected.checkpoint.model.config)
    options: dict[str, Any] = {"bf16": runtime.bf16(), "denoiser": runtime.denoiser}
    yield _shown(selected, x_0, one_shot(selected.checkpoint, x_0, ts[0], seed, **options))


def _shown(selected: Selected, x_0: Tensor, made: Shot) -> str:
    signal, sigma = (f"{value:.3f}" for value in (made.signal, made.sigma))
    figures = (
        ("x₀", f"the picture, as {selected.name} takes it", x_0),
        ("ε", "the noise that was drawn", made.eps / EPS_RANGE),
        (f"x<sub>{made.t}</sub>", f"= {signal} x₀ + {sigma} ε", made.x_t),
        ("ε̂", "what the network says was added", made.eps_hat / EPS_RANGE),
        ("x̂₀", f"= (x<sub>{made.t}</sub> − {sigma} ε̂) / {signal}", made.x0_hat),
    )
    predict = SAID[selected.checkpoint.diffusion.predict]
    return (
        f'<div class="shot">{"".join(_figure(*figure) for figure in figures)}</div>'
        f"<p>The network was asked once, at t = {made.t}. Mean of (ε − ε̂)² over all pixels: "
        f"<b>{made.loss:.4f}</b>, where ε̂ = 0 would have about 1. Of (x₀ − x̂₀)²: "
        f"<b>{made.apart(x_0):.4f}</b>, with values from −1 to 1.</p>"
        f"<p>{predict} Training does just this with many pictures, draws t at random, and moves "
        "the weights so that ε̂ comes nearer to ε (Ho et al. 2020, algorithm 1).</p>"
    )


def _figure(symbol: str, words: str, x: Tensor) -> str:
    pixels = convert.to_uint8(x)
    sheet = convert.grid(pixels, scale=max(1, SIDE // pixels.shape[1]))
    uri = f"data:image/png;base64,{base64.b64encode(encode.encode([sheet], 'png')).decode()}"
    label = html.escape(symbol.replace("<sub>", "_").replace("</sub>", ""))
    return (
        f'<figure><img src="{uri}" alt="{label}"><figcaption><b>{symbol}</b> {words}'
        "</figcaption></figure>"
    )
