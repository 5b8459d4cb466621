// The browser's half of the player (player.py is the other): keeps the frames of a run, shows and
// replays them, and asks the server only to make files. Gradio runs this once a component and
// gives it `element`, `props`, `server` and `watch`.

const FPS = 15; // frames a second at speed 1, unless a run has its own
const MESSAGE_MS = { least: 140, most: 1200 }; // from one message of a live run to the next
const GAP = 1; // pixels between pictures, in pixels of a picture
const SPOKEN_EVERY = 5000; // ms between two spoken progress reports
const FILM_FRAMES = 120;
const FILM_CHARS = 40e6; // the server refuses more than 48e6 characters of base64
const SNAPSHOTS = 10; // in a strip
const STORED_CHARS = 4.5e6; // browsers keep some 5e6 characters for a tab
const SETTLED_MS = 400; // a wait that is over sooner is not told

const root = element.querySelector(".ddpm-player");
const part = (name) => root.querySelector(`[data-part=${name}]`);
const [stage, slider, speed] = [part("stage"), part("slider"), part("speed")];

let run = null; // the header: n, h, w, c, columns, panels, total, unit, title, meta
let frames = []; // {step, t, s, d}; d is base64 of uint8 [panel][n][h][w][c], decoded when painted
let views = []; // a {canvas, image, context, label} for each panel
let at = 0; // the frame shown
let one = null; // the number of the picture shown alone; null: all of them
let live = false; // frames may still come
let came = 0; // when the last message did
let pace = 0; // milliseconds from one live frame to the next
let chasing = 0; // the timer of the next one
let follow = true; // show each new frame as it comes
let playback = null; // {from, since}: the frame and the time at which playing began
let note = { text: "", until: 0 }; // a sentence shown in place of the progress
let place = 0; // in the server's queue, from 1; 0: not in it
let queued = 0; // the same, as it is told
let queueing = 0; // the timer that tells it
let ending = 0; // the timer that tells of an early end
let saving = false;
let painting = 0;
let spoken = 0;

// --- pictures -------------------------------------------------------------------------------

function build(labels) {
  stage.querySelectorAll("figure").forEach((figure) => figure.remove());
  views = labels.map((label) => {
    const figure = document.createElement("figure");
    figure.innerHTML =
      '<figcaption></figcaption><div class="ddpm-box"><canvas role="img"></canvas></div>';
    figure.firstChild.textContent = label;
    stage.append(figure);
    const canvas = figure.querySelector("canvas");
    canvas.setAttribute("aria-label", `${label}: nothing yet`);
    canvas.addEventListener("click", (event) => pickAt(canvas, event));
    resizes.observe(canvas.parentElement);
    return { canvas, label, context: canvas.getContext("2d") };
  });
}

function layout() {
  const columns = one === null ? run.columns : 1;
  const rows = one === null ? Math.ceil(run.n / columns) : 1;
  for (const view of views) {
    view.canvas.width = columns * (run.w + GAP) - GAP;
    view.canvas.height = rows * (run.h + GAP) - GAP;
    view.image = view.context.createImageData(view.canvas.width, view.canvas.height);
  }
  fit();
}

function fit() {
  // A whole number of screen pixels for each pixel of a picture, unless that wastes much room.
  for (const { canvas } of run ? views : []) {
    const { clientWidth, clientHeight } = canvas.parentElement;
    const ratio = window.devicePixelRatio || 1;
    const room = ratio * Math.min(clientWidth / canvas.width, clientHeight / canvas.height);
    const scale = Math.floor(room) < 0.92 * room ? room : Math.floor(room);
    canvas.style.width = `${(scale * canvas.width) / ratio}px`;
    canvas.style.height = `${(scale * canvas.height) / ratio}px`;
  }
}

function draw({ image, context }, raw, start) {
  const { n, h, w, c } = run;
  const columns = one === null ? run.columns : 1;
  const out = image.data;
  for (let k = 0; k < n; k++) {
    if (one !== null && k !== one) continue;
    const cell = one === null ? k : 0;
    let from = start + k * h * w * c;
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
  context.putImageData(image, 0, 0);
}

function paint() {
  painting = 0;
  const frame = frames[at];
  if (!frame) return;
  const raw = atob(frame.d);
  const what = one === null ? `${run.n} pictures` : `picture ${one + 1} of ${run.n}`;
  views.forEach((view, p) => {
    draw(view, raw, p * run.n * run.h * run.w * run.c);
    view.canvas.setAttribute("aria-label", `${view.label}: ${what} at ${moment(frame)}`);
  });
  element.dataset.step = frame.step;
}

function show(i) {
  at = Math.max(0, Math.min(i, frames.length - 1));
  painting ||= requestAnimationFrame(paint);
  refresh();
}

// --- words and buttons ----------------------------------------------------------------------

const moment = ({ step, t }) =>
  `${run.unit} ${step} / ${run.total}` + (t === null ? "" : ` · t = ${t}`);
const seconds = (s) => (s < 9.95 ? s.toFixed(1) : Math.round(s)) + " s";

const ordinal = new Intl.PluralRules("en", { type: "ordinal" });
const ENDINGS = { one: "st", two: "nd", few: "rd", other: "th" };
const waiting = () =>
  queued && `You are ${queued}${ENDINGS[ordinal.select(queued)]} in the queue. It starts by itself.`;

function progress() {
  if (performance.now() < note.until) return note.text;
  const frame = frames[at];
  if (!frame) return run ? "Starting …" : "";
  const { step, s } = frames.at(-1);
  const words = [moment(frame), seconds(frame.s)];
  if (live && follow && step) words.push(`about ${seconds((s * (run.total - step)) / step)} left`);
  if (live && !follow) words.push(`still running, ${run.unit} ${step}`);
  return words.join(" · ");
}

function tell(text, ms = Infinity) {
  note = { text, until: performance.now() + ms };
  say(text, true);
}

function say(text, now = false) {
  // To screen readers: seldom, for it interrupts.
  if (!now && performance.now() - spoken < SPOKEN_EVERY) return;
  spoken = performance.now();
  part("spoken").textContent = text;
}

function refresh() {
  const last = frames.length - 1;
  const empty = last < 0;
  const words = progress();
  root.querySelectorAll("button, input, select").forEach((control) => (control.disabled = empty));
  root.querySelectorAll("[data-save]").forEach((button) => (button.disabled = empty || saving));
  part("live").disabled = !live;
  part("live").setAttribute("aria-pressed", live && follow);
  part("play").setAttribute("aria-label", playback ? "Pause" : "Play");
  part("one").setAttribute("aria-pressed", one !== null);
  part("empty").hidden = run !== null && !queued;
  part("empty").textContent = waiting() || props.empty;
  part("empty").classList.toggle("ddpm-over", run !== null);
  part("title").textContent = run?.title ?? "";
  part("status").textContent = words;
  slider.max = run?.total ?? 1;
  slider.value = frames[at]?.step ?? 0;
  slider.style.setProperty("--shown", slider.value / slider.max);
  slider.style.setProperty("--here", (frames[last]?.step ?? 0) / slider.max);
  slider.setAttribute("aria-valuetext", empty ? "" : moment(frames[at]));
  element.dataset.frames = frames.length;
  element.dataset.state = playback ? "playing" : live && follow ? "live" : run ? "paused" : "empty";
  if (live && follow) say(words);
}

// --- moving through a run -------------------------------------------------------------------

function go(i) {
  // By hand: leaves live and playing; the newest frame takes up live again.
  playback = null;
  follow = live && i >= frames.length - 1;
  note.until = 0;
  show(i);
}

function play() {
  if (playback) return go(at);
  follow = false;
  note.until = 0;
  playback = { from: at < frames.length - 1 ? at : 0, since: performance.now() };
  requestAnimationFrame(tick);
  refresh();
}

function tick(now) {
  if (!playback) return;
  const gone = Math.max(0, now - playback.since) / 1000;
  const next = playback.from + Math.floor(gone * (run.fps ?? FPS) * Number(speed.value));
  if (next >= frames.length - 1) return go(frames.length - 1);
  if (next !== at) show(next);
  requestAnimationFrame(tick);
}

function toggleOne(k) {
  one = one === null ? k : null;
  layout();
  show(at);
}

function pickAt(canvas, { offsetX, offsetY }) {
  if (!frames.length) return;
  const x = Math.floor((offsetX / canvas.clientWidth) * run.columns);
  const y = Math.floor((offsetY / canvas.clientHeight) * Math.ceil(run.n / run.columns));
  toggleOne(Math.min(y * run.columns + x, run.n - 1));
}

const actions = {
  first: () => go(0),
  back: () => go(at - 1),
  play,
  next: () => go(at + 1),
  last: () => go(frames.length - 1),
  live: () => go(frames.length - 1),
  one: () => toggleOne(0),
};
const keys = {
  " ": actions.play,
  ArrowLeft: actions.back,
  ArrowRight: actions.next,
  Home: actions.first,
  End: actions.last,
  Escape: () => one !== null && toggleOne(0),
};

for (const [name, act] of Object.entries(actions)) part(name).addEventListener("click", act);
slider.addEventListener("input", () => {
  const step = Number(slider.value);
  go(frames.findLastIndex((frame) => frame.step <= step));
});
speed.addEventListener("change", () => {
  if (playback) playback = { from: at, since: performance.now() };
});
root.addEventListener("keydown", (event) => {
  const { key, target } = event;
  const own = target === speed || (key === " " && target.tagName === "BUTTON"); // has its own use
  if (!keys[key] || !frames.length || own || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  keys[key]();
});

// --- files ----------------------------------------------------------------------------------

function evenly(count) {
  const last = frames.length - 1;
  if (count > last) return frames;
  return Array.from({ length: count }, (_, i) => frames[Math.round((i * last) / (count - 1))]);
}

function download({ name, mime, data }) {
  const raw = atob(data);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes], { type: mime }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function save(kind) {
  const most = Math.min(FILM_FRAMES, Math.floor(FILM_CHARS / frames[0].d.length));
  const wanted =
    kind === "png"
      ? [frames[at]]
      : evenly(Math.max(2, kind === "strip" ? Math.min(most, SNAPSHOTS) : most));
  saving = true;
  const megabytes = (wanted.length * frames[0].d.length) / 1e6;
  tell(`Making the file (sending ${megabytes.toFixed(1)} MB) …`);
  refresh();
  const reply = await server.export_film({ kind, run, one, frames: wanted });
  saving = false;
  if (reply?.data) download(reply);
  tell(reply?.data ? `Saved ${reply.name}` : (reply?.error ?? "The server did not answer."), 5000);
  refresh();
}

root.querySelectorAll("[data-save]").forEach((button) => {
  button.addEventListener("click", () => save(button.dataset.save));
});

// --- messages from the server ---------------------------------------------------------------

function begin(header) {
  run = header;
  frames = [];
  at = 0;
  live = follow = true;
  playback = null;
  note.until = 0;
  if (one !== null && one >= run.n) one = null;
  if (run.panels.join("\n") !== views.map(({ label }) => label).join("\n")) build(run.panels);
  const rows = Math.ceil(run.n / run.columns);
  root.style.setProperty("--ratio", (run.columns * run.w) / (rows * run.h));
  layout();
  say(run.title || "Started", true);
}

function receive() {
  const message = props.value ? JSON.parse(props.value) : {};
  if (message.run) begin(message.run);
  if (run) frames.push(...(message.frames ?? []));
  if (live && frames.at(-1)?.step >= run.total) {
    live = false;
    say("Finished", true);
  }
  if (message.note) {
    live = false;
    tell(message.note);
  }
  if (!follow || !frames.length) return refresh();
  const gap = performance.now() - came;
  came += gap;
  const shown = Math.min(MESSAGE_MS.most, Math.max(MESSAGE_MS.least, gap));
  pace = shown / Math.max(1, frames.length - 1 - at);
  chase();
}

function chase() {
  // The frames of a message came together; live, they are shown one after the other.
  clearTimeout(chasing);
  if (!follow) return;
  show(live ? Math.min(at + 1, frames.length - 1) : frames.length - 1);
  if (at < frames.length - 1) chasing = setTimeout(chase, pace);
}

// --- what Gradio knows of the run, and tells no component -------------------------------------

const block = element.closest(".block");
const tracker = block.querySelector("[data-testid=status-tracker]"); // there, but not shown

function look() {
  const told = Number(/queue: (\d+)\//.exec(tracker.textContent)?.[1] ?? 0);
  if (told !== place) {
    place = told;
    clearTimeout(queueing);
    queueing = setTimeout(wait, queued || !place ? 0 : SETTLED_MS);
  }
  const over = tracker.classList.contains("hide") || tracker.querySelector(".error");
  clearTimeout(ending);
  if (over && live) ending = setTimeout(end, SETTLED_MS);
}

function wait() {
  queued = place;
  if (queued) say(waiting(), true);
  refresh();
}

function end() {
  if (!live) return;
  live = false;
  tell(`The run ended early, at ${run.unit} ${frames.at(-1)?.step ?? 0} of ${run.total}.`);
  refresh();
}

if (tracker) {
  const changes = { subtree: true, childList: true, characterData: true, attributes: true };
  new MutationObserver(look).observe(tracker, changes);
}

// --- a page that is loaded anew: Gradio does so when the server was gone and is back ----------

addEventListener("pagehide", () => {
  if (frames.length < 2) return;
  const most = Math.floor(STORED_CHARS / frames[0].d.length);
  for (let count = Math.min(most, frames.length); count > 1; count = Math.floor(count / 2)) {
    try {
      sessionStorage.setItem(`ddpm-${block.id}`, JSON.stringify({ run, frames: evenly(count) }));
      return;
    } catch {
      continue; // too many, or no storage at all
    }
  }
});

function restore() {
  let kept = null;
  try {
    kept = JSON.parse(sessionStorage.getItem(`ddpm-${block.id}`));
  } catch {
    return; // no storage
  }
  if (!kept) return;
  begin(kept.run);
  frames = kept.frames;
  live = false;
  const { step } = frames.at(-1);
  const ended = step < run.total ? `, which ended at ${run.unit} ${step} of ${run.total}` : "";
  tell(`The page was loaded anew and has kept your last run${ended}.`);
  show(frames.length - 1);
}

const resizes = new ResizeObserver(fit);
build(props.labels);
refresh();
watch("value", receive);
restore();
receive();
