// A room: a class answers by phone the card that is shown here. This browser alone has its key.

const ROOM_KEY = "ddpm-room";
const LOOK_MS = 1000;
const SURE_MS = 5000; // in which a second press closes the room

export class LessonRoom {
  /**
   * @param {Element} root of the panel
   * @param {object} server its functions on the server
   * @param {object} panel place(): {lesson, card}, what is shown; changed(): a room has come or gone;
   *   reveal(counts): what the class has said; run(): show the answer in the app, or null
   */
  constructor(root, server, panel) {
    Object.assign(this, { root, server, panel, told: {} });
    this.on = null; // {code, key, places}
    this.looking = false;
    try {
      this.on = JSON.parse(sessionStorage.getItem(ROOM_KEY));
    } catch {} // no storage
    const presses = { open: "open", code: "door", reveal: "reveal", save: "save", close: "close" };
    for (const [name, method] of Object.entries(presses)) {
      this.part(name).addEventListener("click", () => this[method]());
    }
    this.part("begin").addEventListener("click", () => this.part("door").close());
    this.part("places").addEventListener("change", () => this.place());
    this.show();
    setInterval(() => this.look(), LOOK_MS);
  }

  part(name) {
    return this.root.querySelector(`[data-part=room-${name}]`);
  }

  keep(on) {
    this.on = on;
    try {
      if (on) sessionStorage.setItem(ROOM_KEY, JSON.stringify(on));
      else sessionStorage.removeItem(ROOM_KEY);
    } catch {} // a browser that keeps nothing: the room ends with this page
    this.told = {};
    this.show();
    this.panel.changed();
  }

  async open() {
    this.part("problem").textContent = "";
    const page = location.origin + location.pathname;
    const asked = { ...this.panel.place(), page };
    const reply = await this.server.open_room(asked).catch(() => ({}));
    if (!reply.code) {
      this.part("problem").textContent = reply.error ?? "The server did not answer.";
      return;
    }
    this.keep(reply);
    this.door();
  }

  /** Ask the server to do something in this room. */
  async lead(what, more = {}) {
    if (!this.on) return {};
    const { code, key } = this.on;
    const reply = await this.server.lead_room({ code, key, do: what, ...more }).catch(() => null);
    if (!reply || this.on?.code !== code) return {}; // the next look will tell
    if (reply.closed) {
      this.part("door").close();
      this.keep(null);
      this.part("problem").textContent = "The room is closed, and its votes are forgotten.";
    } else if (!reply.table) {
      this.told = reply;
      this.show();
    }
    return reply;
  }

  async look() {
    if (this.looking || !this.on || document.hidden || !this.panel.place()) return;
    this.looking = true; // a slow server is not asked twice
    await this.lead("look");
    this.looking = false;
  }

  /** The card that is shown is what the phones ask. */
  turn() {
    return this.lead("turn", this.panel.place());
  }

  reveal() {
    if (this.told.counts) this.panel.run?.();
    else this.lead("reveal");
  }

  /** What is known of the room. */
  show() {
    const { people = 0, votes = 0, counts, lesson, card } = this.told;
    document.body.toggleAttribute("data-room", Boolean(this.on));
    this.part("open").hidden = Boolean(this.on);
    this.part("on").hidden = !this.on;
    if (!this.on) return;
    const here = `${people} ${people === 1 ? "person" : "people"} here`;
    this.part("said").textContent = `${here}, ${votes} ${votes === 1 ? "vote" : "votes"}`;
    this.part("people").textContent = `${here}.`;
    const now = this.panel.place();
    const revealed = Boolean(counts) && lesson === now?.lesson && card === now?.card;
    this.part("reveal").textContent = revealed ? "Run it" : "Reveal";
    this.part("reveal").hidden = revealed && !this.panel.run;
    if (revealed) this.panel.reveal(counts);
  }

  /** The code, as large as the screen. */
  door() {
    const { code, places } = this.on;
    this.part("letters").textContent = `${code.slice(0, 3)} ${code.slice(3)}`;
    this.part("places").replaceChildren(...places.map(({ typed }, k) => new Option(typed, k)));
    this.part("choose").hidden = places.length < 2;
    this.part("places").value = this.on.place ?? 0;
    this.place();
    this.part("door").showModal();
  }

  /** An address that phones can reach was chosen. */
  place() {
    const at = Number(this.part("places").value);
    const { typed, link, qr } = this.on.places[at];
    Object.assign(this.part("qr"), { src: qr, alt: `Code of ${link}` });
    this.part("typed").textContent = typed;
    this.on.place = at;
    try {
      sessionStorage.setItem(ROOM_KEY, JSON.stringify(this.on));
    } catch {} // as above
  }

  async save() {
    const { table } = await this.lead("table");
    if (!table) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([table], { type: "text/csv" }));
    link.download = `votes-${this.on.code}.csv`;
    link.click();
    URL.revokeObjectURL(link.href);
  }

  /** The first press asks, as votes are forgotten; a browser's own question is barred in a frame. */
  close() {
    const button = this.part("close");
    if (button.dataset.sure) this.lead("close");
    button.dataset.sure = "1";
    button.textContent = "Forget the votes, and close?";
    setTimeout(() => {
      delete button.dataset.sure;
      button.textContent = "Close the room";
    }, SURE_MS);
  }
}
