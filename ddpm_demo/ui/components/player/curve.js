// The curve of alpha_bar above the timeline: a dot for each step, and a cursor.

const HIGH = 34; // pixels
const EDGE = 4;
const MOST_DOTS = 100;

export class Curve {
  /** @param {SVGElement} svg */
  constructor(svg) {
    this.svg = svg;
    this.updates = null;
    new ResizeObserver(() => this.draw()).observe(svg);
  }

  /** @param {object | null} updates of a run; none: an empty curve */
  set(updates) {
    this.updates = updates;
    this.draw();
  }

  place(k) {
    const steps = this.updates.t.length - 1;
    const x = (this.svg.clientWidth * k) / Math.max(1, steps);
    return [x, HIGH - EDGE - (HIGH - 2 * EDGE) * this.updates.alpha_bar[k]];
  }

  draw() {
    if (!this.updates || !this.svg.clientWidth) {
      this.svg.innerHTML = "";
      return;
    }
    const places = this.updates.t.map((_, k) => this.place(k).map((v) => v.toFixed(1)));
    const dots = places.length <= MOST_DOTS ? places : [];
    this.svg.innerHTML = [
      `<polyline points="${places.join(" ")}"/>`,
      ...dots.map(([x, y]) => `<circle cx="${x}" cy="${y}" r="3"/>`),
      `<line y1="0" y2="${HIGH}"/>`,
    ].join("");
    this.cursor(this.at ?? 0);
  }

  /** Move the cursor to step k. */
  cursor(k) {
    this.at = k;
    const line = this.svg.querySelector("line");
    if (!line) return;
    const [x] = this.place(Math.min(k, this.updates.t.length - 1));
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
  }
}
