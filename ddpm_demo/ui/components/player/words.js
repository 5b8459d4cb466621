// What the player says, in words.

/**
 * @typedef {object} Frame
 * @property {number} step
 * @property {number | null} t
 * @property {number} s seconds since the start of the run
 * @property {string} d base64 of uint8 [pane][n][h][w][c], decoded when it is painted
 * @property {string} [z] the noise that the step from here adds, as d of one pane
 */

/** Such as "step 4 / 20 · t = 800". */
export function moment({ unit, total }, { step, t }) {
  return `${unit} ${step} / ${total}${t === null ? "" : ` · t = ${t}`}`;
}

/** Such as "3.2 s" or "48 s". */
export function seconds(s) {
  return `${s < 9.95 ? s.toFixed(1) : Math.round(s)} s`;
}

const LOWERED = { ₜ: "t", "₀": "0" };

/** A label such as "xₜ" with subscripts that every font has. */
export function lowered(label) {
  return label.split(/([ₜ₀])/).map((part) => {
    const below = document.createElement("sub");
    below.textContent = LOWERED[part] ?? "";
    return LOWERED[part] ? below : part;
  });
}

const ordinal = new Intl.PluralRules("en", { type: "ordinal" });
const ENDINGS = { one: "st", two: "nd", few: "rd", other: "th" };

/** What a visitor in the server's queue reads. */
export function inQueue(place) {
  return `You are ${place}${ENDINGS[ordinal.select(place)]} in the queue. It starts by itself.`;
}

/** A sentence about a run that the page had when it was loaded anew. */
export function reloaded({ unit, total }, { step }) {
  const early = step < total ? ` (stopped at ${unit} ${step} of ${total})` : "";
  return `Reloaded. Your last run is still here${early}.`;
}

const REPORT_MS = 5000; // between two spoken reports of progress
const SPOKEN_MS = 1000; // between any two spoken sentences

/** What screen readers are told: seldom, for it interrupts. */
export class Voice {
  /** @param {Element} region a live region */
  constructor(region) {
    this.region = region;
    this.reported = this.spoken = -Infinity;
    this.timer = 0;
  }

  /** At most once a second; of several sentences at once, the last. */
  say(text) {
    clearTimeout(this.timer);
    const wait = this.spoken + SPOKEN_MS - performance.now();
    if (wait > 0) {
      this.timer = setTimeout(() => this.say(text), wait);
      return;
    }
    this.spoken = performance.now();
    this.region.textContent = text;
  }

  /** Progress, which nobody needs to hear at each step. */
  report(text) {
    if (performance.now() - this.reported < REPORT_MS) return;
    this.reported = performance.now();
    this.say(text);
  }
}
