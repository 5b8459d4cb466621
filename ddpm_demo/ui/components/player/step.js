// The step beside the player: which panes are shown, what the step computes, and where it stands
// on the curve of alpha_bar.

import { Curve } from "./curve.js";
import { brief, lineOfMaths, lineOfWords } from "./maths.js";
import { lowered } from "./words.js";

export const SHOWN_FIRST = ["x_t", "x0_hat"];
const SYMBOLS = { x_t: "xₜ", x0_hat: "x̂₀", eps_hat: "ε̂", z: "σz" };

export class StepView {
  /** @param {Player} player */
  constructor(player) {
    this.player = player;
    this.updates = null;
    this.chosen = new Set(SHOWN_FIRST);
    this.curve = new Curve(this.part("curve"));
    this.part("code").addEventListener("click", () => this.code());
    this.part("source").addEventListener("keydown", (event) => event.stopPropagation());
    this.appear(player.props.step ?? false);
  }

  part(name) {
    return this.player.part(name);
  }

  /** Show or leave out the whole: a player of training has no steps of this kind. */
  appear(shown) {
    for (const name of ["step", "curve", "choice"])
      this.part(name).toggleAttribute("hidden", !shown);
  }

  /** A run begins. */
  begin(recording) {
    const { panes } = recording;
    this.updates = recording.header.updates ?? null;
    this.line = null;
    for (const name of ["maths", "said", "snr"]) this.part(name).replaceChildren();
    this.guidance();
    this.curve.set(this.updates);
    this.player.pictures.see(panes);
    if (!this.updates) return;
    if (!panes.some(({ name }) => this.chosen.has(name))) this.chosen.add(panes[0].name);
    this.appear(true);
    this.offer(panes);
    this.arrange();
  }

  /** A link to the experiment that opens the guidance of a picture that has a class. */
  guidance() {
    const { props, recording, one } = this.player;
    const labels = this.updates?.labels;
    const link = this.part("guidance");
    link.hidden = !props.link || !labels;
    if (link.hidden) return;
    const { model, seed, guidance } = recording.header.meta;
    const k = one ?? 0;
    const asked = { tab: "experiments", experiment: "guidance", model };
    Object.assign(asked, { label: labels[k] ?? labels[0], seed: Number(seed) + k });
    if (Number(guidance) !== 1) asked.w = Number(guidance); // at 1 there is only one answer
    link.href = `?${new URLSearchParams({ ...asked, run: 1 })}`;
  }

  /** Show the panes that are chosen. */
  arrange() {
    this.player.pictures.choose((name) => this.chosen.has(name));
  }

  /** A checkbox for each pane of the run. */
  offer(panes) {
    const choice = this.part("choice");
    choice.replaceChildren(
      ...panes.map(({ name, label }) => {
        const box = document.createElement("label");
        box.className = `ddpm-of-${name}`;
        box.title = label;
        box.innerHTML = `<input type="checkbox" data-pane="${name}"><span></span>`;
        box.lastChild.replaceChildren(...lowered(SYMBOLS[name]));
        const input = box.firstChild;
        input.checked = this.chosen.has(name);
        input.setAttribute("aria-label", label);
        input.addEventListener("change", () => this.choose(name, input));
        return box;
      }),
    );
  }

  /** At least one pane stays. */
  choose(name, input) {
    if (input.checked) this.chosen.add(name);
    else this.chosen.delete(name);
    if (!this.part("choice").querySelector(":checked")) {
      input.checked = true;
      this.chosen.add(name);
    }
    this.arrange();
    this.player.alone(this.player.one);
  }

  /** The line of the step that begins at number k. */
  show(k) {
    if (!this.updates || this.line === k) return;
    this.line = k;
    const { t, alpha_bar, lines } = this.updates;
    const over = k >= lines.length;
    this.part("maths").innerHTML = over
      ? "<math><msub><mi>x</mi><mn>0</mn></msub></math>"
      : lineOfMaths(this.updates, k);
    this.part("said").textContent = over
      ? "The run is over: this is the sample."
      : lineOfWords(this.updates, k);
    const ab = alpha_bar[k];
    const snr = ab < 1 ? ab / (1 - ab) : Infinity;
    const ratio = snr === Infinity ? "∞" : snr < 10 ? brief(snr) : snr.toFixed(0);
    this.part("snr").textContent = `ᾱ = ${brief(ab)} · SNR = ${ratio}`;
    this.part("curve").setAttribute("aria-label", `ᾱ at t = ${t[k]}: ${brief(ab)}`);
    this.curve.cursor(k);
  }

  /** Our own lines that compute the step, as they are on the server. */
  async code() {
    const { text, file, error } =
      (await this.player.server.sampler_code(this.updates?.sampler)) ?? {};
    const dialog = this.part("source");
    dialog.querySelector("p").textContent = error ?? file ?? "The server did not answer.";
    dialog.querySelector("pre").textContent = text ?? "";
    dialog.showModal();
  }
}
