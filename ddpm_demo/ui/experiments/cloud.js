// Points are drawn on a field, and written into the text box that the run reads.

const canvas = element.querySelector("canvas");
const context = canvas.getContext("2d");
const REACH = 2.6; // of the plane, as in its plots
const MOST = 200; // points
const APART = 0.12; // of two that one stroke draws
const box = () => document.querySelector(`#${props.box} :is(input, textarea)`);

function points() {
  const words = box()?.value.split(";") ?? [];
  return words.map((word) => word.split(",").map(Number)).filter((p) => p.length === 2);
}

function show() {
  const style = getComputedStyle(element);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = style.getPropertyValue("--primary-600") || "#0d9488";
  for (const [x, y] of points()) {
    context.beginPath();
    const across = ((x / REACH + 1) / 2) * canvas.width;
    const down = ((1 - y / REACH) / 2) * canvas.height;
    context.arc(across, down, 3, 0, 2 * Math.PI);
    context.fill();
  }
}

function write(list) {
  box().value = list.map((p) => p.join(",")).join(";");
  box().dispatchEvent(new Event("input", { bubbles: true }));
  show();
}

function add({ offsetX, offsetY }) {
  const x = (2 * (offsetX / canvas.clientWidth) - 1) * REACH;
  const y = (1 - 2 * (offsetY / canvas.clientHeight)) * REACH;
  const list = points();
  const near = list.some(([a, b]) => Math.hypot(a - x, b - y) < APART);
  if (!near && list.length < MOST) write([...list, [Number(x.toFixed(2)), Number(y.toFixed(2))]]);
}

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  add(event);
});
canvas.addEventListener("pointermove", (event) => event.buttons && add(event));
canvas.addEventListener("pointerenter", show);
element.querySelector("button").addEventListener("click", () => write([]));
document.addEventListener("input", ({ target }) => target === box() && show());
