// The player alone on the whole screen, for those who stand in front of it.

const KEYS_MS = 3000; // for which the keys are shown
const EDITABLE = "input:not([type=range], [type=checkbox]), textarea, select, [contenteditable]";
const LOOPBACK = /^(localhost|127\.|\[::1\])/; // nobody else can open such a link

export class Present {
  /** @param {Player} player */
  constructor(player) {
    this.player = player;
    this.root = player.root;
    this.timer = 0;
    player.part("present").addEventListener("click", () => this.toggle());
    document.addEventListener("keydown", (event) => this.press(event));
    document.addEventListener("fullscreenchange", () => {
      if (!document.fullscreenElement) this.leave();
    });
  }

  get on() {
    return this.root.classList.contains("ddpm-present");
  }

  press({ key, target, ctrlKey, altKey, metaKey }) {
    const seen = this.root.getClientRects().length && this.player.frames.length;
    if (!seen || ctrlKey || altKey || metaKey || target.closest?.(EDITABLE)) return;
    if (key === "p") this.toggle();
    if (key === "Escape" && this.on) this.leave();
  }

  toggle() {
    if (this.on) this.leave();
    else this.enter();
  }

  async enter() {
    this.mark(true);
    this.root.focus();
    this.timer = setTimeout(
      () => this.player.part("keys").toggleAttribute("hidden", true),
      KEYS_MS,
    );
    this.code();
    try {
      await this.root.requestFullscreen?.();
    } catch {} // a frame that may not: the whole frame, then
  }

  leave() {
    if (!this.on) return;
    clearTimeout(this.timer);
    this.mark(false);
    if (document.fullscreenElement) document.exitFullscreen();
  }

  mark(on) {
    this.root.classList.toggle("ddpm-present", on);
    this.player.part("present").setAttribute("aria-pressed", on);
    for (const name of ["keys", "qr"]) this.player.part(name).toggleAttribute("hidden", !on);
  }

  /** The code of the link, for the phones of a class. */
  async code() {
    const image = this.player.part("qr");
    const { href, hostname } = globalThis.ddpmLinks?.address() ?? { hostname: "localhost" };
    image.hidden = true;
    if (!this.player.link || LOOPBACK.test(hostname)) return;
    const { data } = (await this.player.server.qr_code(href)) ?? {};
    image.src = data ?? "";
    image.hidden = !data || !this.on;
  }
}
