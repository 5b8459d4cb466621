// The runs that share a past, as a tree along the timeline: each leaves the run that it goes on from
// at the step where it does. A click on a run shows it; the lists below do the same by keyboard.

const TREE_ROW = 14; // pixels of a run
const TREE_WIDE = 1000;

/** @param {Recording} run with `since` in its header, if it goes on from another */
function treePath(run, k, runs) {
  const { since, total } = run.header;
  const x = (step) => ((TREE_WIDE * step) / total).toFixed(1);
  const y = (row) => TREE_ROW * (row + 0.5);
  const parent = since ? runs.findIndex(({ header }) => header.id === since.id) : -1;
  const first = parent < 0 ? run.frames[0]?.step : since.step;
  const start = `M${x(first ?? 0)} ${y(parent < 0 ? k : parent)}`;
  return `${start}V${y(k)}H${x(run.last?.step ?? first ?? 0)}`;
}

/**
 * @param {SVGElement} svg
 * @param {Recording[]} runs oldest first
 * @param {{names: string[], shown: Recording, other: Recording | null, step: number}} what
 */
export function drawTree(svg, runs, { names, shown, other, step }) {
  svg.setAttribute("viewBox", `0 0 ${TREE_WIDE} ${TREE_ROW * runs.length}`);
  svg.style.height = `${TREE_ROW * runs.length}px`;
  const kind = (run) => (run === shown ? "shown" : run === other ? "other" : "");
  const lines = runs.map((run, k) => {
    const d = treePath(run, k, runs);
    return `<g data-run="${k}" class="${kind(run)}"><title></title><path d="${d}"/><path class="wide" d="${d}"/></g>`;
  });
  const x = ((TREE_WIDE * step) / shown.header.total).toFixed(1);
  svg.innerHTML = `${lines.join("")}<line x1="${x}" x2="${x}" y1="0" y2="${TREE_ROW * runs.length}"/>`;
  svg.querySelectorAll("title").forEach((title, k) => {
    title.textContent = names[k];
  });
  const name = names[runs.indexOf(shown)];
  svg.setAttribute("aria-label", `Tree of ${runs.length} runs; shown is ${name}`);
}
