// A run as the page keeps it: its header, and the frames that have come.

/** @import { Frame } from "./words.js" */

/**
 * @typedef {object} Header as in `messages.header`
 * @property {number} n
 * @property {number} h
 * @property {number} w
 * @property {number} c
 * @property {number} columns
 * @property {string[]} panels a label for each pane
 * @property {string[]} panes a name for each pane, such as "x_t"
 * @property {number} total
 * @property {string} unit
 * @property {string} title
 * @property {number} fps
 * @property {Record<string, string>} meta
 * @property {object} [updates] as in `inference.updates`; z: the label of the noise, if there is any
 */

export class Recording {
  /**
   * @param {Header} header
   * @param {Frame[]} frames
   */
  constructor(header, frames = []) {
    this.header = header;
    this.frames = frames;
  }

  /** What can be seen: the panes of each frame, and the noise, which comes by itself. */
  get panes() {
    const { panes, panels, updates } = this.header;
    const seen = panels.map((label, k) => ({ label, name: panes[k] }));
    return updates?.z ? [...seen, { label: updates.z, name: "z" }] : seen;
  }

  /** The frame that came last; nothing if none has come. */
  get last() {
    return this.frames.at(-1);
  }

  /** Whether the run has come to its end. */
  get whole() {
    return this.last?.step >= this.header.total;
  }

  /** The noise of steps, which comes after their frames. */
  addNoise(pairs) {
    for (const [step, d] of pairs) {
      const frame = this.frames[this.atStep(step)];
      if (frame?.step === step) frame.z = d;
    }
  }

  /** The last frame up to a step. */
  atStep(step) {
    return this.frames.findLastIndex((frame) => frame.step <= step);
  }

  /** The first frame that has come down to t: it aligns runs whose steps differ. */
  atT(t) {
    const index = this.frames.findIndex((frame) => frame.t <= t);
    return index < 0 ? this.frames.length - 1 : index;
  }

  /** So many frames, spread over the run, with the first and the last. */
  evenly(count) {
    const last = this.frames.length - 1;
    if (count > last) return this.frames;
    const at = (i) => this.frames[Math.round((i * last) / (count - 1))];
    return Array.from({ length: count }, (_, i) => at(i));
  }
}
