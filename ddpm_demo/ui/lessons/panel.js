// The lessons' panel: a card stands beside the app, and sets it up by links. What a card hides is
// covered until an answer is given; answers are kept in this browser alone.

import { LessonRoom } from "./room.js";

const KEY = "ddpm-lessons";

const root = element.querySelector(".ddpm-lessons");
const part = (name) => root.querySelector(`[data-part=${name}]`);
const shown = { lesson: null, name: "", at: 0 };
const above = matchMedia("(max-width: 999px)"); // the panel stands above the app, as in panel.css

/** What has been answered: {lesson: {card: choice}}. */
function answers() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {
    return {}; // no storage
  }
}

function remember(name, at, choice) {
  const all = answers();
  all[name] = { ...all[name], [at]: choice };
  try {
    localStorage.setItem(KEY, JSON.stringify(all));
  } catch {} // a browser that keeps nothing
}

// --- the app ------------------------------------------------------------------------------------

/** Load the page anew, set up as a link says, with this card open. */
function open(query) {
  const address = new URL(location.href);
  const theme = address.searchParams.get("__theme"); // Gradio's own
  address.search = query;
  address.searchParams.set("lesson", shown.name);
  address.searchParams.set("card", shown.at + 1);
  if (theme) address.searchParams.set("__theme", theme);
  location.assign(address);
}

function cover(panes) {
  document.body.dataset.covered = panes.join(" ");
}

// --- what is seen -------------------------------------------------------------------------------

function appear(is) {
  part("panel").hidden = !is;
  part("open").setAttribute("aria-expanded", is);
  document.body.toggleAttribute("data-lesson", is);
  if (is) part("close").focus();
  else cover([]);
}

/** The list of lessons, each with how many of its cards are answered. */
function list() {
  const done = answers();
  part("list").replaceChildren(
    ...props.lessons.map(({ name, title, about, minutes, cards }) => {
      const item = document.createElement("li");
      item.innerHTML = '<button type="button"><b></b> <span></span><small></small></button>';
      const [button] = item.children;
      const [first, second, third] = button.children;
      const count = Object.keys(done[name] ?? {}).length;
      first.textContent = title;
      second.textContent = about;
      third.textContent = `${minutes} min${count ? ` · ${count} of ${cards} answered` : ""}`;
      button.addEventListener("click", () => begin(name));
      return item;
    }),
  );
  part("title").textContent = "Lessons";
  part("list").hidden = false;
  part("all").hidden = part("card").hidden = true;
  shown.lesson = null;
  cover([]);
  globalThis.ddpmLinks?.set("lesson", { lesson: null, card: null });
}

/** A lesson was chosen from the list. */
async function begin(name) {
  const reply = await server.lesson(name).catch(() => null);
  if (reply?.cards) {
    take(name, reply);
    turn(0);
  } else part("title").textContent = reply?.error ?? "The server did not answer.";
}

/** The page's address names a card; if there is none of that name, the page's line says so. */
async function arrive() {
  const reply = await server.lesson(named).catch(() => null);
  if (!reply?.cards) return;
  take(named, reply);
  appear(true);
  show((Number(number) || 1) - 1);
}

function take(name, lesson) {
  Object.assign(shown, { lesson, name });
  part("list").hidden = true;
  part("all").hidden = part("card").hidden = false;
  part("title").textContent = lesson.title;
}

async function turn(at) {
  shown.at = at;
  await room.turn(); // phones need not wait for this page
  open(shown.lesson.cards[at].open);
}

/** A card beside the app, which its link has set up. */
function show(at) {
  const { lesson, name } = shown;
  const last = lesson.cards.length - 1;
  shown.at = Math.max(0, Math.min(at, last));
  const card = lesson.cards[shown.at];
  for (const key of ["words", "question"]) part(key).textContent = card[key];
  part("card").querySelector("h3").textContent = card.title;
  part("place").textContent = `${shown.at + 1} of ${last + 1}`;
  part("back").disabled = shown.at === 0;
  part("next").textContent = shown.at === last ? "All lessons" : "Next";
  part("choices").replaceChildren(
    ...card.choices.map(({ text }, k) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = text;
      button.addEventListener("click", () => answer(k));
      return button;
    }),
  );
  const before = room.on ? undefined : answers()[name]?.[shown.at];
  say(before);
  cover(before === undefined ? card.hide : []);
  part("card").querySelector("h3").focus({ preventScroll: true });
  look(before);
  globalThis.ddpmLinks?.set("lesson", { lesson: name, card: shown.at + 1 });
  room.turn();
}

/** On a phone: first the whole card, and after an answer what is said to it, above the pictures. */
function look(choice) {
  const seen = choice === undefined ? part("panel") : part("choices");
  if (above.matches) seen.scrollIntoView({ block: "start" });
}

/** What is said to an answer; undefined: there is none. */
function say(choice) {
  const card = shown.lesson.cards[shown.at];
  const given = card.choices[choice];
  part("reply").textContent = given ? given.reply || (given.right ? "Yes." : "") : "";
  part("explained").textContent = given ? card.explained : "";
  [...part("choices").children].forEach((button, k) => {
    button.setAttribute("aria-pressed", k === choice);
    button.classList.toggle("ddpm-so", Boolean(given) && card.choices[k].right);
    button.disabled = Boolean(room.on); // the class answers
    delete button.dataset.votes;
  });
}

function answer(choice) {
  const card = shown.lesson.cards[shown.at];
  remember(shown.name, shown.at, choice);
  say(choice);
  cover([]);
  look(choice);
  if (card.show) open(card.show);
}

// --- a room -------------------------------------------------------------------------------------

const room = new LessonRoom(root, server, {
  place: () => shown.lesson && { lesson: shown.name, card: shown.at },
  changed: () => shown.lesson && show(shown.at),
  get run() {
    const query = shown.lesson?.cards[shown.at].show;
    return query ? () => open(query) : null;
  },
  /** What the class has said to this card, as bars. */
  reveal(counts) {
    const card = shown.lesson.cards[shown.at];
    const all = Math.max(
      counts.reduce((sum, count) => sum + count, 0),
      1,
    );
    [...part("choices").children].forEach((button, k) => {
      button.style.setProperty("--share", `${(100 * counts[k]) / all}%`);
      button.dataset.votes = counts[k];
      button.classList.toggle("ddpm-so", card.choices[k].right);
    });
    part("explained").textContent = card.explained;
    cover([]);
  },
});

// --- from outside -------------------------------------------------------------------------------

part("open").addEventListener("click", () => {
  appear(part("panel").hidden);
  if (!part("panel").hidden && !shown.lesson) list();
});
part("close").addEventListener("click", () => {
  appear(false);
  globalThis.ddpmLinks?.set("lesson", { lesson: null, card: null });
  part("open").focus();
});
part("all").addEventListener("click", list);
part("back").addEventListener("click", () => turn(shown.at - 1));
part("next").addEventListener("click", () => {
  if (shown.at < shown.lesson.cards.length - 1) turn(shown.at + 1);
  else list();
});
const { lesson: named, card: number } = Object.fromEntries(new URLSearchParams(location.search));
if (named) arrive(); // at once: the card stands there while the server sets up the app
