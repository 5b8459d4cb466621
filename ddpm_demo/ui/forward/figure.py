"""The pictures, plots and slider of the tab "Forward noising", as HTML; forward.js fills them."""

from __future__ import annotations

FIGURE = """
<figure class="{view}">
  <figcaption><span class="key"></span>{name}</figcaption>
  <canvas role="img"></canvas>
  <p class="formula"><i>x</i><sub class="step"></sub> = <b class="signal"></b> <i>x</i><sub>0</sub>
    + <b class="noise"></b> <i>ε</i></p>
  <p class="read"><span><i>ᾱ<sub>t</sub></i> = <b class="bar"></b></span>
    <span><abbr title="Signal-to-noise ratio">SNR</abbr> <b class="snr"></b></span>
    <span><i>β<sub>t</sub></i> = <b class="beta"></b></span></p>
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
  <h2><span>{title}</span></h2>
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

STRIP = '<div class="{view}"><h2><span class="key"></span>{name}</h2><div></div></div>'

PLOTS = [
    {
        "kind": "kept",
        "title": "<i>ᾱ<sub>t</sub></i>, signal that is left",
        "label": "alpha-bar over t for both schedules",
        "ticks": "<span>1</span><span>0.5</span><span>0</span>",
    },
    {
        "kind": "ratio",
        "title": '<abbr title="Signal-to-noise ratio">SNR</abbr> in dB: 10 log<sub>10</sub> '
        "<i>ᾱ<sub>t</sub></i> / (1 − <i>ᾱ<sub>t</sub></i>)",
        "label": "Signal-to-noise ratio over t for both schedules",
        "ticks": "<span>60</span><span>0</span><span>−60</span>",
    },
]
NAMES = [{"view": "linear", "name": "Linear"}, {"view": "cosine", "name": "Cosine"}]
TEMPLATE = f"""
<div class="stage" tabindex="-1">
  {"".join(FIGURE.format(**name) for name in NAMES)}
  <div class="drive">
    <button type="button" class="play">Play</button>
    <input type="range" class="t" min="0" max="1000" step="1" aria-label="Timestep t">
    <output><i>t</i> = <b class="now"></b> / <span class="T"></span></output>
    <button type="button" class="own">Your picture…</button>
    <button type="button" class="denoise"
      title="Goes to Generate: a model takes the noise away, from this t on">Denoise from
      here</button>
    <label><span>Whole run in</span> <select class="speed" aria-label="Whole run in">
      <option value="5">5 s</option>
      <option value="10" selected>10 s</option><option value="20">20 s</option></select></label>
    <button type="button" data-part="present" title="The whole screen, for a lecture (p); Escape
      comes back">Present</button>
  </div>
  <div class="plots">{"".join(PLOT.format(**plot) for plot in PLOTS)}</div>
  <p data-part="keys" hidden>Space plays · ← → one <i>t</i> · Page ↑ ↓ a tenth · p or Escape comes
    back</p>
  <img data-part="qr" alt="Code of the link to this page" hidden>
</div>
<div class="strips">{"".join(STRIP.format(**name) for name in NAMES)}</div>
<div class="save">Save <button type="button" data-save="strip">Strip (PNG)</button>
  <button type="button" data-save="gif">Film (GIF)</button>
  <button type="button" data-save="mp4">Film (MP4)</button>
  <button type="button" class="link" title="A link to what is shown here">Copy link</button>
  <span class="said" role="status"></span></div>
<p class="words">Every picture above is
  <i>x<sub>t</sub></i> = √<span class="root"><i>ᾱ<sub>t</sub></i></span> <i>x</i><sub>0</sub>
  + √<span class="root">1 − <i>ᾱ<sub>t</sub></i></span> <i>ε</i>,
  always with the same noise <i>ε</i> (Ho et al. 2020, eq. 4).
  <span class="gaussian">This one jump looks exactly like <i>t</i> small steps (eq. 2), because a
  sum of Gaussians is a Gaussian.</span>
  <span class="laplace" hidden>With Laplace noise, many small steps would look more Gaussian than
  this one jump.</span>
  In the histograms, the dashed line is <span class="kind"></span>. The two upright lines are −1
  and 1, the limits of a screen.</p>
"""
