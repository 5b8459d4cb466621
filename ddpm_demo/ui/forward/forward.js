// What the page knows: the picture and its noise (from one message), the schedules (from another).
const data = { views: [], strip: [] };
const VIEWS = ["linear", "cosine"];
// The histogram: BINS bins of WIDTH from LOW on, and densities up to TOP.
const LOW = -4,
  BINS = 80,
  WIDTH = 0.1,
  TOP = 0.8;
const FILM_FRAMES = 100,
  FILM_CHARS = 32e6; // the server takes 128 frames and 48e6 characters
const DB = 60; // the SNR plot shows -DB..DB
const q = (selector) => element.querySelector(selector);
const all = (selector) => [...element.querySelectorAll(selector)];
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const slider = q(".t"),
  play = q(".play");
let t = null,
  request = 0,
  playing = 0,
  received = 0;

function bytes(encoded) {
  const text = atob(encoded),
    out = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) out[i] = text.charCodeAt(i);
  return out;
}

// x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps in levels 0..255, and its histogram.
function noised(view, at, { x0, eps, size, scale, tables } = data) {
  const bar = tables[view].alpha_bar[at];
  const image = new ImageData(size, size),
    out = image.data,
    counts = new Uint32Array(BINS);
  const signal = Math.sqrt(bar),
    noise = 127.5 * scale * Math.sqrt(1 - bar);
  const mid = 127.5 * (1 - signal);
  const perLevel = 1 / (127.5 * WIDTH),
    shift = -(1 + LOW) / WIDTH;
  for (let i = 0, o = 0; i < x0.length; o++) {
    for (let c = 0; c < 3; c++, i++, o++) {
      const level = signal * x0[i] + mid + noise * eps[i];
      out[o] = level; // rounds, and clips to 0..255
      const bin = level * perLevel + shift;
      if (bin >= 0 && bin < BINS) counts[bin | 0]++;
    }
    out[o] = 255;
  }
  return { image, counts };
}

function put(canvas, image) {
  if (canvas.width !== image.width) canvas.width = canvas.height = image.width;
  canvas.getContext("2d").putImageData(image, 0, 0);
}

const decibel = (bar) => 10 * Math.log10(bar / (1 - bar));
const minus = (text) => text.replace("-", "−");
const signed = (x) => (Number.isFinite(x) ? minus(x.toFixed(1)) : x > 0 ? "∞" : "−∞");
const figures = (x) => (x === 0 || x >= 0.001 ? x.toFixed(4) : minus(x.toExponential(1)));

// A line through y(i), i = 0..n, in a box of 100 x 100 whose y axis goes from bottom to top.
function line(n, y, bottom, top) {
  let path = "";
  for (let i = 0; i <= n; i++) {
    const height = Math.max(-1e4, Math.min(1e4, (100 * (top - y(i))) / (top - bottom)));
    path += `${i ? "L" : "M"}${((100 * i) / n).toFixed(2)} ${height.toFixed(2)}`;
  }
  return path;
}

function histogram(counts) {
  const total = WIDTH * data.x0.length;
  let path = "M0 100";
  counts.forEach((n, i) => {
    path += `V${(100 - (100 * n) / total / TOP).toFixed(2)}H${(100 * (i + 1)) / BINS}`;
  });
  return path + "V100Z";
}

function density(kind) {
  const p =
    kind === "laplace"
      ? (x) => Math.exp(-Math.SQRT2 * Math.abs(x)) / Math.SQRT2
      : (x) => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);
  return line(160, (i) => p(LOW + (i * BINS * WIDTH) / 160), 0, TOP);
}

// Everything that depends on t.
function paint() {
  request = 0;
  if (!data.x0) return; // the schedules may come first
  const x = (100 * t) / data.T,
    said = [];
  for (const view of data.views) {
    const bar = data.tables[view].alpha_bar[t],
      beta = data.tables[view].beta[t];
    const { image, counts } = noised(view, t);
    const box = q(`figure.${view}`),
      canvas = box.querySelector("canvas");
    const fill = (selector, text) => {
      box.querySelector(selector).textContent = text;
    };
    put(canvas, image);
    canvas.setAttribute("aria-label", `x_t at t = ${t}, ${view} schedule`);
    box.querySelector(".bars").setAttribute("d", histogram(counts));
    fill(".step", t);
    fill(".signal", Math.sqrt(bar).toFixed(3));
    fill(".noise", Math.sqrt(1 - bar).toFixed(3));
    fill(".bar", figures(bar));
    fill(".snr", `${signed(decibel(bar))} dB`);
    fill(".beta", t ? figures(beta) : "–");
    const dot = (top, bottom, y) => {
      const inside = Math.max(bottom, Math.min(top, y));
      return `M${x} ${(100 * (top - inside)) / (top - bottom)}h0`;
    };
    q(`.kept .dot.${view}`).setAttribute("d", dot(1, 0, bar));
    q(`.ratio .dot.${view}`).setAttribute("d", dot(DB, -DB, decibel(bar)));
    said.push(`${view}: alpha-bar ${figures(bar)}, SNR ${signed(decibel(bar))} dB`);
  }
  all(".cursor").forEach((cursor) => {
    cursor.setAttribute("d", `M${x} 0V100`);
  });
  slider.value = t;
  slider.style.setProperty("--at", `${x}%`);
  slider.setAttribute("aria-valuetext", `t = ${t} of ${data.T}; ${said.join("; ")}`);
  q(".now").textContent = t;
  all(".strips button").forEach((b) => {
    b.setAttribute("aria-pressed", +b.dataset.t === t);
  });
  element.dataset.shown = t; // for tests, as is the next: messages shown
  element.dataset.ready = received;
}

function go(to) {
  t = Math.max(0, Math.min(data.T, Math.round(to)));
  request ||= requestAnimationFrame(paint);
}

// The chosen timesteps, a row for each schedule; a click on one moves the slider there.
function fillStrips() {
  for (const view of data.views) {
    q(`.strips .${view} div`).replaceChildren(
      ...data.strip.map((at) => {
        const button = document.createElement("button"),
          canvas = document.createElement("canvas");
        button.type = "button";
        button.dataset.t = at;
        button.setAttribute("aria-label", `t = ${at}, ${view} schedule`);
        put(canvas, noised(view, at).image);
        button.append(canvas, String(at));
        return button;
      }),
    );
  }
}

function receive() {
  if (!props.value) return;
  const message = JSON.parse(props.value),
    { picture, schedules } = message;
  if (picture) {
    const eps = new Int16Array(bytes(picture.eps).buffer);
    Object.assign(data, picture, { x0: bytes(picture.x0), eps });
    const kind = data.noise === "laplace" ? "Laplace(0, 1/√2)" : "N(0, 1)";
    all(".outline").forEach((path) => {
      path.setAttribute("d", density(data.noise));
    });
    q(".kind").textContent = kind;
    q(".laplace").hidden = data.noise !== "laplace";
    q(".gaussian").hidden = data.noise === "laplace";
  }
  if (schedules) {
    const part = t === null ? 0.4 : t / data.T;
    Object.assign(data, schedules, { tables: {} });
    for (const [view, table] of Object.entries(schedules.tables)) {
      const [alpha_bar, beta] = [table.alpha_bar, table.beta].map(
        (encoded) => new Float64Array(bytes(encoded).buffer),
      );
      data.tables[view] = { alpha_bar, beta };
      q(`.kept .line.${view}`).setAttribute(
        "d",
        line(data.T, (i) => alpha_bar[i], 0, 1),
      );
      const ratio = line(data.T, (i) => decibel(alpha_bar[i]), -DB, DB);
      q(`.ratio .line.${view}`).setAttribute("d", ratio);
    }
    for (const view of VIEWS) {
      const hide = !data.views.includes(view);
      all(`.${view}`).forEach((node) => {
        node.toggleAttribute("hidden", hide);
      });
    }
    slider.max = data.T;
    all(".T").forEach((end) => {
      end.textContent = data.T;
    });
    go(part * data.T);
  }
  if (data.x0 && data.tables) {
    received++;
    fillStrips();
    go(t);
  }
}

function stop() {
  cancelAnimationFrame(playing);
  playing = 0;
  play.textContent = "Play";
}

// Runs t to T; with reduced motion in twenty still pictures instead of a film.
function start() {
  const from = t >= data.T ? 0 : t,
    began = performance.now(),
    seconds = +q(".speed").value;
  play.textContent = "Pause";
  const tick = (now) => {
    let at = from + ((now - began) / 1000 / seconds) * data.T;
    if (calm.matches) at = Math.floor((20 * at) / data.T) * (data.T / 20);
    go(at);
    if (at < data.T) playing = requestAnimationFrame(tick);
    else stop();
  };
  playing = requestAnimationFrame(tick);
}

const toggle = () => (playing ? stop() : start());
slider.addEventListener("input", () => {
  stop();
  go(+slider.value);
});
play.addEventListener("click", toggle);
element.addEventListener("keydown", (event) => {
  if (event.key !== " " || event.target.closest("button, select")) return;
  event.preventDefault();
  toggle();
});
all(".plot svg").forEach((plot) => {
  const move = (event) => {
    const box = plot.getBoundingClientRect();
    stop();
    go((data.T * (event.clientX - box.left)) / box.width);
  };
  plot.addEventListener("pointerdown", (event) => {
    plot.setPointerCapture(event.pointerId);
    move(event);
  });
  plot.addEventListener("pointermove", (event) => {
    if (event.buttons) move(event);
  });
});
q(".strips").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) {
    stop();
    go(+button.dataset.t);
  }
});

// --- files: the server makes them of frames that the page sends ---

function base64(raw) {
  let text = "";
  for (let i = 0; i < raw.length; i += 8192) {
    text += String.fromCharCode(...raw.subarray(i, i + 8192));
  }
  return btoa(text);
}

function frame(at, source) {
  const { views, size } = source,
    raw = new Uint8Array(views.length * size * size * 3);
  let i = 0;
  for (const view of views) {
    const rgba = noised(view, at, source).image.data;
    for (let o = 0; o < rgba.length; o += 4) {
      raw[i++] = rgba[o];
      raw[i++] = rgba[o + 1];
      raw[i++] = rgba[o + 2];
    }
  }
  return { step: at, t: at, d: base64(raw) };
}

async function save(kind) {
  const source = { ...data }; // the controls may change it meanwhile
  const { T, views, size, noise, seed } = source;
  const said = q(".said"),
    buttons = all("[data-save]"),
    suffix = kind === "strip" ? "png" : kind;
  const room = Math.floor(FILM_CHARS / (4 * views.length * size * size));
  const most = Math.min(FILM_FRAMES, T + 1, room);
  const film = Array.from({ length: most }, (_, i) => Math.round((i * T) / (most - 1)));
  const schedule = views.map((view) => source.about[view]).join("; ");
  const meta = { title: "DDPM forward process", schedule, T: `${T}`, noise, seed: `${seed}` };
  const run = { n: 1, h: size, w: size, c: 3, columns: 1, panels: views, unit: "t", meta };
  buttons.forEach((button) => {
    button.disabled = true;
  });
  said.textContent = "Making the file …";
  let reply = {};
  try {
    const frames = [];
    for (const at of kind === "strip" ? source.strip : film) {
      frames.push(frame(at, source));
      await new Promise((done) => {
        setTimeout(done);
      }); // or the page freezes
    }
    reply = await server.export_film({ kind, run, one: null, frames });
    if (reply.data) {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([bytes(reply.data)], { type: reply.mime }));
      link.download = `noising-${views.join("-")}-T${T}-${noise}-seed${seed}.${suffix}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    }
  } finally {
    said.textContent = reply.data ? "Saved." : (reply.error ?? "The server did not answer.");
    buttons.forEach((button) => {
      button.disabled = false;
    });
  }
}

q(".own").addEventListener("click", () => {
  document.querySelector("#forward-picture input[type=file]")?.click();
});

// Gradio's buttons with example pictures have no names.
function nameExamples() {
  document.querySelectorAll("#forward-examples button").forEach((button, i) => {
    if (NAMES[i]) button.setAttribute("aria-label", NAMES[i]);
  });
}
new MutationObserver(nameExamples).observe(document.body, { subtree: true, childList: true });
nameExamples();

all("[data-save]").forEach((button) => {
  button.addEventListener("click", () => save(button.dataset.save));
});

watch("value", receive);
receive();
