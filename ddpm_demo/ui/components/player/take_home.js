// A run as a file that opens from disk: it holds the guesses x̂₀ and ε̂ of each step, from which the
// page in it derives x_t and the fresh noise.

import { offerFile } from "./files.js";
import { Recording } from "./recording.js";

const EPS_RANGE = 3; // ε̂ is seen from -3 to 3, and all else from -1 to 1
const MOST_CHARS = 8e6; // of base64 in a file; a longer run gives fewer frames
const STORED = ["x0_hat", "eps_hat"];

const bytesOf = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));

function textOf(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; i += 32768) {
    text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  }
  return btoa(text);
}

const sizeOf = ({ n, h, w, c }) => n * h * w * c;

/** Pack a run for a file: without the panes that the file can compute from others, if it can. */
export function pack({ header, frames }) {
  const size = sizeOf(header);
  const derived = header.updates && ["x_t", ...STORED].every((name) => header.panes.includes(name));
  const each = (derived ? STORED.length : header.panes.length) * size * (4 / 3);
  const kept = new Recording(header, frames).evenly(Math.max(2, Math.floor(MOST_CHARS / each)));
  const run = { ...header, total: kept.at(-1).step }; // a run that was stopped ends there
  if (!derived) return { run, frames: kept };
  const of = (all, name) => {
    const k = header.panes.indexOf(name);
    return all.subarray(k * size, (k + 1) * size);
  };
  const packed = kept.map(({ step, t, s, d }) => {
    const all = bytesOf(d);
    const out = new Uint8Array(2 * size);
    STORED.forEach((name, i) => {
      out.set(of(all, name), i * size);
    });
    return { step, t, s, d: textOf(out) };
  });
  const last = textOf(of(bytesOf(kept.at(-1).d), "x_t"));
  return { run, frames: packed, last };
}

/** The frames of a file as the player takes them: with x_t, and with the noise of each step. */
export function unpack({ run, frames, last }) {
  if (!last) return new Recording(run, frames);
  const size = sizeOf(run);
  const values = frames.map(({ step, d }, i) => {
    const all = bytesOf(d);
    const bar = run.updates.alpha_bar[step];
    const x0_hat = Float32Array.from(all.subarray(0, size), (level) => level / 127.5 - 1);
    const eps_hat = Float32Array.from(all.subarray(size), (v) => EPS_RANGE * (v / 127.5 - 1));
    const x_t =
      i === frames.length - 1
        ? Float32Array.from(bytesOf(last), (level) => level / 127.5 - 1)
        : x0_hat.map((x, k) => Math.sqrt(bar) * x + Math.sqrt(1 - bar) * eps_hat[k]);
    return { x_t, x0_hat, eps_hat };
  });
  const full = frames.map((frame, i) => {
    const all = new Uint8ClampedArray(3 * size); // rounds, and clips
    run.panes.forEach((name, k) => {
      const scale = name === "eps_hat" ? 127.5 / EPS_RANGE : 127.5;
      all.set(
        values[i][name].map((v) => scale * v + 127.5),
        k * size,
      );
    });
    const next = frames[i + 1]?.step === frame.step + 1 ? values[i + 1] : null;
    const z = next && noise(run.updates.lines[frame.step], values[i], next.x_t);
    return { ...frame, d: textOf(all), ...(z && { z: textOf(z) }) };
  });
  return new Recording(run, full);
}

/** σ z: what the next picture has besides the other terms of the line; nothing if it has no z. */
function noise(line, now, next) {
  if (!line.some(([name]) => name === "z")) return null;
  const rest = line.filter(([name]) => name !== "z");
  if (!rest.every(([name]) => name in now)) return null;
  const left = next.map((v, k) => rest.reduce((sum, [name, c]) => sum - c * now[name][k], v));
  return Uint8ClampedArray.from(left, (v) => 127.5 * v + 127.5);
}

/** Save a file of the run: the server gives the page, and this browser puts the run into it. */
export async function saveWebPage({ recording, server }) {
  const sampler = recording.header.updates?.sampler;
  const [shell, code] = await Promise.all([
    server.web_page(null),
    sampler ? server.sampler_code(sampler) : {},
  ]);
  const text = JSON.stringify({ ...pack(recording), code }).replaceAll("<", "\\u003c");
  const { model = "run", sampler: way, steps, seed } = recording.header.meta;
  const name = [model, way, steps, `seed${seed}`].filter(Boolean).join("-");
  const file = `${name.replace(/[^\w.-]+/g, "_")}.html`;
  const whole = shell.replace("/*RUN*/", () => text);
  offerFile(new Blob([whole], { type: "text/html" }), file);
  return file;
}

/** Start the player in a saved file. It answers what the server would answer. */
export function openFile(start) {
  const data = JSON.parse(document.getElementById("run").textContent);
  const recording = unpack(data);
  const { header, frames } = recording;
  document.title = header.title || "A run";
  document.querySelector("h1").textContent = document.title;
  const list = document.querySelector("dl");
  for (const [name, value] of Object.entries(header.meta ?? {})) {
    const [term, said] = [document.createElement("dt"), document.createElement("dd")];
    [term.textContent, said.textContent] = [name, value];
    list.append(term, said);
  }
  const value = JSON.stringify({ run: header, frames });
  const props = {
    value,
    labels: header.panels,
    panes: header.panes,
    step: Boolean(header.updates),
    empty: "",
  };
  const server = { sampler_code: async () => data.code };
  start({ element: document.querySelector("main"), props, server, watch() {}, trigger() {} });
}
