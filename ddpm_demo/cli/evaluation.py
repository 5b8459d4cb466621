"""The command evaluate: measure a model's samples against data, and its bits/dim."""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ddpm_demo import config as c
from ddpm_demo.cli import screen
from ddpm_demo.cli.evaluation_plan import Plan, make_plan
from ddpm_demo.cli.options import (
    add_settings,
    class_argument,
    count,
    dataset_name,
    device_argument,
    model_name,
    numbers,
    path,
    progress_bar,
)
from ddpm_demo.config import SAMPLERS
from ddpm_demo.data import shown
from ddpm_demo.evaluation.metrics import DATA_KEPT, METRICS, written
from ddpm_demo.machine import files

if TYPE_CHECKING:
    from ddpm_demo.evaluation.bounds import Bound
    from ddpm_demo.evaluation.features import Extractor, Summary


def evaluate_arguments(p: argparse.ArgumentParser) -> None:
    known = "; ".join(f"{written(name)}: {metric.help}" for name, metric in METRICS.items())
    p.add_argument(
        "--model",
        type=model_name,
        required=True,
        help="a shipped model, a file, a folder, a Hub repo",
    )
    words = f"one or more of these, separated by commas. {known}"
    p.add_argument("--metrics", required=True, help=words)
    p.add_argument("-n", type=count, default=5000, help="samples")
    p.add_argument(
        "--samplers",
        help=f"some of {', '.join(SAMPLERS)}, separated by commas; default: the model's own",
    )
    p.add_argument(
        "--steps",
        type=numbers,
        help="numbers of steps, separated by commas; default: the model's own",
    )
    class_argument(p)
    p.add_argument(
        "--data-class", help="the class to compare with (default: the one that is drawn, or all)"
    )
    add_settings(p, c.SampleConfig, ["guidance"], unset="the model's own, else ")
    add_settings(p, c.SampleConfig, ["seed"])
    p.add_argument(
        "--dataset",
        type=dataset_name,
        help="the data to compare with; default: what the model was trained on",
    )
    p.add_argument("--data-dir", type=path, help="where the data sets are or are downloaded to")
    p.add_argument(
        "--split", default="train", choices=("train", "test"), help="which part of the data"
    )
    p.add_argument("--bpd-images", type=count, help="test pictures for bpd; default: all")
    p.add_argument("--bpd-steps", type=count, help="terms of the bound; default: all T")
    p.add_argument("--cache", type=path, help="folder for samples, from which a run goes on")
    p.add_argument("--out", type=path, help="a .json file for the results; plots go beside it")
    p.add_argument("--card", action="store_true", help="write the results into the model's card")
    device_argument(p)
    p.set_defaults(run_command=_evaluate)


def _evaluate(o: argparse.Namespace) -> None:
    """Run the command. Results are written before they are shown, so that none are lost."""
    from ddpm_demo.evaluation import report
    from ddpm_demo.machine.devices import keep_memory

    keep_memory()
    plan = make_plan(o)
    result = _about(plan)

    def save() -> None:
        if o.out and plan.rank == 0:
            report.write_json(o.out, result)

    for row in _rows(plan, result):
        result["samples"].append(row)
        save()
        print(*report.row_lines(row), sep="\n", flush=True)
        if not (o.out or plan.card):
            screen.require()
    if plan.tested is not None:
        bound = _bound(plan)
        result["bpd"] = bound.as_dict()
        save()
        if o.out:
            report.write_plots(o.out, bound)
        print(report.bound_sentence(bound))
    if plan.rank == 0:
        if plan.card:
            report.write_card(plan.card, result, _command(o))
        for place in filter(None, (o.out, plan.card)):
            print(place)


def _about(plan: Plan) -> dict[str, Any]:
    """The description of the evaluation. Results are added later."""
    o, source = plan.o, plan.source
    return {
        "model": plan.checkpoint.name,
        "n": o.n,
        "seed": o.seed,
        "dataset": shown(source.dataset),
        "split": source.split,
        "class": plan.checkpoint.facts.class_words(plan.grid[0].labels),
        "data_class": source.only or "all",
        "samples": [],
    }


def _rows(plan: Plan, result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Draw and measure each setting. Only the process with rank 0 reports results."""
    if not plan.extractors:
        return
    distinct = list(dict.fromkeys(plan.extractors.values()))
    data = {} if plan.rank else {e: _reference(plan, e) for e in distinct}
    result["n_data"] = next((summary.n for summary in data.values()), 0)
    for setting in plan.grid:
        summaries = _draw(plan, setting, distinct)
        if summaries is None:
            continue
        mine = dict(zip(distinct, summaries, strict=True))
        row: dict[str, Any] = {"sampler": setting.sampler, "steps": setting.steps}
        row |= {"guidance": setting.guidance, "start": setting.start}
        for a in plan.asked:
            if a.metric.compare:
                extractor = plan.extractors[a.name]
                row |= a.metric.compare(a.name, extractor, mine[extractor], data[extractor])
        yield row


def _reference(plan: Plan, extractor: Extractor) -> Summary:
    """An extractor's statistics of the data."""
    keep = DATA_KEPT if plan.keeps(extractor) else 0
    try:
        cache = files.cache_folder("statistics", "--cache")
    except ValueError:  # there is no home folder, so nothing is cached
        cache = None
    with progress_bar(unit="picture", desc="data") as bar:
        for summary, total in plan.source.walk(extractor, keep=keep, cache=cache):
            bar.total = total
            bar.update(summary.n - bar.n)
    return summary


def _draw(plan: Plan, setting: c.SampleConfig, extractors: list[Extractor]) -> list[Summary] | None:
    """Draw this process's share. The first process waits for the others and summarises all."""
    from ddpm_demo.evaluation.samples import Samples

    bf16 = bool(plan.o.bf16)
    samples = Samples(plan.checkpoint, setting, bf16=bf16, cache=plan.cache)
    share = samples.pages[plan.rank :: plan.world]
    mine = [page for page in samples.missing if page in share]
    with progress_bar(
        total=len(mine) * setting.steps,
        unit="step",
        desc=f"{setting.sampler}, {setting.steps} steps",
        disable=plan.rank > 0,
    ) as bar:
        for done in samples.draw(plan.rank, plan.world):
            bar.update(done - bar.n)
    if plan.rank:
        return None
    while samples.missing:
        time.sleep(1)
    return samples.summaries(extractors, max(setting.n * plan.keeps(e) for e in extractors))


def _bound(plan: Plan) -> Bound:
    from ddpm_demo.evaluation.bounds import BoundConfig, model_bound

    o, config = plan.o, BoundConfig(plan.o.bpd_steps)
    with progress_bar(total=100.0, bar_format="{l_bar}{bar}| {postfix}", desc="bound") as bar:
        for bound in model_bound(plan.checkpoint, plan.tested, config, bf16=bool(o.bf16)):
            bar.n = round(100 * bound.done, 2)
            bar.set_postfix_str(f"{bound.n} pictures, {bound.total:.3f} bits/dim")
    return bound


def _command(o: argparse.Namespace) -> str:
    """The command line that gives the same numbers on another machine."""
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
