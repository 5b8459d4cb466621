// The runs of this page that share a past: which one is shown, and another beside it on the same
// timeline, with their difference and how far apart they are at each t.

import { drawTree } from "./tree.js";

const RUNS = 12; // runs that a page keeps
const TALL = 40; // pixels of the curve

/** The number of forks of a run, plus one. */
const forks = ({ header }) => (header.meta.with ?? "").split("fork=").length;

export class Branches {
  /** @param {Player} player */
  constructor(player) {
    this.player = player;
    this.runs = []; // recordings, oldest first
    this.other = null;
    this.box = player.part("branches");
    this.box.innerHTML = `<svg data-part="tree" role="img" preserveAspectRatio="none"></svg>
      <label>Run <select data-part="runs" aria-label="Run"></select></label>
      <label>beside <select data-part="beside" aria-label="Run beside it"></select></label>
      <output></output>
      <div hidden><figure><canvas role="img"></canvas><figcaption>the other run</figcaption></figure>
      <figure><canvas role="img"></canvas><figcaption>difference</figcaption></figure>
      <figure><svg role="img" preserveAspectRatio="none" viewBox="0 0 100 ${TALL}"></svg><figcaption>distance by t</figcaption></figure></div>`;
    this.box.querySelector("[data-part=tree]").addEventListener("click", ({ target }) => {
      this.pick(this.runs[target.closest("[data-run]")?.dataset.run]);
    });
    const [runs, beside] = this.selects;
    runs.addEventListener("change", () => this.pick(this.runs[runs.value]));
    beside.addEventListener("change", () => {
      this.other = this.runs[beside.value] ?? null;
      this.measure();
      this.show();
    });
  }

  get selects() {
    return this.box.querySelectorAll("select");
  }

  /** A run begins, or another is shown. */
  begin(recording) {
    if (!this.runs.includes(recording)) this.add(recording);
    this.offer(recording);
  }

  /** A new run: its past comes from the run that it goes on from. Only relatives stay. */
  add(recording) {
    const { since, id, n, title } = recording.header;
    const from = since && this.runs.find(({ header }) => header.id === since.id);
    if (!from) this.runs = [];
    const alike = from && from.header.n === n && forks(from) === forks(recording);
    if (alike) recording.frames.unshift(...from.frames.filter(({ step }) => step < since.step));
    if (from?.header.title === title) this.replace(from, recording);
    else if (alike) this.other = from;
    if (id) this.runs = [...this.runs.filter(({ header }) => header.id !== id), recording];
    this.runs = this.runs.slice(-RUNS);
    if (!this.runs.includes(this.other)) this.other = null;
  }

  /** Replace a run by its continuation, which changed nothing. */
  replace(from, recording) {
    this.runs.splice(this.runs.indexOf(from), 1);
    for (const { header } of this.runs)
      if (header.since?.id === from.header.id) header.since.id = recording.header.id;
    recording.header.since = from.header.since;
  }

  offer(recording) {
    this.box.hidden = this.runs.length < 2;
    const [runs, beside] = this.selects;
    this.names = this.runs.map(({ header }, k) => `${k + 1}: ${header.changed || "unchanged"}`);
    const option = (_, k) => new Option(this.names[k], k);
    runs.replaceChildren(...this.runs.map(option));
    runs.value = this.runs.indexOf(recording);
    const alike = ({ header }) => header.n === recording.header.n;
    const others = this.runs
      .map((run, k) => [run, k])
      .filter(([run]) => run !== recording && alike(run));
    beside.replaceChildren(new Option("none", ""), ...others.map(([run, k]) => option(run, k)));
    beside.value = this.other && alike(this.other) ? this.runs.indexOf(this.other) : "";
    if (beside.value === "") this.other = null;
  }

  /** Show another run, at the same t. */
  pick(recording) {
    const { player } = this;
    if (player.live || !recording) return;
    const { t } = player.frames[player.at] ?? { t: 0 };
    if (this.other === recording) this.other = player.recording;
    player.begin(recording);
    player.state = "over";
    player.go(recording.atT(t));
  }

  /** Root mean square of the difference at each frame. */
  measure() {
    this.apart = [];
    if (!this.other) return;
    const { header, frames } = this.player.recording;
    const size = header.n * header.h * header.w * header.c;
    const each = size / header.n;
    const one = this.player.one;
    const [from, to] = one === null ? [0, size] : [one * each, (one + 1) * each];
    for (const frame of frames) {
      const beside = this.other.frames[this.other.atT(frame.t)];
      if (!beside) continue;
      const [a, b] = [atob(frame.d), atob(beside.d)];
      let sum = 0;
      for (let k = from; k < to; k++) sum += (a.charCodeAt(k) - b.charCodeAt(k)) ** 2;
      this.apart.push([frame.step, Math.sqrt(sum / (to - from)) / 127.5]);
    }
  }

  /** The other run at the t that is shown. */
  show() {
    const room = this.box.querySelector("div");
    const frame = this.player.frames[this.player.at];
    if (frame && !this.box.hidden) {
      const { runs, names, other, player } = this;
      const what = { names, shown: player.recording, other, step: frame.step };
      drawTree(this.box.querySelector("[data-part=tree]"), runs, what);
    }
    room.hidden = !this.other || !frame;
    this.box.querySelector("output").textContent = "";
    if (room.hidden) return;
    const { frames, recording, one } = this.player;
    if (
      this.measured !== `${recording.header.id} ${this.other.header.id} ${frames.length} ${one}`
    ) {
      this.measured = `${recording.header.id} ${this.other.header.id} ${frames.length} ${one}`;
      this.measure();
    }
    const beside = this.other.frames[this.other.atT(frame.t)];
    if (!beside) return;
    const [a, b] = [atob(frame.d), atob(beside.d)];
    const [other, difference] = this.box.querySelectorAll("canvas");
    this.paint(other, (k) => b.charCodeAt(k));
    this.paint(difference, (k) => 127.5 + (a.charCodeAt(k) - b.charCodeAt(k)) / 2);
    other.setAttribute("aria-label", `Other run at t = ${beside.t}`);
    difference.setAttribute("aria-label", "Difference; grey where there is none");
    const now = this.apart.find(([step]) => step === frame.step)?.[1] ?? 0;
    this.box.querySelector("output").textContent = `distance ${now.toFixed(3)}`;
    this.plot(frame.step);
  }

  paint(canvas, level) {
    const { header } = this.player.recording;
    const { n, h, w, c, columns } = header;
    const [first, count] = this.player.one === null ? [0, n] : [this.player.one, 1];
    const across = count === 1 ? 1 : columns;
    canvas.width = across * (w + 1) - 1;
    canvas.height = Math.ceil(count / across) * (h + 1) - 1;
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    for (let i = 0; i < count * h * w; i++) {
      const [cell, y, x] = [Math.floor(i / (h * w)), Math.floor(i / w) % h, i % w];
      const row = Math.floor(cell / across) * (h + 1) + y;
      const to = 4 * (row * canvas.width + (cell % across) * (w + 1) + x);
      for (let k = 0; k < 3; k++)
        image.data[to + k] = level((first * h * w + i) * c + (c === 3 ? k : 0));
      image.data[to + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }

  plot(step) {
    const { total } = this.player.recording.header;
    const most = Math.max(0.05, ...this.apart.map(([, d]) => d));
    const at = ([k, d]) => `${(100 * k) / total},${(TALL - (TALL - 2) * (d / most)).toFixed(1)}`;
    const x = (100 * step) / total;
    const svg = this.box.querySelector("figure svg");
    svg.innerHTML = `<polyline points="${this.apart.map(at).join(" ")}"/><line x1="${x}" x2="${x}" y1="0" y2="${TALL}"/>`;
    svg.setAttribute("aria-label", `Distance by t, at most ${most.toFixed(3)}`);
  }
}
