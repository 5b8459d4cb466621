"""Measures how much each bug of the experiment *What if …?* costs, over many pictures.

    python -m benchmarks.bugs -n 1000

It writes ddpm_demo/experiments/recorded.json. For each bug, it measures the right and the wrong run
by their Fréchet distance from the data, in the features of the shipped classifier. For a fine-tuned
model, it measures the share of pictures of its class instead. Half the width of the 95 % interval
is 1.96 standard deviations of 200 bootstrap samples. For a share, it is that of the binomial.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ddpm_demo.diffusion import Step
from ddpm_demo.evaluation.classifier import Classifier, judge_of
from ddpm_demo.evaluation.features import Summary
from ddpm_demo.evaluation.frechet import distance
from ddpm_demo.evaluation.references import read
from ddpm_demo.experiments.breaking import sick_steps
from ddpm_demo.experiments.bugs import BUGS, RECORD, Bug
from ddpm_demo.experiments.tools import Tools
from ddpm_demo.inference.generate import generate
from ddpm_demo.models.load import load_checkpoint

PAGE, BOOTSTRAPS, SEED = 32, 200, 50_000


def seen(judge: Classifier, steps: Iterator[Step]) -> tuple[Tensor, Tensor]:
    """The features and logits of a run's pictures."""
    *_, end = steps
    return judge.extract(((end.x_t.clamp(-1, 1) + 1) * 127.5).round().byte())


def gathered(judge: Classifier, bug: Bug, n: int, sick: bool) -> tuple[Tensor, Tensor]:
    """The features and logits of n pictures, of the right run or the sick one."""
    checkpoint, parts = load_checkpoint(bug.model), []
    for start in range(0, n, PAGE):
        config = bug.config(checkpoint, SEED + start, min(PAGE, n - start))
        steps = (
            sick_steps(bug, checkpoint, config, Tools()) if sick else generate(checkpoint, config)
        )
        parts.append(seen(judge, steps))
    features, logits = zip(*parts, strict=True)
    return torch.cat(features), torch.cat(logits)


def fd(judge: Classifier, features: Tensor, logits: Tensor) -> tuple[float, float]:
    """The Fréchet distance from the test pictures, and half the width of its interval."""
    data, g = read(judge, "test"), torch.Generator().manual_seed(0)

    def of(index: Tensor) -> float:
        summary = Summary()
        summary.add(features[index], logits[index])
        return distance(summary, data)

    n = len(features)
    again = [of(torch.randint(n, (n,), generator=g)) for _ in range(BOOTSTRAPS)]
    return of(torch.arange(n)), 1.96 * float(torch.tensor(again).std())


def share(logits: Tensor, label: int) -> tuple[float, float]:
    """The share of pictures that the classifier takes for a class, and its interval."""
    found = float((logits.argmax(1) == label).double().mean())
    return found, 1.96 * math.sqrt(max(found * (1 - found), 1 / len(logits)) / len(logits))


def main() -> None:
    p = argparse.ArgumentParser(prog="python -m benchmarks.bugs", description=__doc__)
    p.add_argument("-n", type=int, default=1000, help="pictures of each run")
    p.add_argument("--bugs", default=",".join(BUGS), help="which, by commas")
    o = p.parse_args()
    kept = json.loads(RECORD.read_text()) if RECORD.is_file() else {"bugs": {}}
    right: dict[str, tuple[Tensor, Tensor]] = {}
    for name in o.bugs.split(","):
        bug = BUGS[name]
        checkpoint = load_checkpoint(bug.model)
        judge, only = judge_of(checkpoint), checkpoint.facts.tuned_to
        n = min(o.n, 64) if only else o.n
        key = f"{bug.model} {bug.changes}"
        if key not in right:
            right[key] = gathered(judge, bug, n, False)
        row = {
            "command": f"python -m benchmarks.bugs -n {o.n} --bugs {name}",
            "n": n,
            "what": f"Fréchet distance from the test pictures of {judge.info['dataset']}",
        }
        row["short"] = "distance (less is better)"
        for words, (features, logits) in (
            ("right", right[key]),
            ("wrong", gathered(judge, bug, n, True)),
        ):
            if only:
                row[words] = share(logits, checkpoint.classes.index(only))
                row["what"] = f"Share that the classifier takes for a {only}"
                row["short"] = f"share of {only}s"
            else:
                row[words] = fd(judge, features, logits)
        kept["bugs"][name] = row
        print(name, row, flush=True)
        RECORD.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
