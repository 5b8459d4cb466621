"""The command experiment: run an experiment, and write a picture for a slide and its numbers."""

from __future__ import annotations

import argparse
from pathlib import Path

from ddpm_demo.cli.options import add_settings, device_argument, path, progress_bar, suffix
from ddpm_demo.config import settings
from ddpm_demo.experiments import EXPERIMENTS, Experiment


def experiment_arguments(p: argparse.ArgumentParser) -> None:
    names = p.add_subparsers(
        title="experiments", required=True, metavar="NAME", help="the question to answer"
    )
    for row in EXPERIMENTS.values():
        one = names.add_parser(
            row.name,
            help=row.question,
            description=f"{row.question} {row.about}",
            formatter_class=p.formatter_class,
        )
        add_settings(one, row.settings, list(settings(row.settings)))
        device_argument(one)
        one.add_argument(
            "--out",
            type=path,
            default=Path(f"{row.name}.png"),
            help="the picture; the numbers go beside it, as .json, and a film as .gif",
        )
        one.set_defaults(run_command=_experiment, row=row)


def _experiment(o: argparse.Namespace) -> None:
    suffix(o.out, ".png")
    suffix(o.out.with_suffix(".json"), ".json")
    row: Experiment = o.row
    asked = row.ask({name: getattr(o, name) for name in settings(row.settings)})

    from ddpm_demo.experiments.slide import as_gif, as_json, command, film_of, slide
    from ddpm_demo.experiments.tools import Tools
    from ddpm_demo.machine.devices import keep_memory, pick
    from ddpm_demo.machine.files import write_atomically
    from ddpm_demo.media import encode
    from ddpm_demo.models.load import load_checkpoint

    keep_memory()
    device = pick(o.device)
    tools = Tools(
        load=lambda name: load_checkpoint(name, device),
        bf16=bool(o.bf16),
        device=device,
        folder=o.out.with_suffix("") if row.keeps else None,
    )
    with progress_bar(total=100, unit="%", bar_format="{l_bar}{bar}| {elapsed}<{remaining}") as bar:
        for report in row(asked, tools):
            bar.set_description(report.line)
            bar.update(100 * report.done - bar.n)
    about = {"program": "ddpm_demo", "command": command(row, asked, o.out.name)}
    encode.write(o.out, [slide(row, asked, report)], metadata=about)
    numbers = o.out.with_suffix(".json")
    write_atomically(numbers, as_json(row, asked, report).encode())
    print(o.out)
    print(numbers)
    if film := film_of(report):
        write_atomically(o.out.with_suffix(".gif"), as_gif(film))
        print(o.out.with_suffix(".gif"))
    if row.keeps:
        print(o.out.with_suffix(""))
