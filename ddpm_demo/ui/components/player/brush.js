// Drawing on the picture shown alone: a mask of cells, which a change takes.

const CELLS = 32; // a side, at most
const WIDE = 2; // cells around the pointer

export class Brush {
  /** @param {Player} player */
  constructor(player) {
    this.player = player;
    this.on = false;
    this.cells = null; // 0 or 1, rows after rows
    this.pressed = false;
    const stage = player.part("stage");
    stage.addEventListener("pointerdown", (event) => this.press(event));
    stage.addEventListener("pointermove", (event) => this.pressed && this.draw(event));
    stage.addEventListener("keydown", (event) => this.key(event));
    addEventListener("pointerup", () => (this.pressed = false));
  }

  get side() {
    return Math.min(CELLS, this.player.recording?.header.h ?? CELLS);
  }

  /** Whether a click draws, and doesn't leave the picture. */
  get drawing() {
    return this.on && this.player.one !== null;
  }

  use(on) {
    this.on = on;
    this.player.root.classList.toggle("ddpm-draws", on);
    const { one, recording } = this.player;
    if (on && one === null && recording)
      this.player.tell(
        "This changes all pictures. Enlarge one to draw where, by pointing, or with the arrow keys and the space bar.",
        9000,
      );
    this.show();
  }

  clear() {
    this.cells = null;
    this.show();
  }

  press(event) {
    if (!this.drawing || event.target.tagName !== "CANVAS") return;
    event.preventDefault();
    this.pressed = true;
    this.draw(event);
  }

  draw({ target, offsetX, offsetY }) {
    if (!this.drawing || target.tagName !== "CANVAS") return;
    this.paint(offsetX / target.clientWidth, offsetY / target.clientHeight);
  }

  /** The space bar draws at the pixel that the arrow keys have chosen. */
  key(event) {
    const { pixel } = this.player.probe;
    if (event.key !== " " || !this.drawing || !pixel || event.target.tagName !== "CANVAS") return;
    event.preventDefault();
    event.stopPropagation();
    const { w, h } = this.player.recording.header;
    this.paint((pixel[0] + 0.5) / w, (pixel[1] + 0.5) / h);
  }

  /** A dot, at shares of the picture's width and height. */
  paint(across, down) {
    const side = this.side;
    if (this.cells?.length !== side * side) this.cells = new Uint8Array(side * side);
    const [x, y] = [across * side, down * side];
    for (let row = 0; row < side; row++)
      for (let column = 0; column < side; column++)
        if (Math.hypot(column + 0.5 - x, row + 0.5 - y) <= WIDE)
          this.cells[row * side + column] = 1;
    this.show();
  }

  /** The mask as the server takes it: its bits in base64 for addresses; empty if there is none. */
  get mask() {
    if (!this.drawing || this.cells?.length !== this.side ** 2) return "";
    const bytes = new Uint8Array(Math.ceil(this.cells.length / 8));
    this.cells.forEach((cell, k) => {
      bytes[k >> 3] |= cell << (7 - (k & 7));
    });
    const text = btoa(String.fromCharCode(...bytes));
    return text.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
  }

  /** What "Pause and change" asks of the player: where it is, and to draw. */
  offer(block) {
    block.brush = (on) => this.use(on);
    block.undraw = () => this.clear();
    block.place = () => {
      const { recording, frames, at, one } = this.player;
      if (!frames.length) return "";
      const { id, meta } = recording.header;
      return JSON.stringify({ run: id ?? "", step: frames[at].step, one, meta, mask: this.mask });
    };
  }

  /** What is drawn, over the pictures. */
  show() {
    for (const { canvas } of this.player.pictures.views) {
      const box = canvas.parentElement;
      let over = box.querySelector("canvas + .ddpm-drawn");
      if (!this.drawing || !this.cells) {
        over?.remove();
        continue;
      }
      if (!over) {
        over = document.createElement("div");
        over.className = "ddpm-drawn";
        canvas.after(over);
      }
      const { offsetLeft, offsetTop, clientWidth, clientHeight } = canvas;
      over.style.cssText = `left:${offsetLeft}px;top:${offsetTop}px;width:${clientWidth}px;height:${clientHeight}px`;
      over.style.backgroundImage = `url(${this.image()})`;
    }
  }

  image() {
    const sheet = document.createElement("canvas");
    sheet.width = sheet.height = this.side;
    const context = sheet.getContext("2d");
    context.fillStyle = "rgb(236 72 153 / 0.6)";
    this.cells.forEach((cell, k) => {
      if (cell) context.fillRect(k % this.side, Math.floor(k / this.side), 1, 1);
    });
    return sheet.toDataURL();
  }
}
