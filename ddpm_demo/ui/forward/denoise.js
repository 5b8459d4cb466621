// --- from here to Generate: the picture, noised to t, is denoised by a model ---

const GENERATE_T = 1000; // of the models there; another T here is scaled to it

/** Once `find` finds something; nothing after some seconds. */
async function once(find) {
  for (let tries = 100; tries; tries--) {
    const found = find();
    if (found) return found;
    await new Promise((done) => setTimeout(done, 50));
  }
  return null;
}

/** The picture as it is without noise. */
function clean() {
  const sheet = document.createElement("canvas");
  put(sheet, noised(data.views[0], 0).image);
  return sheet;
}

/** The t of a model that is as far as the slider's. */
const there = () => Math.max(1, Math.round((t * GENERATE_T) / data.T));

async function denoiseFromHere() {
  stop();
  generateTab().click();
  const box = await once(() => document.querySelector("#from-picture"));
  box?.querySelector("button.label-wrap:not(.open)")?.click();
  const pad = await once(() => document.querySelector("#pad canvas") && globalThis.ddpmPad);
  pad?.take(clean(), String(there()));
  const button = await once(() => document.querySelector("#denoise:not([disabled])"));
  button?.click();
}

const generateTab = () =>
  [...document.querySelectorAll("[role=tab]")].find((tab) => tab.textContent.trim() === "Generate");

q(".denoise").addEventListener("click", denoiseFromHere);
element.closest(".block").shot = () =>
  JSON.stringify({ picture: clean().toDataURL("image/png"), t: String(there()) });
requestAnimationFrame(() => {
  q(".denoise").hidden = !generateTab();
});
