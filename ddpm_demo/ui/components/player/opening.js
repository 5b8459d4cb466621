// The run that the app made when it started: a new page opens with it.

import { Recording } from "./recording.js";

const ASK_MS = 400; // between two questions
const TRIES = 20; // that may go unanswered, as while the server is busy starting

/** Play what `ask` gives, unless the page has another run by then; say how far it is meanwhile. */
export async function openWith(player, ask) {
  for (let tries = TRIES; tries && player.state === "none"; ) {
    const reply = await ask(null).catch(() => null);
    if (player.state !== "none") return;
    if (reply?.run) {
      const recording = new Recording(reply.run, reply.frames);
      player.begin(Object.assign(recording, { opening: true }));
      player.state = "over";
      if (player.calm.matches) wait(player);
      else player.play();
      return;
    }
    if (reply?.words) player.tell(reply.words);
    else if (reply) return;
    else tries -= 1;
    await new Promise((resolve) => setTimeout(resolve, ASK_MS));
  }
}

/** For those who asked for little motion: half way down, with Play marked. */
function wait(player) {
  const { recording } = player;
  player.go(recording.atT(recording.frames[0].t / 2));
  const play = player.part("play");
  play.classList.add("ddpm-marked");
  play.addEventListener("click", () => play.classList.remove("ddpm-marked"), { once: true });
}
