// A step's update as a line of maths (MathML) and in words.

/**
 * @typedef {[name: string, coefficient: number]} Term as in `walk.Term`
 */

const hat = (letter) =>
  `<mover accent="true"><mi>${letter}</mi><mo stretchy="false">^</mo></mover>`;
const at = (symbol, t) => `<msub>${symbol}<mn>${t}</mn></msub>`;

/** Each term's pane, symbol and words, where the step goes from t to s and the one before from r. */
const TERMS = {
  x_t: ["x_t", (t) => at("<mi>x</mi>", t), () => "this picture"],
  "x_t corrected": [
    "x_t",
    (t) => at('<mover accent="true"><mi>x</mi><mo>~</mo></mover>', t),
    () => "this picture, corrected",
  ],
  x0_hat: ["x0_hat", () => at(hat("x"), 0), () => "the network’s guess"],
  "x0_hat before": [
    "x0_hat",
    (_t, _s, r) =>
      `<msubsup>${hat("x")}<mn>0</mn><mrow><mo>(</mo><mn>${r}</mn><mo>)</mo></mrow></msubsup>`,
    (_t, _s, r) => `its guess at t = ${r}`,
  ],
  "x0_hat at s": [
    "x0_hat",
    (_t, s) =>
      `<msubsup>${hat("x")}<mn>0</mn><mrow><mo>(</mo><mn>${s}</mn><mo>)</mo></mrow></msubsup>`,
    (_t, s) => `a second guess, at t = ${s}`,
  ],
  eps_hat: ["eps_hat", () => hat("ε"), () => "the predicted noise"],
  z: ["z", () => "<mi>z</mi>", () => "fresh noise"],
};

const UNKNOWN = (name) => [name, () => `<mtext>${name.replace(/[<&]/g, "")}</mtext>`, () => name];

/** The pane that shows a term, its symbol and its words. */
export function termOf(name) {
  return TERMS[name] ?? UNKNOWN(name);
}

/** Three decimals, or two digits of a small number. */
export function brief(number) {
  const small = number !== 0 && Math.abs(number) < 0.01;
  return small ? String(Number(number.toPrecision(2))) : number.toFixed(3);
}

/** The sign before a term, and its size. */
export function signed(number, first) {
  const sign = number < 0 ? "−" : first ? "" : "+";
  return [sign, brief(Math.abs(number))];
}

/** The steps' t around number k: from t to s, and r before. */
export function around({ t }, k) {
  return [t[k], t[k + 1], t[k - 1]];
}

/** Such as x₃₈₀ = 0.102 x̂₀ + 0.896 x₄₀₀ + 0.200 z, in the panes' colours. */
export function lineOfMaths(updates, k) {
  const times = around(updates, k);
  const terms = updates.lines[k].map(([name, coefficient], i) => {
    const [pane, symbol] = termOf(name);
    const [sign, size] = signed(coefficient, i === 0);
    const shown = sign ? `<mo>${sign}</mo>` : "";
    return `${shown}<mn>${size}</mn><mspace width="0.2em"/><mrow class="ddpm-of-${pane}">${symbol(...times)}</mrow>`;
  });
  return `<math><mrow>${at("<mi>x</mi>", times[1])}<mo>=</mo>${terms.join("")}</mrow></math>`;
}

/** The same as a sentence. */
export function lineOfWords(updates, k) {
  const times = around(updates, k);
  const terms = updates.lines[k].map(([name, coefficient], i) => {
    const [sign, size] = signed(coefficient, i === 0);
    const word = { "−": i ? "minus " : "−", "+": "plus " }[sign] ?? "";
    return `${word}${size} of ${termOf(name)[2](...times)}`;
  });
  return `Next: ${terms.join(" ")}.`;
}
