// One pixel of the picture shown alone: the update line with its own numbers, in float32.

import { signed, termOf } from "./maths.js";

const CHANNELS = { 1: ["grey"], 3: ["red", "green", "blue"] };
const ANSWERS = 12; // answers of the server that the page keeps
const PIXEL_TRIES = 3; // a server that is busy may miss a question
const PIXEL_MS = 500;
const CLOSE = 1e-5; // what rounding may leave between the sum and the next x_t

const floats = (text) => {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  return new Float32Array(bytes.buffer);
};

/** A number of the table: with all decimals of a float32, or three. */
export function decimals(value, whole) {
  if (!whole) return value.toFixed(3).replace("-", "−");
  return String(Number(value.toPrecision(9))).replace("-", "−");
}

export class Probe {
  /** @param {Player} player */
  constructor(player) {
    this.player = player;
    this.pixel = null; // [x, y]
    this.answers = new Map(); // by run, step and picture
    this.whole = false; // all decimals
    this.box = player.part("probe");
    this.box.innerHTML =
      '<p></p><table></table><button type="button" aria-pressed="false" title="Three decimals, or all">0.123…</button>';
    this.button("button", () => {
      this.whole = !this.whole;
      this.show();
    });
    const stage = player.part("stage");
    stage.addEventListener("pointermove", (event) => this.point(event));
    stage.addEventListener("keydown", (event) => this.move(event));
  }

  button(selector, act) {
    this.box.querySelector(selector).addEventListener("click", act);
  }

  get on() {
    return this.player.one !== null && this.player.recording?.header.updates !== undefined;
  }

  /** Another picture is alone, or none, or a run begins. */
  begin() {
    this.box.hidden = !this.on;
    for (const { canvas } of this.player.pictures.views) {
      canvas.toggleAttribute("tabindex", this.on);
      if (this.on) canvas.tabIndex = 0;
    }
    const { w, h } = this.player.recording.header;
    this.pixel = this.on ? (this.pixel ?? [w >> 1, h >> 1]) : null;
    if (this.pixel?.[0] >= w || this.pixel?.[1] >= h) this.pixel = [w >> 1, h >> 1];
    this.show();
  }

  point({ target, offsetX, offsetY }) {
    if (!this.on || target.tagName !== "CANVAS") return;
    const { w, h } = this.player.recording.header;
    const place = (at, size, most) =>
      Math.max(0, Math.min(Math.floor((at / size) * most), most - 1));
    this.put(place(offsetX, target.clientWidth, w), place(offsetY, target.clientHeight, h));
  }

  /** Arrow keys, while a picture has the focus. */
  move(event) {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const step = by[event.key];
    if (!this.on || !step || event.target.tagName !== "CANVAS") return;
    event.preventDefault();
    event.stopPropagation();
    const { w, h } = this.player.recording.header;
    const [x, y] = this.pixel;
    this.put((x + step[0] + w) % w, (y + step[1] + h) % h);
    this.player.voice.say(this.box.textContent);
  }

  put(x, y) {
    if (this.pixel?.[0] === x && this.pixel?.[1] === y) return;
    this.pixel = [x, y];
    this.show();
  }

  /** The mark on the pictures, and the numbers as soon as they are there. */
  show() {
    this.mark();
    if (!this.on) return;
    const { header } = this.player.recording;
    const step = this.player.frames[this.player.at]?.step ?? 0;
    const key = `${header.id} ${step} ${this.player.one}`;
    this.asked = key;
    if (step >= header.total) this.say("The run is over: this is the sample.");
    else if (this.answers.has(key)) this.fill(this.answers.get(key));
    else if (!header.id) this.say(null);
    else this.ask(key, { run: header.id, step, picture: this.player.one });
  }

  async ask(key, what) {
    await new Promise((resolve) => setTimeout(resolve, 25)); // a timeline that is dragged
    if (this.asked !== key) return;
    let reply = null;
    for (let tries = PIXEL_TRIES; tries && !reply && this.asked === key; tries -= 1) {
      reply = await this.player.server.pixels?.(what).catch(() => null);
      if (!reply) await new Promise((resolve) => setTimeout(resolve, PIXEL_MS));
    }
    if (!reply) {
      if (this.asked === key) this.say("The server did not answer.");
      return;
    }
    if (reply.values) {
      this.answers.set(key, { ...reply, values: floats(reply.values) });
      if (this.answers.size > ANSWERS) this.answers.delete(this.answers.keys().next().value);
    }
    if (this.asked !== key) return;
    if (reply.values) this.fill(this.answers.get(key));
    else this.say(reply.error ?? null);
  }

  /** A sentence in place of the numbers; null: the server has forgotten the run. */
  say(text) {
    this.box.querySelector("table").replaceChildren();
    const line = this.box.querySelector("p");
    line.textContent = text ?? "The server doesn’t keep the numbers of this run any more. ";
    const { again } = this.player.props;
    if (text !== null || !again) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Make it again from its seed";
    button.addEventListener("click", () => document.getElementById(again)?.click());
    line.append(button);
  }

  fill({ names, coefficients, values }) {
    const { h, w, c } = this.player.recording.header;
    const { clip } = this.player.recording.header.updates;
    const [x, y] = this.pixel;
    const at = (k, channel) => values[((k * c + channel) * h + y) * w + x];
    let clipped = false;
    let apart = 0;
    const rows = CHANNELS[c].map((channel, i) => {
      let sum = 0;
      const cells = names.map((name, k) => {
        const value = at(k, i);
        sum += coefficients[k] * value;
        const [pane] = termOf(name);
        const edge = clip && pane === "x0_hat" && Math.abs(value) === 1;
        clipped ||= edge;
        const [sign, size] = signed(coefficients[k], k === 0);
        const number = this.whole ? decimals(Math.abs(coefficients[k]), true) : size;
        const shown = decimals(value, this.whole);
        const inside = value < 0 ? `(${shown})` : shown;
        return `<td>${sign}${number} · <b class="ddpm-of-${pane}" data-name="${name}">${inside}${edge ? "*" : ""}</b></td>`;
      });
      apart = Math.max(apart, Math.abs(sum - at(names.length, i)));
      const next = decimals(at(names.length, i), this.whole);
      return `<tr><th scope="row">${channel}</th><td><b data-name="next">${next}</b> =</td>${cells.join("")}</tr>`;
    });
    this.box.querySelector("table").innerHTML = rows.join("");
    this.box.querySelector("button").setAttribute("aria-pressed", this.whole);
    const words = [`This pixel: row ${y + 1}, column ${x + 1}.`];
    if (clipped) words.push("* The network’s guess was outside [−1, 1] and was clipped.");
    if (apart > CLOSE)
      words.push(`The sum and the next picture differ by ${apart.toPrecision(2)}.`);
    this.box.querySelector("p").textContent = words.join(" ");
    this.box.dataset.step = this.player.frames[this.player.at]?.step;
  }

  /** A frame around the pixel, in every pane. */
  mark() {
    for (const { canvas } of this.player.pictures.views) {
      const box = canvas.parentElement;
      let mark = box.querySelector("i");
      if (!this.pixel || !this.on) {
        mark?.remove();
        continue;
      }
      if (!mark) {
        mark = document.createElement("i");
        box.append(mark);
      }
      const { w, h } = this.player.recording.header;
      const [wide, high] = [canvas.clientWidth / w, canvas.clientHeight / h];
      mark.style.cssText = `left:${canvas.offsetLeft + this.pixel[0] * wide}px;top:${canvas.offsetTop + this.pixel[1] * high}px;width:${wide}px;height:${high}px`;
    }
  }
}
