// Files to save: the server makes them of frames that the page sends back.

const FILM_FRAMES = 120; // the server refuses more frames,
const FILM_CHARS = 40e6; // and more than 48e6 characters of base64
const SNAPSHOTS = 10; // in a strip

/**
 * The frames that a file is made of.
 * @param {Recording} recording
 * @param {string} kind as in `export.MIMES`
 * @param {number} at the frame that is shown
 */
export function framesOf(recording, kind, at) {
  if (kind === "png") return [recording.frames[at]];
  const most = Math.min(FILM_FRAMES, Math.floor(FILM_CHARS / recording.frames[0].d.length));
  return recording.evenly(Math.max(2, kind === "strip" ? Math.min(most, SNAPSHOTS) : most));
}

/**
 * A run with only some of its panes, as the server takes it.
 * @param {Header} header
 * @param {Frame[]} frames
 * @param {{ name: string, label: string }[]} panes
 */
export function cut(header, frames, panes) {
  if (panes.map(({ name }) => name).join() === header.panes.join()) return { run: header, frames };
  const size = header.n * header.h * header.w * header.c;
  const bytes = (raw, z, name) => {
    if (name === "z") return z ? atob(z) : "\x80".repeat(size);
    const k = header.panes.indexOf(name);
    return raw.slice(k * size, (k + 1) * size);
  };
  const run = { ...header, panels: panes.map(({ label }) => label), updates: undefined };
  const cutFrames = frames.map(({ step, t, d, z }) => {
    const raw = atob(d);
    return { step, t, d: btoa(panes.map(({ name }) => bytes(raw, z, name)).join("")) };
  });
  return { run, frames: cutFrames };
}

/** Hand a file to the browser. */
export function download({ name, mime, data }) {
  const bytes = Uint8Array.from(atob(data), (char) => char.charCodeAt(0));
  offerFile(new Blob([bytes], { type: mime }), name);
}

export function offerFile(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
