"""The command that measures a model."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm_demo import config as c
from ddpm_demo.cli.common import (
    class_argument,
    device_argument,
    own_device,
    progress_bar,
    suffix,
)
from ddpm_demo.cli.options import count, dataset_name, model_name, numbers, path
from ddpm_demo.data import shown

if TYPE_CHECKING:
    from ddpm_demo.data import Images
    from ddpm_demo.evaluation.metrics import Extractor, Summary
    from ddpm_demo.models.checkpoint import Checkpoint

INCEPTION = ("fid", "is", "precision_recall")
SECTION = "## Evaluation"


def evaluate_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--model",
        type=model_name,
        required=True,
        help="a shipped model, a file, a folder, a Hub repo",
    )
    p.add_argument(
        "--metrics",
        required=True,
        help="of fid, is, precision_recall, bpd and fd-CLASSIFIER (such as fd-cifar10), by commas",
    )
    p.add_argument("-n", type=count, default=5000, help="samples")
    p.add_argument("--samplers", help="by commas; default: the model's own")
    p.add_argument("--steps", type=numbers, help="by commas; default: the model's own")
    class_argument(p)
    p.add_argument("--data-class", help="what to compare with (default: the one drawn, else all)")
    p.add_argument("--guidance", type=float, help="default: the model's own")
    p.add_argument("--seed", type=int, default=0, help="of the first sample")
    p.add_argument(
        "--dataset",
        type=dataset_name,
        help="to compare with; default: what the model was trained on",
    )
    p.add_argument("--data-dir", type=path, help="where the data sets are or are downloaded to")
    p.add_argument("--split", default="train", choices=("train", "test"), help="of the data")
    p.add_argument("--bpd-images", type=count, help="test pictures for bpd; default: all")
    p.add_argument("--bpd-steps", type=count, help="terms of the bound; default: all T")
    p.add_argument("--cache", type=path, help="folder for samples, from which a run goes on")
    p.add_argument("--out", type=path, help="a .json file for the results; plots go beside it")
    p.add_argument("--card", action="store_true", help="write the results into the model's card")
    device_argument(p)
    p.set_defaults(run_command=_evaluate)


def _evaluate(o: argparse.Namespace) -> None:
    import torch

    from ddpm_demo import data as d
    from ddpm_demo.devices import keep_memory, pick
    from ddpm_demo.evaluation import metrics as m
    from ddpm_demo.evaluation.classifier import load_classifier
    from ddpm_demo.inference.generate import defaults
    from ddpm_demo.inference.labels import class_words, parse_classes
    from ddpm_demo.models.load import load_checkpoint
    from ddpm_demo.models.zoo import models_folder

    if o.out:
        suffix(o.out, ".json")
    keep_memory()
    wanted = list(dict.fromkeys(o.metrics.split(",")))
    for metric in wanted:
        ok = metric in (*INCEPTION, "bpd") or metric.startswith("fd-")
        c.require(ok, "metric", metric, f"{', '.join(INCEPTION)}, bpd and fd-CLASSIFIER")
    c.number("n", o.n, 1, 100_000, whole=True)
    c.number("seed", o.seed, 0, c.SEED_MAX + 1 - o.n, whole=True)  # picture k's is seed + k
    c.require(o.bpd_images is None or o.bpd_images > 0, "--bpd-images", o.bpd_images, "1 or more")
    device = own_device(pick(o.device))
    checkpoint = load_checkpoint(o.model, device)
    card = models_folder() / o.model / "README.md"
    c.require(not o.card or card.is_file(), "--card with the model", o.model, "a shipped model")
    rank, world = (int(os.environ.get(k, v)) for k, v in (("RANK", 0), ("WORLD_SIZE", 1)))
    own, config = defaults(checkpoint), checkpoint.model.config
    if o.classes is not None:
        own = own.but(labels=parse_classes(o.classes, checkpoint.classes))
    dataset = o.dataset or checkpoint.info.get("dataset") or ""
    c.require(bool(dataset), "dataset", dataset, "the name of the data to compare with: --dataset")

    # Whatever can be refused is refused before anything is drawn.
    labels, classes = own.labels or (), checkpoint.classes
    only = o.data_class or (classes[labels[0]] if classes and len(labels) == 1 else None)
    noise = checkpoint.diffusion.noise
    if o.bpd_steps is not None:
        c.number("--bpd-steps", o.bpd_steps, 2, checkpoint.diffusion.T, whole=True)
    c.require(
        "bpd" not in wanted or noise == "gaussian",
        "noise of the model",
        noise,
        "gaussian: bpd compares Gaussians in closed form",
    )
    judges = [metric for metric in wanted if metric.startswith("fd-")]
    extractors: list[Extractor] = [load_classifier(j.removeprefix("fd-"), device) for j in judges]
    names = list(judges)
    if any(metric in wanted for metric in INCEPTION):
        extractors.append(m.Inception(device=device))
        names.append("inception")
    for extractor, name in zip(extractors, names, strict=True):
        if name != "inception" or "fid" in wanted:
            m.require_enough(o.n, extractor.dim)
        blank = torch.zeros(1, config.channels, config.size, config.size, dtype=torch.uint8)
        extractor.extract(blank)
    if "is" in wanted:
        c.number("n", o.n, 100, 100_000, whole=True)
    grid = [
        own.but(
            sampler=sampler,
            steps=steps,
            n=o.n,
            seed=o.seed,
            guidance=own.guidance if o.guidance is None else o.guidance,
        )
        for sampler in (o.samplers.split(",") if o.samplers else [own.sampler])
        for steps in (o.steps or [own.steps])
    ]
    for setting in grid if extractors else ():
        T = own.start or checkpoint.diffusion.T
        c.number("steps", setting.steps, 1, T, whole=True)

    def load(train: bool) -> Images:
        found = d.load(dataset, o.data_dir, train=train, size=config.size, channels=config.channels)
        return found.only(only) if only else found

    tested = load(False) if "bpd" in wanted and not rank else None
    result: dict[str, Any] = {"model": o.model, "n": o.n, "seed": o.seed, "dataset": dataset}
    drawn = class_words(own.labels, checkpoint.classes)
    result |= {"split": o.split, "class": drawn, "data_class": only or "all", "samples": []}
    if extractors:
        keep = 10_000 if "precision_recall" in wanted else 0
        key = (dataset, o.split, only)
        references = [] if rank else _references(load, key, extractors, keep)
        result["n_data"] = 0 if rank else references[0].n
        keep = o.n if set(wanted) & {"is", "precision_recall"} else 0
        for setting in grid:
            found = _draw(o, checkpoint, setting, extractors, keep, rank, world)
            if found is None:
                continue  # this process only draws
            row = {"sampler": setting.sampler, "steps": setting.steps}
            row |= {"guidance": setting.guidance, "start": setting.start}
            for name, judge, mine, theirs in zip(names, extractors, found, references, strict=True):
                row |= _compare(name, judge, wanted, mine, theirs)
            result["samples"].append(row)
            print(_line(row), *map(_shares, judges, [row] * len(judges)), sep="\n", flush=True)
    if tested is not None:
        result["bpd"] = _bound(o, checkpoint, tested)
    if rank:
        return
    if o.out:
        from ddpm_demo.files import write_atomically

        write_atomically(o.out, (json.dumps(result, indent=1) + "\n").encode())
        print(o.out)
    if o.card:
        _into_card(card, result, judges, _command(o))
        print(card)


def _references(
    load: Callable[[bool], Images],
    key: tuple[str, str, str | None],
    extractors: list[Extractor],
    keep: int,
) -> list[Summary]:
    """What each extractor sees in the data, as it is shipped or cached, or else in all of them.

    Args:
        load: the pictures of the training split, or not.
        key: data set, split, class.
    """
    from ddpm_demo.evaluation import metrics as m
    from ddpm_demo.evaluation import references

    dataset, split, only = key
    data: Images | None = None
    found = []
    for extractor in extractors:
        if shipped := references.shipped(extractor, dataset, split, only):
            found.append(shipped)
            continue
        data = data or load(split == "train")
        names = (dataset.replace("folder:", "folder-"), split, only or "all")
        with progress_bar(total=len(data), unit="picture", desc="data") as bar:
            for summary in m.reference(extractor, data.pixels, names, keep=keep, cache=m.CACHE):
                bar.update(summary.n - bar.n)
        found.append(summary)
    return found


def _draw(
    o: argparse.Namespace,
    checkpoint: Checkpoint,
    setting: c.SampleConfig,
    extractors: list[Extractor],
    keep: int,
    rank: int,
    world: int,
) -> list[Summary] | None:
    """Draw this process's share; the first one waits for the others, and sums up."""
    from ddpm_demo.evaluation.samples import CACHE, Samples

    samples = Samples(checkpoint, setting, bf16=bool(o.bf16), cache=o.cache or CACHE)
    mine = [page for page in samples.missing if page in samples.pages[rank::world]]
    with progress_bar(
        total=len(mine) * setting.steps,
        unit="step",
        desc=f"{setting.sampler}, {setting.steps} steps",
        disable=rank > 0,
    ) as bar:
        for done in samples.draw(rank, world):
            bar.update(done - bar.n)
    if rank:
        return None
    while samples.missing:
        time.sleep(1)
    return samples.summaries(extractors, keep)


def _compare(
    name: str, extractor: Extractor, wanted: list[str], mine: Summary, theirs: Summary
) -> dict[str, Any]:
    from ddpm_demo.evaluation import metrics as m
    from ddpm_demo.evaluation.classifier import Classifier

    if isinstance(extractor, Classifier):
        said = m.judge(mine, theirs, extractor.config.classes)
        return {name: said["fd"], f"{name} says": said}
    found: dict[str, Any] = {}
    if "fid" in wanted:
        found["fid"] = m.distance(mine, theirs)
    if "is" in wanted:
        found["is"], found["is_std"] = m.inception_score(mine)
    if "precision_recall" in wanted:
        found["precision"], found["recall"] = m.precision_recall(mine, theirs)
    return found


def _line(row: dict[str, Any]) -> str:
    """A row of results for the terminal."""
    words = [f"{row['sampler']:<13} {row['steps']:>5} steps"]
    for name, value in row.items():
        if name.endswith(" says"):
            words.append(
                f"sure of {100 * value['sure']:.1f} % (data {100 * value['sure_data']:.1f} %)"
            )
        elif isinstance(value, float) and name != "guidance":
            words.append(f"{name} {value:.3f}")
    return "  ".join(words)


def _shares(judge: str, row: dict[str, Any]) -> str:
    """What a classifier takes the samples for, in percent of samples and data."""
    said = row[f"{judge} says"]
    pairs = zip(said["classes"].items(), said["classes_data"].values(), strict=True)
    words = [f"{name} {100 * mine:.1f} ({100 * theirs:.1f})" for (name, mine), theirs in pairs]
    return f"  {judge} takes them for, in % (data): {', '.join(words)}"


def _bound(o: argparse.Namespace, checkpoint: Checkpoint, data: Images) -> dict[str, Any]:
    import torch

    from ddpm_demo.evaluation.bounds import model_bound
    from ddpm_demo.evaluation.samples import bound_plots, bound_sentence
    from ddpm_demo.files import write_atomically

    x_0 = data.batch(torch.arange(min(len(data), o.bpd_images or len(data))))
    with progress_bar(total=100.0, bar_format="{l_bar}{bar}| {postfix}", desc="bound") as bar:
        for bound in model_bound(checkpoint, x_0, steps=o.bpd_steps, bf16=bool(o.bf16)):
            bar.n = round(100 * bound.done, 2)
            bar.set_postfix_str(f"{bound.n} pictures, {bound.total:.3f} bits/dim")
    print(bound_sentence(bound))
    if o.out:
        for name, svg in bound_plots(bound).items():
            write_atomically(o.out.with_name(f"{o.out.stem}-{name}.svg"), svg.encode())
    return bound.as_dict()


def _command(o: argparse.Namespace) -> str:
    """The command line for the same numbers on another machine."""
    given = {
        "--samplers": o.samplers,
        "--steps": o.steps and ",".join(map(str, o.steps)),
        "--class": o.classes,
        "--data-class": o.data_class,
        "--guidance": o.guidance,
        "--seed": o.seed or None,
        "--dataset": o.dataset and shown(o.dataset),
        "--split": o.split if o.split != "train" else None,
        "--bpd-images": o.bpd_images,
        "--bpd-steps": o.bpd_steps,
    }
    words = ["python", "-m", "ddpm_demo", "evaluate", "--model", o.model, "--metrics", o.metrics]
    words += ["-n", str(o.n)]
    for option, value in given.items():
        words += [option, str(value)] if value is not None else []
    return shlex.join([*words, *["--bf16"] * bool(o.bf16)])


def _into_card(card: Path, result: dict[str, Any], judges: list[str], command: str) -> None:
    """Replace the section of the card with a table of these results; the rest stays."""
    from ddpm_demo.files import write_atomically

    lines = [SECTION, ""]
    if result["samples"]:
        lines += [
            f"{result['n']:,} samples (seeds from {result['seed']}, class: {result['class']}) "
            f"against {result['n_data']:,} pictures: {shown(result['dataset'])}, "
            f"{result['split']} split, class: {result['data_class']}.",
            "",
        ]
        names = [k for k, v in result["samples"][0].items() if isinstance(v, float)]
        names = [name for name in names if name != "guidance"]
        sure = [f"{judge} sure of (of the data)" for judge in judges]
        lines.append("| " + " | ".join(["sampler", "steps", "guidance", *names, *sure]) + " |")
        lines.append("| --- " * (3 + len(names) + len(sure)) + "|")
        for row in result["samples"]:
            cells = [row["sampler"], str(row["steps"]), f"{row['guidance']:g}"]
            cells += [f"{row[name]:.3f}" for name in names]
            for judge in judges:
                said = row[f"{judge} says"]
                cells.append(f"{100 * said['sure']:.1f} % ({100 * said['sure_data']:.1f} %)")
            lines.append("| " + " | ".join(cells) + " |")
        if judges:
            lines += [
                "",
                "fd-NAME is the Fréchet distance in the features of this repository's own "
                "classifier NAME, which is not FID; “sure” is a probability above 0.9.",
            ]
    if "bpd" in result:
        b = result["bpd"]
        lines += [
            "",
            f"Variational bound (Ho et al. 2020, eq. 5) on {b['n']:,} test pictures: "
            f"{b['bits_per_dim']:.3f} ± {b['standard_error']:.3f} bits/dim, of which L_0 is "
            f"{b['L_0']:.3f} and L_T {b['L_T']:.4f}.",
        ]
    lines += ["", "By", "", f"    {command}"]
    old = card.read_text()
    before, _, rest = old.partition(SECTION)
    _, mark, after = rest.partition("\n## ")
    text = before.rstrip() + "\n\n" + "\n".join(lines) + "\n" + ("\n## " + after if mark else "")
    write_atomically(card, text.encode())
