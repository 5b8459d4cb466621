// What Gradio knows of a run and tells no component, and what a page keeps when it is loaded anew.

import { Recording } from "./recording.js";

const SETTLED_MS = 400; // a wait that is over sooner is not told
const STORED_CHARS = 4.5e6; // browsers keep some 5e6 characters for a tab

/**
 * Watch Gradio's own status of a component; it is there, but not shown.
 * @param {Element} block
 * @param {(place: number) => void} queued called with the place in the queue; 0: not in it
 * @param {() => void} over called when no more messages come
 */
export function watchStatus(block, queued, over) {
  const tracker = block.querySelector("[data-testid=status-tracker]");
  if (!tracker) return;
  let place = 0;
  let told = 0;
  let queueing = 0;
  let ending = 0;

  function tell() {
    told = place;
    queued(place);
  }

  function look() {
    const now = Number(/queue: (\d+)\//.exec(tracker.textContent)?.[1] ?? 0);
    if (now !== place) {
      place = now;
      clearTimeout(queueing);
      queueing = setTimeout(tell, told || !place ? 0 : SETTLED_MS);
    }
    clearTimeout(ending);
    if (tracker.classList.contains("hide") || tracker.querySelector(".error")) {
      ending = setTimeout(over, SETTLED_MS);
    }
  }

  const changes = { subtree: true, childList: true, characterData: true, attributes: true };
  new MutationObserver(look).observe(tracker, changes);
}

/** Keep a run for the time that a page takes to load; fewer frames of it where there is no room. */
export function keep(key, recording, chars = STORED_CHARS) {
  const { header, frames } = recording;
  const most = Math.floor(chars / frames[0].d.length);
  for (let count = Math.min(most, frames.length); count > 1; count = Math.floor(count / 2)) {
    try {
      sessionStorage.setItem(key, JSON.stringify({ run: header, frames: recording.evenly(count) }));
      return;
    } catch {} // too many, or no storage at all
  }
}

/** The run that was kept; nothing if there is none. */
export function kept(key) {
  try {
    const { run, frames } = JSON.parse(sessionStorage.getItem(key)) ?? {};
    return run && new Recording({ panes: run.panels, ...run }, frames);
  } catch {
    return null; // no storage
  }
}

/** As `keep`, with the runs beside it, of which x_t alone is shown. */
export function keepAll(key, recording, beside) {
  const own = beside.length ? 0.7 * STORED_CHARS : STORED_CHARS;
  try {
    for (const name of Object.keys(sessionStorage))
      if (name.startsWith(`${key}-beside`)) sessionStorage.removeItem(name);
  } catch {} // no storage
  if (recording) keep(key, recording, own);
  beside.forEach((run, k) => {
    keep(`${key}-beside${k}`, first(run), (STORED_CHARS - own) / beside.length);
  });
}

/** The runs that were kept beside it. */
export function keptBeside(key) {
  return [0, 1, 2].map((k) => kept(`${key}-beside${k}`)).filter(Boolean);
}

/** A run with its first pane alone. */
function first({ header, frames }) {
  const size = header.n * header.h * header.w * header.c;
  const [panels, panes] = [header.panels, header.panes].map((all) => all.slice(0, 1));
  const cut = frames.map(({ step, t, s, d }) => ({ step, t, s, d: btoa(atob(d).slice(0, size)) }));
  return new Recording({ ...header, panels, panes }, cut);
}
