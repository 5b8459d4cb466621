"""The tab "Forward noising": a picture dissolves into noise, q(x_t | x_0) of Ho et al. 2020, eq. 4.

Python sends the picture, one noise and the tables of alpha_bar; the browser mixes them, so that the
slider over t answers at once.
"""

from __future__ import annotations

import base64
import functools
import html
import io
import json
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.utils import get_upload_folder

from ddpm_demo.config import SEED_MAX, T_MAX, T_MIN, DiffusionConfig, number, one_of, require
from ddpm_demo.diffusion.noise import Noise
from ddpm_demo.diffusion.schedule import Schedule
from ddpm_demo.diffusion.timesteps import default_timesteps, parse_timesteps
from ddpm_demo.media.images import ImageError, open_image, square
from ddpm_demo.ui.components.player import export_film

HERE = Path(__file__).parent
EXAMPLES = sorted(str(path) for path in (HERE.parents[1] / "examples").glob("*.jpg"))
SIZES = (32, 64, 128, 256)
PNG = "data:image/png;base64,"
VIEWS = {"both": ("linear", "cosine"), "linear": ("linear",), "cosine": ("cosine",)}

FIGURE = """
<figure class="{view}">
  <figcaption><span class="key"></span>{name}</figcaption>
  <canvas role="img"></canvas>
  <p class="formula"><i>x</i><sub class="step"></sub> = <b class="signal"></b> <i>x</i><sub>0</sub>
    + <b class="noise"></b> <i>ε</i></p>
  <p class="read"><span><i>ᾱ<sub>t</sub></i> = <b class="bar"></b></span>
    <span>SNR <b class="snr"></b></span><span><i>β<sub>t</sub></i> = <b class="beta"></b></span></p>
  <div class="hist">
    <svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img"
      aria-label="Histogram of the values of x_t, {view} schedule">
      <path class="ends" d="M37.5 0V100M62.5 0V100"/><path class="bars"/><path class="outline"/>
    </svg>
    <div class="axis"><span>−4</span><span>values of <i>x<sub>t</sub></i></span><span>4</span></div>
  </div>
</figure>"""

PLOT = """
<div class="plot {kind}">
  <h4><span>{title}</span></h4>
  <div class="area">
    <div class="axis y">{ticks}</div>
    <svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="{label}">
      <path class="grid" d="M0 50H100"/><path class="cursor"/>
      <path class="line linear"/><path class="line cosine"/>
      <path class="dot linear"/><path class="dot cosine"/>
    </svg>
  </div>
  <div class="axis x"><span>0</span><span><i>t</i></span><span class="T"></span></div>
</div>"""

STRIP = '<div class="{view}"><h4><span class="key"></span>{name}</h4><div></div></div>'

PLOTS = [
    {
        "kind": "kept",
        "title": "<i>ᾱ<sub>t</sub></i>, signal that is left",
        "label": "alpha-bar over t for both schedules",
        "ticks": "<span>1</span><span>0.5</span><span>0</span>",
    },
    {
        "kind": "ratio",
        "title": "SNR in dB: 10 lg <i>ᾱ<sub>t</sub></i> / (1 − <i>ᾱ<sub>t</sub></i>)",
        "label": "Signal-to-noise ratio over t for both schedules",
        "ticks": "<span>60</span><span>0</span><span>−60</span>",
    },
]
NAMES = [{"view": "linear", "name": "Linear"}, {"view": "cosine", "name": "Cosine"}]
TEMPLATE = f"""
<div class="stage">
  {"".join(FIGURE.format(**name) for name in NAMES)}
  <div class="drive">
    <button type="button" class="play">Play</button>
    <input type="range" class="t" min="0" max="1000" step="1" aria-label="Timestep t">
    <output><i>t</i> = <b class="now"></b> / <span class="T"></span></output>
    <label>Whole run in <select class="speed"><option value="5">5 s</option>
      <option value="10" selected>10 s</option><option value="20">20 s</option></select></label>
  </div>
  <div class="plots">{"".join(PLOT.format(**plot) for plot in PLOTS)}</div>
</div>
<div class="strips">{"".join(STRIP.format(**name) for name in NAMES)}</div>
<div class="save">Save <button type="button" data-save="strip">Strip (PNG)</button>
  <button type="button" data-save="gif">Film (GIF)</button>
  <button type="button" data-save="mp4">Film (MP4)</button>
  <span class="said" role="status"></span></div>
<p class="words">Every picture above is
  <i>x<sub>t</sub></i> = √<span class="root"><i>ᾱ<sub>t</sub></i></span> <i>x</i><sub>0</sub>
  + √<span class="root">1 − <i>ᾱ<sub>t</sub></i></span> <i>ε</i>
  with one and the same noise <i>ε</i> (Ho et al. 2020, eq. 4). A single step keeps
  √<span class="root">1 − <i>β<sub>t</sub></i></span> of <i>x</i><sub><i>t</i>−1</sub> and adds
  noise of variance <i>β<sub>t</sub></i> (eq. 2); because a sum of Gaussians is Gaussian,
  <i>t</i> such steps make the same distribution as this one jump.
  <span class="laplace" hidden>That holds for Gaussian noise only: with Laplace noise, steps would
  add up to something closer to a Gaussian than what you see here.</span>
  The dashed line in the histograms is the density of <span class="kind"></span>, and the two
  upright lines are −1 and 1, beyond which a screen cannot show values.</p>
"""


def _noiser(value: str) -> gr.HTML:
    """Pictures, plots and slider; the value is one JSON message, see `picture_message`."""
    return gr.HTML(
        value,
        html_template=TEMPLATE,
        css_template=(HERE / "forward.css").read_text(encoding="utf-8"),
        js_on_load=(HERE / "forward.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        server_functions=[export_film],
        elem_id="noiser",
    )


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def picture_message(source: str | bytes, size: int, noise: str, seed: int) -> dict[str, Any]:
    """x_0 (uint8) and eps (int16, times `scale`), both (size, size, 3).

    Raises:
        ValueError: a file that is no picture (`ImageError`), or a bad size, noise or seed.
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
        ValueError: a bad T, beta or list of timesteps.
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


def _text(timesteps: list[int]) -> str:
    return ",".join(map(str, timesteps))


def _fit(timesteps: Any, T: object) -> str:
    """The list for a new T: an own list stays as long as it is valid, the default follows T."""
    if not isinstance(T, int) or not T_MIN <= T <= T_MAX:
        return str(timesteps)
    try:
        own = parse_timesteps(timesteps, T)
    except ValueError:
        own = []
    if own and own != default_timesteps(own[-1] + 1):
        return timesteps
    return _text(default_timesteps(T))


def _warn(error: ValueError) -> None:
    gr.Warning(html.escape(str(error)))


def _uploaded(payload: Any) -> str | None:
    """The path of an upload, if there is one.

    Gradio looks where a file lies only if the payload says that it is a file, which a forged one
    need not say; so we look again.

    Raises:
        ImageError: a file that nobody uploaded.
    """
    path = payload.get("path") if isinstance(payload, dict) else None
    if not path:
        return None
    if not Path(str(path)).resolve().is_relative_to(Path(get_upload_folder()).resolve()):
        raise ImageError("the picture is not among the uploads")
    return str(path)


def _keep(path: str) -> str:
    """Of an upload, as much as is ever shown, as an address that holds a PNG: the page keeps it, so
    that the server need not."""
    side = max(SIZES)
    image, png = open_image(path, at_least=side), io.BytesIO()
    if min(image.size) > side:
        image = square(image, side)
    image.save(png, "PNG")
    return PNG + base64.b64encode(png.getvalue()).decode()


def _source(kept: Any) -> str | bytes:
    """What x_0 is cut from: what `_keep` made, or the first example.

    Raises:
        ImageError: it is something else.
    """
    if not kept:
        return EXAMPLES[0]
    try:
        require(isinstance(kept, str) and kept.startswith(PNG), "picture", "…", "an upload")
        return base64.b64decode(kept[len(PNG) :])
    except ValueError as error:
        raise ImageError(f"the picture can't be read: {error}") from None


def _set_picture(
    first: Any, upload: Any, kept: Any, size: int, noise: str, seed: int
) -> tuple[Any, ...]:
    """Message, picture shown in the input, and the last good picture, which outlives a bad one.

    Args:
        first: what the input shows at first.
    """
    try:
        path = _uploaded(upload)
        chosen = _keep(path) if path else kept
        message = json.dumps({"picture": picture_message(_source(chosen), size, noise, seed)})
    except ImageError as error:
        _warn(error)
        return gr.skip(), {"path": None, "url": kept} if kept else first, gr.skip()
    except ValueError as error:
        _warn(error)
        return gr.skip(), gr.skip(), gr.skip()
    return message, {"path": None, "url": chosen} if path else gr.skip(), chosen


def _set_schedules(view: str, T: int, start: float, end: float, timesteps: str) -> Any:
    try:
        return json.dumps({"schedules": schedules_message(view, T, start, end, timesteps)})
    except ValueError as error:
        _warn(error)
        return gr.skip()


def _set_length(view: str, T: int, start: float, end: float, timesteps: str) -> tuple[Any, str]:
    """As `_set_schedules`, and the list of timesteps that goes with the new T."""
    timesteps = _fit(timesteps, T)
    return _set_schedules(view, T, start, end, timesteps), timesteps


def build_forward_tab() -> None:
    """Lay out the tab; call it inside `with gr.Tab(...)`."""
    process, strip = DiffusionConfig(), _text(default_timesteps(DiffusionConfig.T))
    first = {
        "picture": picture_message(EXAMPLES[0], 128, process.noise, 0),
        "schedules": schedules_message(
            "both", process.T, process.beta_start, process.beta_end, strip
        ),
    }
    with gr.Row(elem_classes="stage-and-controls"):
        with gr.Column(scale=3, min_width=320):
            noiser = _noiser(json.dumps(first))
        with gr.Column(scale=1, min_width=280):
            picture = gr.Image(
                EXAMPLES[0],
                label="Your picture x₀",
                sources=["upload", "clipboard", "webcam"],
                height=220,
                buttons=[],
                elem_id="forward-picture",
            )
            examples = gr.Examples(EXAMPLES, picture, label="Example pictures")
            view = gr.Radio(
                [("Both", "both"), ("Linear", "linear"), ("Cosine", "cosine")],
                value="both",
                label="Schedule",
                info="How fast the signal ᾱₜ fades: linear βₜ, cosine-shaped ᾱₜ, or both at once.",
                elem_id="forward-view",
            )
            length = gr.Slider(
                T_MIN,
                T_MAX,
                value=process.T,
                step=1,
                label="Steps T",
                info="T: into how many steps the way from picture to noise is cut.",
                elem_id="forward-T",
            )
            size = gr.Radio(
                list(SIZES),
                value=128,
                label="Resolution",
                info="Side in pixels of the square x₀ that is cut from your picture.",
                elem_id="forward-size",
            )
            noise = gr.Radio(
                [("Gaussian", "gaussian"), ("Laplace", "laplace")],
                value=process.noise,
                label="Noise",
                info="ε: what is mixed in; both kinds have mean 0 and variance 1.",
                elem_id="forward-noise",
            )
            timesteps = gr.Textbox(
                strip,
                label="Timesteps of the strip",
                info="t: which xₜ the strip shows, whole numbers from 1 to T.",
                elem_id="forward-timesteps",
            )
            with gr.Accordion("More settings", open=False, elem_id="forward-more"):
                start = gr.Number(
                    process.beta_start,
                    label="First β",
                    info="β₁ (beta_start): variance that linear adds in its first step.",
                    step=1e-4,
                    elem_id="forward-beta-start",
                )
                end = gr.Number(
                    process.beta_end,
                    label="Last β",
                    info="β_T (beta_end): variance that linear adds in its last step.",
                    step=1e-3,
                    elem_id="forward-beta-end",
                )
                seed = gr.Number(
                    0,
                    label="Seed",
                    info="Picks ε: the same seed gives the same noise.",
                    precision=0,
                    elem_id="forward-seed",
                )

    kept = gr.Textbox("", visible=False)
    # preprocess=False: what people typed or uploaded comes as it is, so that a bad value is refused
    # in one sentence of ours. postprocess=False: a picture is shown without a file.
    raw: dict[str, Any] = {
        "preprocess": False,
        "postprocess": False,
        "show_progress": "hidden",
        "api_visibility": "private",
    }
    drawn: dict[str, Any] = {
        "fn": functools.partial(_set_picture, picture.value),
        "inputs": [picture, kept, size, noise, seed],
        "outputs": [noiser, picture, kept],
        **raw,
    }
    # Not `change`, which comes twice for an upload.
    gr.on([picture.input, size.change, noise.change, seed.submit, seed.blur], **drawn)
    examples.load_input_event.then(**drawn)
    shape = [view, length, start, end, timesteps]
    typed = (start, end, timesteps)
    settled = [view.change, *(f.submit for f in typed), *(f.blur for f in typed)]
    gr.on(settled, _set_schedules, shape, noiser, **raw)
    length.change(_set_length, shape, [noiser, timesteps], **raw)
