// The panes: a figure with a canvas each, in which all pictures of a frame are shown, or one.

const GAP = 1; // pixels between pictures, in pixels of a picture

export class Pictures {
  /**
   * @param {HTMLElement} stage
   * @param {(k: number) => void} picked called with the number of a picture that was clicked
   */
  constructor(stage, picked) {
    this.stage = stage;
    this.picked = picked;
    this.views = []; // {figure, canvas, image, context, label} for each pane
    this.header = null;
    this.one = null; // the number of the picture shown alone; null: all of them
    this.resizes = new ResizeObserver(() => this.fit());
  }

  get labels() {
    return this.views.map(({ label }) => label);
  }

  /** A figure for each label. */
  build(labels) {
    for (const { figure } of this.views) figure.remove();
    this.views = labels.map((label) => {
      const figure = document.createElement("figure");
      figure.innerHTML =
        '<figcaption></figcaption><div class="ddpm-box"><canvas role="img"></canvas></div>';
      figure.firstChild.textContent = label;
      this.stage.append(figure);
      const canvas = figure.querySelector("canvas");
      canvas.setAttribute("aria-label", `${label}: nothing yet`);
      canvas.addEventListener("click", (event) => this.pick(canvas, event));
      this.resizes.observe(canvas.parentElement);
      return { figure, canvas, label, context: canvas.getContext("2d") };
    });
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
      const room = ratio * Math.min(clientWidth / canvas.width, clientHeight / canvas.height);
      const scale = Math.floor(room) < 0.92 * room ? room : Math.floor(room);
      canvas.style.width = `${(scale * canvas.width) / ratio}px`;
      canvas.style.height = `${(scale * canvas.height) / ratio}px`;
    }
  }

  /** A frame, and what screen readers are told of it. */
  paint(frame, words) {
    const { n, h, w, c } = this.header;
    const raw = atob(frame.d);
    const what = this.one === null ? `${n} pictures` : `picture ${this.one + 1} of ${n}`;
    this.views.forEach((view, pane) => {
      this.draw(view, raw, pane * n * h * w * c);
      view.canvas.setAttribute("aria-label", `${view.label}: ${what} at ${words}`);
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
