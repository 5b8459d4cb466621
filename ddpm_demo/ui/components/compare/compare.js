// Runs side by side on one timeline: those that are kept, beside the one that moves. Runs are
// aligned by t, as their steps differ.

import { Pictures } from "../player/pictures.js";
import { lowered } from "../player/words.js";

const MOST = 3; // kept runs
const LETTERS = ["A", "B", "C"];
const LEFT_OUT = ["program", "seed of picture"]; // of a run's settings

/**
 * What differs in the settings of two runs.
 * @param {Record<string, string>} one
 * @param {Record<string, string>} other
 * @returns {[name: string, one: string, other: string][]}
 */
export function differences(one, other) {
  const names = Object.keys({ ...one, ...other }).filter((name) => !LEFT_OUT.includes(name));
  return names
    .filter((name) => one[name] !== other[name])
    .map((name) => [name, one[name] ?? "none", other[name] ?? "none"]);
}

/** Root of the mean square of the differences of one pane of two frames; values from -1 to 1. */
export function distance(one, other, header, pane) {
  const size = header.n * header.h * header.w * header.c;
  const [a, b] = [one, other].map((frame) => atob(frame.d).slice(pane * size, (pane + 1) * size));
  let sum = 0;
  for (let i = 0; i < size; i++) sum += (a.charCodeAt(i) - b.charCodeAt(i)) ** 2;
  return Math.sqrt(sum / size) / 127.5;
}

/** Whether two runs begin with the same noise, and have pictures of the same size. */
export function comparable({ header: one }, { header: other }) {
  const same = ["n", "h", "w", "c"].every((name) => one[name] === other[name]);
  return same && one.meta?.seed !== undefined && one.meta.seed === other.meta?.seed;
}

export class Compare {
  /**
   * @param {Element} stage where the pictures of kept runs stand, beside those of the one that moves
   * @param {Element} list where it is said what they are
   */
  constructor(stage, list) {
    Object.assign(this, { stage, list });
    this.lanes = []; // {recording, pictures, box, row}
    this.shown = null; // the run that moves, and the frame it is at
    this.one = null; // the number of the picture shown alone; null: all of them
  }

  /** Pin a run; the oldest makes room for it if there are too many. */
  keep(recording) {
    if (this.lanes.some((lane) => lane.recording === recording)) return;
    if (this.lanes.length === MOST) this.drop(this.lanes[0]);
    const box = document.createElement("div");
    box.className = "ddpm-lane";
    this.stage.append(box);
    const pictures = new Pictures(box, () => {});
    const row = document.createElement("li");
    this.list.append(row);
    const lane = { recording, pictures, box, row, apart: new Map() };
    this.lanes.push(lane);
    pictures.see([{ label: "", name: "kept" }]);
    this.lay(lane);
    this.rewrite();
  }

  /** One picture alone, or all of them, if the kept run has it. */
  alone(k) {
    this.one = k;
    for (const lane of this.lanes) this.lay(lane);
  }

  lay({ pictures, recording: { header } }) {
    pictures.layout(header, this.one !== null && this.one < header.n ? this.one : null);
  }

  drop(lane) {
    this.lanes = this.lanes.filter((other) => other !== lane);
    lane.box.remove();
    lane.row.remove();
    this.rewrite();
  }

  /** Another run moves from now on. */
  begin(recording) {
    this.shown = { recording, frame: null };
    for (const lane of this.lanes) lane.apart.clear();
    this.rewrite();
  }

  /** The run that moves has come to a frame. */
  show(frame) {
    if (!this.shown || !this.lanes.length) return;
    this.shown.frame = frame;
    for (const lane of this.lanes) {
      const beside = lane.recording.frames[lane.recording.atT(frame.t)];
      lane.pictures.paint(beside, `t = ${beside.t}`);
      this.measure(lane, frame, beside);
    }
  }

  /** The distance of the pictures at the t that is shown, if it means something. */
  measure(lane, frame, beside) {
    const { recording } = this.shown;
    const words = lane.row.querySelector(".ddpm-apart");
    const alike = comparable(recording, lane.recording);
    lane.row.querySelector("svg").style.visibility = alike ? "" : "hidden";
    if (!alike || frame.t !== beside.t) {
      words.textContent = alike ? `shown at t = ${beside.t}` : "other noise, so no distance";
      return;
    }
    if (!lane.apart.has(frame.t)) {
      lane.apart.set(frame.t, distance(frame, beside, recording.header, 0));
    }
    words.textContent = `x at t = ${frame.t}: ${lane.apart.get(frame.t).toFixed(3)} apart`;
    this.plot(lane);
  }

  /** The distances that are known so far, over t. */
  plot(lane) {
    const T = lane.recording.frames[0].t;
    const points = [...lane.apart].sort(([a], [b]) => b - a);
    const top = Math.max(...points.map(([, d]) => d), 1e-3);
    const line = points.map(([t, d]) => `${(100 * (T - t)) / T},${24 - (22 * d) / top}`).join(" ");
    lane.row.querySelector("polyline").setAttribute("points", line);
  }

  /** What the kept runs are, and in what they differ from the one that moves. */
  rewrite() {
    this.list.hidden = !this.lanes.length;
    this.lanes.forEach((lane, k) => {
      const { header } = lane.recording;
      const now = this.shown?.recording.header.meta ?? header.meta;
      const differ = differences(header.meta, now);
      const letter = LETTERS[k];
      lane.pictures.views[0].figure
        .querySelector("figcaption")
        .replaceChildren(...lowered(`Kept ${letter}: xₜ`));
      lane.pictures.views[0].label = `Kept run ${letter}`;
      lane.row.innerHTML = `<b></b> <span class="ddpm-differ"></span> <span class="ddpm-apart"></span>
        <svg viewBox="0 0 100 26" preserveAspectRatio="none" role="img"
          aria-label="Distance over t"><polyline/></svg>
        <button type="button"></button>`;
      lane.row.querySelector("b").textContent = letter;
      const said = lane.row.querySelector(".ddpm-differ");
      for (const [name, one, other] of differ) {
        const [bold, plain] = [document.createElement("b"), document.createElement("span")];
        bold.textContent = one;
        plain.textContent = ` (now ${other})`;
        said.append(said.textContent && " · ", `${name} `, bold, plain);
      }
      if (!differ.length) said.textContent = "the same settings";
      const button = lane.row.querySelector("button");
      button.textContent = "Let go";
      button.setAttribute("aria-label", `Let go of kept run ${letter}`);
      button.addEventListener("click", () => this.drop(lane));
    });
    if (this.shown?.frame) this.show(this.shown.frame);
  }
}
