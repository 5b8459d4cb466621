// --- t in the page's address, which holds what the controls say, too ---

const links = globalThis.ddpmLinks;
let wanted = null; // what a link asks for, until there is a picture

function follow() {
  if (wanted === null || !element.dataset.ready) return;
  go(wanted);
  wanted = null;
}

async function copyLink() {
  const own = links.query("forward").get("picture") === "own";
  const said = await links.copy(q(".link"));
  q(".said").textContent = own ? `${said} Your own picture is not in it.` : said;
}

if (links) {
  links.opened.then(({ page }) => {
    wanted = page.forward?.t ?? null;
    follow();
  });
  new MutationObserver(() => {
    follow();
    const usual = t === Math.round(0.4 * data.T);
    if (wanted === null && !playing) links.set("forward", { t: usual ? null : t });
  }).observe(element, { attributes: true, attributeFilter: ["data-shown", "data-ready"] });
  q(".link").addEventListener("click", copyLink);
} else q(".link").hidden = true;

// --- the stage alone; its keys are the slider's ---

new Present(
  q(".stage"),
  () => Boolean(data.x0),
  (link) => server.qr_code(link),
);
q(".stage").addEventListener("focus", () => slider.focus());
