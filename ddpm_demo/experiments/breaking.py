"""What if …?: the right run beside a run with a well-known bug, from the same seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ddpm_demo.config import SampleConfig
from ddpm_demo.diffusion import Step
from ddpm_demo.experiments.asked import Break, Guess
from ddpm_demo.experiments.bugs import BUGS, Bug, recorded
from ddpm_demo.experiments.tools import (
    Code,
    Hidden,
    Panel,
    Report,
    Sheet,
    Table,
    Tools,
    Words,
    interval,
    spoken,
    unseen,
)
from ddpm_demo.media import convert
from ddpm_demo.models.checkpoint import Checkpoint

N = 8  # pictures in each run
LETTERS = "ABC"
EASY = ("last-noise", "no-root", "short", "zero-one", "no-noise", "same-noise", "ddim-sigma")


def cost(asked: Break | Guess, per_call: Callable[[str, int], float]) -> float:
    bug, runs = (BUGS[asked.bug], 2) if isinstance(asked, Break) else (picked(asked), 3)
    return runs * int(bug.changes["steps"]) * per_call(bug.model, N)


def run(asked: Break | Guess, tools: Tools) -> Iterator[Report]:
    yield from _break(asked, tools) if isinstance(asked, Break) else _guess(asked, tools)


def sick_steps(
    bug: Bug, checkpoint: Checkpoint, config: SampleConfig, tools: Tools
) -> Iterator[Step]:
    """The steps of the run with the bug."""
    sick = bug.put(checkpoint, config, tools.load)
    return tools.generate(sick.checkpoint, sick.config, interventions=sick.interventions)


def _break(asked: Break, tools: Tools) -> Iterator[Report]:
    bug = BUGS[asked.bug]
    checkpoint = tools.load(bug.model)
    config = bug.config(checkpoint, asked.seed, N)
    seen: list[torch.Tensor] = []
    for part, (name, steps) in enumerate(
        (
            ("Right", tools.generate(checkpoint, config)),
            ("Wrong", sick_steps(bug, checkpoint, config, tools)),
        )
    ):
        for step in steps:
            shown = [*seen, step.x0_hat]
            done = (part + step.index / step.total) / 2.001
            yield Report(done, f"{name}: t = {step.t}", (_sheet(bug, shown, asked.seed),))
        seen.append(step.x_t)
    gaps = (seen[0] - seen[1]).square().flatten(1).mean(1).sqrt().tolist()
    found = interval(gaps)
    numbers = {"bug": bug.name, "difference": found[0], "interval": found[1], "n": N}
    kept = recorded(bug.name)
    said = f"The {N} pictures differ by {spoken(*found)} (root mean square of pixels, 95 %)."
    panels = (
        _sheet(bug, seen, asked.seed),
        _code(bug),
        *_record(bug, kept),
        Words((bug.why, said)),
    )
    yield Report(1, "", panels, {**numbers, "recorded": kept})


def _sheet(bug: Bug, seen: Sequence[torch.Tensor], seed: int) -> Sheet:
    cells = [convert.to_uint8(x) for x in seen]
    rows: list[tuple[np.ndarray | None, ...]] = [(cell,) for cell in cells]
    rows += [(None,)] * (2 - len(rows))
    title = f"{bug.title}: {bug.model} from seed {seed}"
    return Sheet(title, tuple(rows), rows=("right", "wrong"), wide=N)


def _code(bug: Bug) -> Code:
    return Code(f"In ddpm_demo/{bug.file}", (f"- {bug.right}", f"+ {bug.wrong}"))


def _record(bug: Bug, kept: dict[str, Any]) -> tuple[Panel, ...]:
    """A table of results over many pictures, which were measured before."""
    if not kept:
        return ()
    rows = []
    for words in ("right", "wrong"):
        value, half = kept[words]
        rows.append((words, f"{value:.2f} ± {half:.2f}"))
    gap = abs(kept["right"][0] - kept["wrong"][0])
    if gap < kept["right"][1] + kept["wrong"][1]:
        rows.append(("", unseen(kept["n"])))
    note = (
        f"{kept['what']}, n = {kept['n']} pictures, with a 95 % interval. Measured before, by "
        f"{kept['command']}."
    )
    return (Table("Over many pictures", ("run", kept["short"]), tuple(rows), note),)


# --- which one is broken? ------------------------------------------------------------------------


def picked(asked: Guess) -> Bug:
    """The bug of this game, chosen by its seed."""
    g = torch.Generator().manual_seed(asked.seed)
    return BUGS[EASY[int(torch.randint(len(EASY), (1,), generator=g))]]


def _guess(asked: Guess, tools: Tools) -> Iterator[Report]:
    bug = picked(asked)
    g = torch.Generator().manual_seed(asked.seed + 1)
    which = int(torch.randint(3, (1,), generator=g))
    checkpoint = tools.load(bug.model)
    ends: list[np.ndarray | None] = [None, None, None]

    def sheet() -> Sheet:
        return Sheet("One of these runs is broken", tuple((end,) for end in ends), tuple(LETTERS),
                     wide=N)  # fmt: skip

    for k in range(3):
        config = bug.config(checkpoint, asked.seed + N * k, N)
        sick = k == which
        steps = sick_steps(bug, checkpoint, config, tools) if sick else tools.generate(
            checkpoint, config
        )  # fmt: skip
        for step in steps:
            ends[k] = convert.to_uint8(step.x0_hat)
            yield Report((k + step.index / step.total) / 3.001, f"Run {LETTERS[k]}", (sheet(),))
        ends[k] = convert.to_uint8(step.x_t)
    answer = Words((f"{LETTERS[which]}: {bug.title}.", bug.why))
    panels = (sheet(), Hidden("Make up your mind, then look", (answer, _code(bug))))
    yield Report(1, "", panels, {"broken": LETTERS[which], "bug": bug.name})
