// The browser's half of the player. Python joins these modules into one script, as Gradio takes it.

import { Compare } from "../compare/compare.js";
import { Branches } from "./branches.js";
import { Brush } from "./brush.js";
import { cut, download, framesOf } from "./files.js";
import { keepAll, kept, keptBeside, watchStatus } from "./gradio.js";
import { listen } from "./hand.js";
import { Link } from "./link.js";
import { openWith } from "./opening.js";
import { Pictures } from "./pictures.js";
import { Present } from "./present.js";
import { Probe } from "./probe.js";
import { Recording } from "./recording.js";
import { StepView } from "./step.js";
import { saveWebPage } from "./take_home.js";
import { inQueue, moment, reloaded, seconds, Voice } from "./words.js";

const MESSAGE_MS = { least: 140, most: 1200 }; // from one message of a live run to the next
const CALM_MS = 1000; // between two live frames for those who asked for little motion
const SAVED_MS = 5000; // for which "Saved ..." stays

class Player {
  constructor({ element, props, server, trigger }) {
    Object.assign(this, { element, props, server, trigger });
    this.root = element.querySelector(".ddpm-player");
    this.pictures = new Pictures(this.part("stage"), (k) => {
      if (!this.brush.drawing) this.alone(this.one === null ? k : null);
    });
    this.recording = null;
    this.at = 0; // the frame shown
    this.one = null; // the number of the picture shown alone; null: all of them
    this.state = "none"; // of the run: none, starting, running, over
    this.follow = true; // show each new frame as it comes
    this.playback = null; // {from, since}: the frame and the time at which playing began
    this.note = { text: "", until: 0 }; // a sentence shown in place of the progress
    this.queued = 0; // place in the server's queue, from 1; 0: not in it
    this.saving = false;
    this.came = 0; // when the last message did
    this.pace = 0; // milliseconds from one live frame to the next
    this.chasing = this.painting = 0; // timers
    this.chased = 0; // when a live frame was shown last
    this.voice = new Voice(this.part("spoken"));
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    this.pictures.see(props.labels.map((label, k) => ({ label, name: props.panes?.[k] })));
    this.steps = new StepView(this);
    this.probe = new Probe(this);
    this.brush = new Brush(this);
    this.pictures.fitted = () => {
      this.probe.mark();
      this.brush.show();
    };
    this.branches = new Branches(this);
    this.link = props.link && globalThis.ddpmLinks ? new Link(this) : null;
    this.part("link").hidden = !this.link;
    const code = server.qr_code && ((link) => server.qr_code(link));
    this.present = new Present(this.root, () => this.frames.length > 0, code);
    this.compare = new Compare(this.part("stage"), this.part("kept"));
    this.part("keep").hidden = !props.link;
    listen(this);
  }

  part(name) {
    return this.root.querySelector(`[data-part=${name}]`);
  }

  get frames() {
    return this.recording?.frames ?? [];
  }

  get live() {
    return this.state === "running";
  }

  // --- what is seen -----------------------------------------------------------------------------

  show(i) {
    this.at = Math.max(0, Math.min(i, this.frames.length - 1));
    this.painting ||= requestAnimationFrame(() => this.paint());
    this.refresh();
  }

  paint() {
    this.painting = 0;
    const frame = this.frames[this.at];
    if (!frame) return;
    this.steps.show(frame.step);
    this.pictures.paint(frame, moment(this.recording.header, frame));
    this.probe.show();
    this.branches.show();
    this.compare.show(frame);
    this.element.dataset.step = frame.step;
  }

  /** Show one picture, or all of them. */
  alone(k) {
    if (!this.frames.length) return;
    this.one = k;
    this.pictures.layout(this.recording.header, k);
    this.compare.alone(k);
    this.probe.begin();
    this.brush.show();
    this.steps.guidance();
    this.show(this.at);
  }

  /** Another picture than the one shown alone. */
  turn(by) {
    const { n } = this.recording.header;
    this.alone((this.one + by + n) % n);
    this.voice.say(`Picture ${this.one + 1} of ${n}`);
  }

  progress() {
    if (performance.now() < this.note.until) return this.note.text;
    const frame = this.frames[this.at];
    if (!frame) return this.recording ? "Starting…" : "";
    const { header, last } = this.recording;
    const words = [moment(header, frame), seconds(frame.s)];
    if (this.one !== null) words.unshift(`picture ${this.one + 1} of ${header.n}`);
    // A training, whose frames have no t, has a line beside it that counts its pictures, too.
    if (this.live && this.follow && last.step && last.t !== null) {
      words.push(`about ${seconds((last.s * (header.total - last.step)) / last.step)} left`);
    }
    if (this.live && !this.follow) words.push(`still running, ${header.unit} ${last.step}`);
    return words.join(" · ");
  }

  tell(text, ms = Infinity) {
    this.note = { text, until: performance.now() + ms };
    if (ms < Infinity) setTimeout(() => this.refresh(), ms + 20);
    this.voice.say(text);
    this.refresh();
  }

  refresh() {
    const last = this.frames.length - 1;
    const total = this.recording?.header.total ?? 1;
    const words = this.progress();
    this.refreshButtons(last < 0);
    const empty = this.part("empty");
    empty.hidden = this.recording !== null && !this.queued;
    empty.textContent = this.queued ? inQueue(this.queued) : this.note.text || this.props.empty;
    empty.classList.toggle("ddpm-over", this.recording !== null);
    this.part("title").textContent = this.recording?.header.title ?? "";
    this.part("status").textContent = words;
    const slider = this.part("slider");
    slider.max = total;
    slider.value = this.frames[this.at]?.step ?? 0;
    slider.style.setProperty("--shown", slider.value / total);
    slider.style.setProperty("--here", (this.frames[last]?.step ?? 0) / total);
    const now = last < 0 ? "" : moment(this.recording.header, this.frames[this.at]);
    slider.setAttribute("aria-valuetext", now);
    this.element.dataset.frames = this.frames.length;
    this.element.dataset.run = this.state;
    this.element.dataset.state = this.mode();
    if (this.live && this.follow) this.voice.report(words);
    this.link?.refresh();
  }

  refreshButtons(empty) {
    for (const control of this.root.querySelectorAll("button, input, select")) {
      control.disabled = empty || ("save" in control.dataset && this.saving);
    }
    this.part("live").disabled = !this.live || empty;
    this.part("live").setAttribute("aria-pressed", this.live && this.follow);
    this.part("play").setAttribute("aria-label", this.playback ? "Pause" : "Play");
    this.part("one").setAttribute("aria-pressed", this.one !== null);
  }

  mode() {
    if (this.playback) return "playing";
    if (this.live && this.follow) return "live";
    return this.recording ? "paused" : "empty";
  }

  // --- moving through a run ---------------------------------------------------------------------

  /** By hand: leaves live and playing; the newest frame takes up live again. */
  go(i) {
    this.playback = null;
    this.follow = this.live && i >= this.frames.length - 1;
    this.note.until = 0;
    this.show(i);
  }

  play() {
    if (this.playback) {
      this.go(this.at);
      return;
    }
    this.follow = false;
    this.note.until = 0;
    const from = this.at < this.frames.length - 1 ? this.at : 0;
    this.playback = { from, since: performance.now() };
    requestAnimationFrame((now) => this.tick(now));
    this.refresh();
  }

  tick(now) {
    if (!this.playback) return;
    const gone = Math.max(0, now - this.playback.since) / 1000;
    const rate = this.recording.header.fps * Number(this.part("speed").value);
    const next = this.playback.from + Math.floor(gone * rate);
    if (next >= this.frames.length - 1) {
      this.go(this.frames.length - 1);
      return;
    }
    if (next !== this.at) this.show(next);
    requestAnimationFrame((later) => this.tick(later));
  }

  // --- files ------------------------------------------------------------------------------------

  async save(kind) {
    if (kind === "html") {
      const name = await saveWebPage(this).catch(() => "");
      this.tell(name ? `Saved ${name}` : "The server did not answer.", SAVED_MS);
      return;
    }
    const panes = this.pictures.views.filter(({ figure }) => !figure.hidden);
    const chosen = framesOf(this.recording, kind, this.at);
    const { run, frames } = cut(this.recording.header, chosen, panes);
    this.saving = true;
    const megabytes = (frames.length * frames[0].d.length) / 1e6;
    this.tell(`Making the file (sending ${megabytes.toFixed(1)} MB)…`);
    const reply = await this.server.export_film({ kind, run, one: this.one, frames });
    this.saving = false;
    if (reply?.data) download(reply);
    const said = reply?.error ?? "The server did not answer.";
    this.tell(reply?.data ? `Saved ${reply.name}` : said, SAVED_MS);
  }

  // --- messages from the server -----------------------------------------------------------------

  begin(recording) {
    this.branches.begin(recording);
    this.recording = recording;
    this.at = Math.max(0, recording.frames.length - 1);
    this.state = "running";
    this.follow = true;
    this.playback = null;
    this.note.until = 0;
    const { header } = recording;
    if (this.one !== null && this.one >= header.n) this.one = null;
    this.steps.begin(recording);
    const rows = Math.ceil(header.n / header.columns);
    this.root.style.setProperty("--ratio", (header.columns * header.w) / (rows * header.h));
    this.pictures.layout(header, this.one);
    this.probe.begin();
    this.compare.alone(this.one);
    this.compare.begin(recording);
    this.voice.say(header.title || "Started");
    this.trigger?.("begun");
  }

  receive() {
    const message = this.props.value ? JSON.parse(this.props.value) : {};
    if (message.run) this.begin(new Recording(message.run));
    this.frames.push(...((this.recording && message.frames) ?? []));
    this.recording?.addNoise(message.z ?? []);
    this.painting ||= requestAnimationFrame(() => this.paint());
    if (this.live && this.recording.whole) {
      this.state = "over";
      this.voice.say("Finished");
    }
    if (message.note && (this.live || !message.live)) {
      this.state = "at" in message ? "starting" : "over";
      this.tell(message.note);
    }
    if (!this.follow || !this.frames.length) {
      this.refresh();
      return;
    }
    const gap = performance.now() - this.came;
    this.came += gap;
    const shown = Math.min(MESSAGE_MS.most, Math.max(MESSAGE_MS.least, gap));
    const step = shown / Math.max(1, this.frames.length - 1 - this.at);
    this.pace = this.calm.matches ? CALM_MS : step;
    this.chase();
  }

  /** The frames of a message came together; live, they are shown one after the other. */
  chase() {
    const calm = this.calm.matches && this.live && performance.now() - this.chased < CALM_MS;
    clearTimeout(this.chasing);
    if (!this.follow) return;
    const last = this.frames.length - 1;
    if (!calm) {
      this.chased = performance.now();
      this.show(this.live && !this.calm.matches ? Math.min(this.at + 1, last) : last);
    }
    if (this.at < last) this.chasing = setTimeout(() => this.chase(), this.pace);
  }

  /** No more messages come, and the run has not come to its end. */
  end() {
    if (this.state === "starting") {
      this.state = "over";
      this.note.until = 0;
      this.refresh();
    }
    if (!this.live) return;
    this.state = "over";
    const { header, last } = this.recording;
    this.tell(`The run ended early, at ${header.unit} ${last?.step ?? 0} of ${header.total}.`);
  }

  wait(place) {
    this.queued = place;
    if (place) this.voice.say(inQueue(place));
    this.refresh();
  }

  /** A run that the page had before it was loaded anew, as when the server was away. */
  restore(recording) {
    this.begin(recording);
    this.state = "over";
    this.tell(reloaded(recording.header, recording.last));
    this.show(recording.frames.length - 1);
  }
}

/** Gradio runs this once a component. */
export function startPlayer({ element, props, server, watch, trigger }) {
  const player = new Player({ element, props, server, trigger });
  const block = element.closest(".block");
  const key = `ddpm-${block.id}`;
  watchStatus(
    block,
    (place) => player.wait(place),
    () => player.end(),
  );
  const leave = () => {
    const beside = player.compare.lanes.map(({ recording }) => recording);
    keepAll(key, player.frames.length > 1 && player.recording, beside);
  };
  addEventListener("pagehide", leave);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) leave(); // all that a phone says before it drops a sleeping page
  });
  player.brush.offer(block);
  player.refresh();
  watch("value", () => player.receive());
  const before = kept(key);
  if (before) player.restore(before);
  if (before) for (const run of keptBeside(key)) player.compare.keep(run);
  player.receive();
  if (props.opening) openWith(player, server[props.opening]);
}
