"""The state of a run on disk: what `--resume` goes on from, and whether it is the same run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm_demo.data import is_folder
from ddpm_demo.models.checkpoint import CheckpointError, load_tensors, save_checkpoint, save_tensors
from ddpm_demo.training.run_folder import RunFolder
from ddpm_demo.training.trainer import Trainer

PICTURES = "data.pictures"  # the tensor of the pictures' digests


class OtherRunError(CheckpointError):
    """A folder holds a run with other settings.

    Attributes:
        changes: a phrase for each setting that is not what it was.
    """

    def __init__(self, folder: Path, changes: Sequence[str]) -> None:
        super().__init__(f"{folder} holds another run: {'; '.join(changes)}.")
        self.changes = changes


def save_run(out: Path, run: Trainer) -> None:
    """Write into `out` all that the next step depends on, and the EMA weights as a model."""
    names = [n for n, _ in run.model.named_parameters()]
    state = {
        f"{kind}.{n}": v for kind, net in run.nets.items() for n, v in net.state_dict().items()
    }
    for i, slots in run.optimizer.state_dict()["state"].items():
        state |= {f"adam.{names[i]}.{k}": v for k, v in slots.items()}
    state[PICTURES] = run.digests
    about = {
        "step": run.step,
        "images": run.images,
        "seconds": run.seconds,
        "history": run.history,
        "configs": run.configs(),
    }
    save_tensors(RunFolder(out).state, state, about)
    save_checkpoint(out, run.checkpoint())


def load_run(out: Path, run: Trainer) -> None:
    """Go on from the state in `out`; configurations and pictures have to be those of the run.

    Raises:
        CheckpointError: no such state, or one of other pictures; the message says so.
        OtherRunError: a state of another run; it lists what differs.
    """
    file = RunFolder(out).state
    state, about = load_tensors(file)
    if "configs" not in about:
        raise CheckpointError(f"{file} is not the state of a run.")
    if differ := _differences(run.configs(), about["configs"], pictures=PICTURES in state):
        raise OtherRunError(out, differ)
    if PICTURES in state:  # older states say nothing of them
        _match_pictures(run, state[PICTURES], out)
    for kind, net in run.nets.items():
        own = weights(state, kind)
        if not own:
            raise OtherRunError(out, [f"it has kept no weights {kind}"])
        net.load_state_dict(own)
    adam = run.optimizer.state_dict()
    for i, (name, p) in enumerate(run.model.named_parameters()):
        if f"adam.{name}.step" in state:
            slots = {k: state[f"adam.{name}.{k}"] for k in ("step", "exp_avg", "exp_avg_sq")}
            # Fused AdamW reads memory in order, so moments need the strides of their weights.
            for k in ("exp_avg", "exp_avg_sq"):
                slots[k] = torch.empty_like(p, requires_grad=False).copy_(slots[k])
            adam["state"][i] = slots
    run.optimizer.load_state_dict(adam)
    run.step, run.images = about["step"], about["images"]
    run.seconds, run.history = about["seconds"], about["history"]


def weights(state: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Of the state of a run, the weights of a kind, such as "ema"; empty if it has none."""
    start = f"{kind}."
    return {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}


def _differences(
    new: dict[str, dict[str, Any]], saved: dict[str, dict[str, Any]], *, pictures: bool
) -> list[str]:
    """What was set otherwise, in words.

    Args:
        pictures: the pictures themselves are compared, so it doesn't matter where a folder lies.
            Nor does the name of a base matter whose weights are the same.
    """
    found = []
    was = saved.get("base", {}).get("weights")  # older states say the base's name alone
    for group, values in new.items():
        for key, old in saved.get(group, {}).items():
            now = json.loads(json.dumps(values.get(key)))
            moved = key == "dataset" and pictures and is_folder(str(old)) and is_folder(str(now))
            moved |= (group, key) == ("base", "name") and bool(values.get("weights", "") == was)
            if now != old and not moved:
                said = f"{group}.{key} was {old!r} and is {values.get(key)!r}"
                found.append("the base has other weights now" if key == "weights" else said)
    return found


def _match_pictures(run: Trainer, saved: Tensor, folder: Path) -> None:
    """See the pictures in the order of the saved run, whatever they are called now.

    Raises:
        CheckpointError: they are not the same pictures.
    """
    if torch.equal(saved, run.digests):
        return
    (before, was), (now, order) = saved.sort(), run.digests.sort()
    if torch.equal(before, now):
        places = torch.empty_like(order)
        places[was] = order
        run.reorder(places)
        return
    old, new = Counter(saved.tolist()), Counter(run.digests.tolist())
    raise CheckpointError(
        f"{folder} holds a run on other pictures: of its {len(saved):,}, "
        f"{(old - new).total():,} are gone, and {(new - old).total():,} are new. Put them back as "
        "they were, or start a new run in another folder from these weights (train --init, or "
        "finetune --model)."
    )
