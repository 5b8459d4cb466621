// The lessons' panel: a card stands beside the app, and sets it up by links. What a card hides is
// covered until an answer is given; answers are kept in this browser alone.

import { LessonRoom } from "./room.js";

const KEY = "ddpm-lessons";

const root = element.querySelector(".ddpm-lessons");
const part = (name) => root.querySelector(`[data-part=${name}]`);
const shown = { lesson: null, name: "", at: 0 };

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
function open(query, replace = false) {
  const address = new URL(location.href);
  const theme = address.searchParams.get("__theme"); // Gradio's own
  address.search = query;
  address.searchParams.set("lesson", shown.name);
  address.searchParams.set("card", shown.at + 1);
  if (theme) address.searchParams.set("__theme", theme);
  if (replace) location.replace(address);
  else location.assign(address);
}

/** Whether an address names a card, and nothing of the app. */
function bare(search) {
  const names = new URLSearchParams(search).keys();
  return [...names].every((name) => ["lesson", "card", "__theme"].includes(name));
}

// As it was before the page wrote it anew, which may leave out for a moment what belongs to a tab.
const arrived = { bare: location.search.includes("lesson=") && bare(location.search) };

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
      button.addEventListener("click", () => begin(name, 0, true));
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

/** Show a card of a lesson; `anew`: load the page as it sets it up. */
async function begin(name, at, anew) {
  const reply = await server.lesson(name).catch(() => null);
  if (!reply?.cards) {
    list();
    part("title").textContent = reply?.error ?? "The server did not answer.";
    return;
  }
  Object.assign(shown, { lesson: reply, name });
  part("list").hidden = true;
  part("all").hidden = part("card").hidden = false;
  part("title").textContent = reply.title;
  if (anew) turn(at);
  else show(at);
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
  globalThis.ddpmLinks?.set("lesson", { lesson: name, card: shown.at + 1 });
  if (arrived.bare) open(card.open, true);
  else room.turn();
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
globalThis.ddpmLinks?.opened.then(({ page }) => {
  const { lesson, card } = page.lesson ?? {};
  if (!lesson) return;
  appear(true);
  begin(lesson, (card ?? 1) - 1, false);
});
