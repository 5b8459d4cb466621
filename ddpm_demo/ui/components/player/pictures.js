// The panes: a figure with a canvas each, in which all pictures of a frame are shown, or one.

import { lowered } from "./words.js";

const FRAME = 4; // screen pixels, left for the frame around a pane
const GAP = 1; // pixels between pictures, in pixels of a picture

export class Pictures {
  /**
   * @param {HTMLElement} stage
   * @param {(k: number) => void} picked called with the number of a picture that was clicked
   */
  constructor(stage, picked) {
    this.stage = stage;
    this.picked = picked;
    this.views = []; // {figure, canvas, image, context, label, name} for each pane
    this.header = null;
    this.one = null; // the number of the picture shown alone; null: all of them
    this.fitted = null; // called after the pictures have got another size
    this.resizes = new ResizeObserver(() => this.fit());
  }

  /** A figure for each pane, unless they are the ones that are there. */
  see(panes) {
    const key = (list) => list.map(({ label, name }) => `${name} ${label}`).join();
    if (key(panes) === key(this.views)) return;
    for (const { figure } of this.views) figure.remove();
    this.views = panes.map(({ label, name }) => {
      const figure = document.createElement("figure");
      figure.setAttribute("aria-label", label);
      figure.dataset.pane = name ?? "";
      figure.innerHTML =
        '<figcaption></figcaption><div class="ddpm-box"><canvas role="img"></canvas></div>';
      figure.firstChild.replaceChildren(...lowered(label));
      this.stage.append(figure);
      const canvas = figure.querySelector("canvas");
      canvas.setAttribute("aria-label", `${label}: nothing yet`);
      canvas.addEventListener("click", (event) => this.pick(canvas, event));
      this.resizes.observe(canvas.parentElement);
      return { figure, canvas, label, name, context: canvas.getContext("2d") };
    });
  }

  /** Leave out the panes that are not wanted. The room for them stays, so that nothing moves. */
  choose(wanted) {
    const high = this.stage.offsetHeight;
    for (const { figure, name } of this.views) figure.hidden = !wanted(name);
    this.stage.style.minHeight = this.stage.offsetHeight < high ? `${high}px` : "";
  }

  /** The canvases' sizes, for a header and all pictures or one. */
  layout(header, one) {
    this.header = header;
    this.one = one;
    const { n, w, h } = header;
    const columns = one === null ? header.columns : 1;
    const rows = one === null ? Math.ceil(n / columns) : 1;
    for (const view of this.views) {
      view.canvas.width = columns * (w + GAP) - GAP;
      view.canvas.height = rows * (h + GAP) - GAP;
      view.image = view.context.createImageData(view.canvas.width, view.canvas.height);
    }
    this.fit();
  }

  /** A whole number of screen pixels for each pixel of a picture, unless that wastes much room. */
  fit() {
    if (!this.header) return;
    for (const { canvas } of this.views) {
      const { clientWidth, clientHeight } = canvas.parentElement;
      const ratio = window.devicePixelRatio || 1;
      const [wide, high] = [clientWidth - FRAME, clientHeight - FRAME];
      const room = ratio * Math.min(wide / canvas.width, high / canvas.height);
      const scale = Math.floor(room) < 0.9 * room ? room : Math.floor(room);
      canvas.style.width = `${(scale * canvas.width) / ratio}px`;
      canvas.style.height = `${(scale * canvas.height) / ratio}px`;
    }
    this.fitted?.();
  }

  /** A frame, and what screen readers are told of it. */
  paint(frame, words) {
    const { n, h, w, c } = this.header;
    const raw = atob(frame.d);
    const what = this.one === null ? `${n} pictures` : `picture ${this.one + 1} of ${n}`;
    this.views.forEach((view, pane) => {
      if (view.figure.hidden) return;
      const late = view.name === "z"; // comes by itself, and not at the last frame
      if (late && !frame.z) view.context.clearRect(0, 0, view.canvas.width, view.canvas.height);
      else this.draw(view, late ? atob(frame.z) : raw, late ? 0 : pane * n * h * w * c);
      const shown = late && !frame.z ? "none" : what;
      view.canvas.setAttribute("aria-label", `${view.label}: ${shown} at ${words}`);
    });
  }

  draw({ image, context }, raw, start) {
    const { n, h, w, c } = this.header;
    if (this.one === null) {
      for (let k = 0; k < n; k++) this.place(image, raw, start + k * h * w * c, k);
    } else {
      this.place(image, raw, start + this.one * h * w * c, 0);
    }
    context.putImageData(image, 0, 0);
  }

  /** One picture, whose bytes begin at `from`, into a cell of the grid. */
  place(image, raw, from, cell) {
    const { h, w, c } = this.header;
    const columns = this.one === null ? this.header.columns : 1;
    const out = image.data;
    for (let y = 0; y < h; y++) {
      const row = Math.floor(cell / columns) * (h + GAP) + y;
      let to = 4 * (row * image.width + (cell % columns) * (w + GAP));
      for (let x = 0; x < w; x++, from += c, to += 4) {
        out[to] = raw.charCodeAt(from);
        out[to + 1] = c === 3 ? raw.charCodeAt(from + 1) : out[to];
        out[to + 2] = c === 3 ? raw.charCodeAt(from + 2) : out[to];
        out[to + 3] = 255;
      }
    }
  }

  pick(canvas, { offsetX, offsetY }) {
    if (!this.header) return;
    const { n, columns } = this.header;
    const x = Math.floor((offsetX / canvas.clientWidth) * columns);
    const y = Math.floor((offsetY / canvas.clientHeight) * Math.ceil(n / columns));
    this.picked(Math.min(y * columns + x, n - 1));
  }
}
