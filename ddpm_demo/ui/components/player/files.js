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

/** Hand a file to the browser. */
export function download({ name, mime, data }) {
  const bytes = Uint8Array.from(atob(data), (char) => char.charCodeAt(0));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes], { type: mime }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
