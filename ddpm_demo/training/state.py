"""Saves and loads the state of a run, and checks that a resumed run is the same run."""

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

PICTURES = "data.pictures"  # the name of the tensor with the pictures' digests


class OtherRunError(CheckpointError):
    """A folder holds a run with other settings.

    Attributes:
        changes: a phrase for each setting that has changed.
    """

    def __init__(self, folder: Path, changes: Sequence[str]) -> None:
        super().__init__(f"{folder} holds another run: {'; '.join(changes)}.")
        self.changes = changes


def save_run(out: Path, run: Trainer) -> None:
    """Write the state of the run to `out`, and its EMA weights as a model."""
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
    """Load the state in `out` into `run`, which must have the same configurations and pictures.

    Raises:
        CheckpointError: there is no state, or its run saw other pictures.
        OtherRunError: the state is from a run with other settings; the error lists them.
    """
    file = RunFolder(out).state
    state, about = load_tensors(file)
    if "configs" not in about:
        raise CheckpointError(f"{file} is not the state of a run.")
    if differ := _differences(run.configs(), about["configs"], pictures=PICTURES in state):
        raise OtherRunError(out, differ)
    if PICTURES in state:  # older states don't have it
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
    """The weights of one kind, such as "ema", from the state of a run. Empty if it has none."""
    start = f"{kind}."
    return {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}


def _differences(
    new: dict[str, dict[str, Any]], saved: dict[str, dict[str, Any]], *, pictures: bool
) -> list[str]:
    """A phrase for each setting that has changed.

    The name of a base doesn't count if its weights are the same.

    Args:
        pictures: the pictures themselves will be compared, so the path of their folder doesn't
            count.
    """
    found = []
    was = saved.get("base", {}).get("weights")  # older states have only the base's name
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
    """Put the pictures into the order of the saved run. Their names don't matter.

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
