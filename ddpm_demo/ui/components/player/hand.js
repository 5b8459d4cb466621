// What moves through a run by hand: the buttons of the player, its timeline, and its keys.

/** @param {Player} player */
export function listen(player) {
  const actions = {
    first: () => player.go(0),
    back: () => player.go(player.at - 1),
    play: () => player.play(),
    next: () => player.go(player.at + 1),
    last: () => player.go(player.frames.length - 1),
    live: () => player.go(player.frames.length - 1),
    one: () => player.alone(player.one === null ? 0 : null),
    keep: () => player.compare.keep(player.recording),
    link: () => player.link.copy(),
  };
  for (const [name, act] of Object.entries(actions)) {
    player.part(name).addEventListener("click", act);
  }
  const [slider, speed] = [player.part("slider"), player.part("speed")];
  slider.addEventListener("input", () => player.go(player.recording.atStep(Number(slider.value))));
  speed.addEventListener("change", () => {
    if (player.playback) player.playback = { from: player.at, since: performance.now() };
  });
  for (const button of player.root.querySelectorAll("[data-save]")) {
    button.addEventListener("click", () => player.save(button.dataset.save));
  }
  listenToKeys(player, actions);
}

function listenToKeys(player, actions) {
  const keys = {
    " ": actions.play,
    ArrowLeft: actions.back,
    ArrowRight: actions.next,
    Home: actions.first,
    End: actions.last,
  };
  const aloneKeys = {
    ArrowUp: () => player.turn(-1),
    ArrowDown: () => player.turn(1),
    Escape: () => player.alone(null),
  };
  player.root.addEventListener("keydown", (event) => {
    const act = { ...keys, ...(player.one === null ? {} : aloneKeys) }[event.key];
    if (!act || !player.frames.length || usesItself(event)) return;
    event.preventDefault();
    act();
  });
}

/** Whether a key means something else where it was pressed. */
function usesItself({ key, target, ctrlKey, altKey, metaKey }) {
  const itself = target.type === "text" || target.dataset.part === "speed";
  const button = key === " " && ["button", "checkbox"].includes(target.type);
  return itself || button || ctrlKey || altKey || metaKey;
}
