// A drawing pad. Other scripts of the page put a picture on it: `ddpmPad.take(picture, t)`.

const canvas = element.querySelector("canvas");
const context = canvas.getContext("2d");
const part = (selector) => element.querySelector(selector);
const SIDE = canvas.width;
let colour = "#ffffff";
let last = null; // where the brush was, while it draws
const hand = { x: SIDE / 2, y: SIDE / 2 }; // where the keys have moved it

function fill(with_) {
  context.fillStyle = with_;
  context.fillRect(0, 0, SIDE, SIDE);
}

function choose(chosen) {
  colour = chosen;
  for (const button of element.querySelectorAll(".colour"))
    button.setAttribute("aria-pressed", button.dataset.colour === chosen);
}

/** A stroke from where the brush was. */
function stroke({ x, y }) {
  const from = last ?? { x, y };
  context.strokeStyle = colour;
  context.lineWidth = Number(part("input[type=range]").value);
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(from.x, from.y);
  context.lineTo(x, y);
  context.stroke();
  last = { x, y };
}

/** The largest square from the middle of a picture. */
function lay(picture) {
  const [w, h] = [picture.width, picture.height];
  const side = Math.min(w, h);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, (w - side) / 2, (h - side) / 2, side, side, 0, 0, SIDE, SIDE);
}

const place = ({ offsetX, offsetY }) => ({
  x: (offsetX / canvas.clientWidth) * SIDE,
  y: (offsetY / canvas.clientHeight) * SIDE,
});

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  last = null;
  stroke(place(event));
});
canvas.addEventListener("pointermove", (event) => event.buttons && last && stroke(place(event)));
for (const name of ["pointerup", "pointercancel"])
  canvas.addEventListener(name, () => {
    last = null;
  });
canvas.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const step = by[event.key] ?? (event.key === " " && [0, 0]);
  if (!step) return;
  event.preventDefault();
  const draws = event.key === " " || event.shiftKey;
  last = draws ? { ...hand } : null;
  hand.x = Math.max(0, Math.min(SIDE, hand.x + 8 * step[0]));
  hand.y = Math.max(0, Math.min(SIDE, hand.y + 8 * step[1]));
  if (draws) stroke(hand);
  last = null;
  canvas.style.setProperty("--x", `${(100 * hand.x) / SIDE}%`);
  canvas.style.setProperty("--y", `${(100 * hand.y) / SIDE}%`);
});
for (const button of element.querySelectorAll(".colour"))
  button.addEventListener("click", () => choose(button.dataset.colour));
part(".fill").addEventListener("click", () => fill(colour));
part(".clear").addEventListener("click", () => fill("#000000"));
part(".open").addEventListener("click", () => part("input[type=file]").click());
part("input[type=file]").addEventListener("change", async ({ target }) => {
  const [file] = target.files;
  target.value = "";
  if (!file) return;
  const picture = await createImageBitmap(file).catch(() => null);
  part(".open").textContent = picture ? "Picture…" : "Not a picture…";
  if (picture) lay(picture);
});

fill("#000000");
choose(colour);
const block = element.closest(".block");
block.source = () =>
  JSON.stringify({ picture: canvas.toDataURL("image/png"), t: part(".t").value });
globalThis.ddpmPad = {
  /** Put a picture on the pad, to be noised to t. */
  take(picture, t) {
    lay(picture);
    part(".t").value = t;
  },
};
