// A stage alone on the whole screen, for those who stand in front of it.

const KEYS_MS = 3000; // for which the keys are shown
const EDITABLE = "input:not([type=range], [type=checkbox]), textarea, select, [contenteditable]";
const LOOPBACK = /^(localhost|127\.|\[::1\])/; // nobody else can open such a link

export class Present {
  /**
   * @param {HTMLElement} root gets the class ddpm-present, and has a button, a line with the keys
   *   and an image, as their data-part says: present, keys, qr
   * @param {() => boolean} ready whether there is something to show
   * @param {((link: string) => Promise<object>) | null} draw gives the code of a link; null: none
   */
  constructor(root, ready, draw) {
    Object.assign(this, { root, ready, draw, timer: 0 });
    this.part("present").addEventListener("click", () => this.toggle());
    document.addEventListener("keydown", (event) => this.press(event));
    document.addEventListener("fullscreenchange", () => {
      if (!document.fullscreenElement) this.leave();
    });
  }

  part(name) {
    return this.root.querySelector(`[data-part=${name}]`);
  }

  get on() {
    return this.root.classList.contains("ddpm-present");
  }

  press({ key, target, ctrlKey, altKey, metaKey }) {
    const seen = this.root.getClientRects().length && this.ready();
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
    this.timer = setTimeout(() => this.part("keys").toggleAttribute("hidden", true), KEYS_MS);
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
    this.part("present").setAttribute("aria-pressed", on);
    for (const name of ["keys", "qr"]) this.part(name).toggleAttribute("hidden", !on);
  }

  /** The code of the link, for the phones of a class. */
  async code() {
    const image = this.part("qr");
    const { href, hostname } = globalThis.ddpmLinks?.address() ?? { hostname: "localhost" };
    image.hidden = true;
    if (!this.draw || LOOPBACK.test(hostname)) return;
    const { data } = (await this.draw(href)) ?? {};
    image.src = data ?? "";
    image.hidden = !data || !this.on;
  }
}
