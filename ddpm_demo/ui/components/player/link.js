// What a link holds of a player: t of the frame that is shown, its panes, and the picture shown
// alone. The page's `ddpmLinks` has the rest.

import { SHOWN_FIRST } from "./step.js";

const SHORT = 1500; // characters of changes that go into a link

export class Link {
  /** @param {Player} player */
  constructor(player) {
    this.player = player;
    this.part = player.props.link;
    this.wanted = null; // what a link asks for, until there is a run to show it of
    this.open();
  }

  async open() {
    const { page, run } = await globalThis.ddpmLinks.opened;
    const asked = page[this.part] ?? {};
    if (!Object.keys(asked).length) return;
    this.wanted = asked;
    this.makes = Boolean(run); // then it asks for the run that it makes, and for no other
    this.before = run ? this.player.recording : null;
    if (asked.panes) this.see(asked.panes.split(","));
    this.refresh();
  }

  see(panes) {
    const { player } = this;
    player.steps.chosen = new Set(panes);
    if (!player.recording) return;
    player.steps.begin(player.recording);
    player.alone(player.one);
  }

  /** Something has changed in the player. */
  refresh() {
    const { player, wanted } = this;
    if (wanted) {
      const { recording } = player;
      const another = recording === this.before || (this.makes && recording?.opening);
      if (player.state === "over" && player.frames.length && !another) {
        this.wanted = null;
        queueMicrotask(() => this.follow(wanted)); // whoever called may begin to play
      }
      return;
    }
    if (player.playback || player.state !== "over") return;
    const frame = player.frames[player.at];
    const chosen = player.steps.chosen;
    const usual = chosen.size === SHOWN_FIRST.length && SHOWN_FIRST.every((n) => chosen.has(n));
    globalThis.ddpmLinks.set(this.part, {
      t: frame && player.at < player.frames.length - 1 ? frame.t : null,
      picture: player.one === null ? null : player.one + 1,
      panes: usual ? null : [...chosen].join(","),
    });
  }

  follow({ t, picture }) {
    const { player } = this;
    if (picture) player.alone(Math.min(picture, player.recording.header.n) - 1);
    if (t !== undefined) player.go(player.recording.atT(t));
  }

  /** Copy the page's address; it makes the run that is shown, unless that was there before. */
  async copy() {
    const { player } = this;
    const { header, opening } = player.recording ?? {};
    const own = header?.meta.pictures; // a link holds none
    const extra = header && !opening && !own ? { run: 1 } : {};
    const changes = header?.meta.with ?? "";
    if (changes && !own && changes.length < SHORT) extra.with = changes;
    const said = await globalThis.ddpmLinks.copy(player.part("link"), extra);
    player.tell(own ? `${said} Your picture is not in it.` : said, 5000);
  }
}
