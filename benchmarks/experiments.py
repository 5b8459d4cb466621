"""Measures how long each experiment takes with its defaults, to its first picture and in all.

    python -m benchmarks.experiments                      all experiments
    python -m benchmarks.experiments race between         only these

The limits are 3 s and 60 s on two cores. *How does it learn?* takes the time that its setting says.
Models are loaded anew for each experiment, as for its first visitor. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from ddpm_demo.config import one_of
from ddpm_demo.experiments import EXPERIMENTS, Experiment
from ddpm_demo.experiments.tools import Hidden, Panel, Plot, Report, Sheet, Tools
from ddpm_demo.machine.devices import keep_memory

FIRST, ALL = 3.0, 60.0  # the limits in seconds
WATCHED = "learn"  # this experiment takes as long as its setting says


def has_picture(panel: Panel) -> bool:
    """True if there is something to look at."""
    if isinstance(panel, Sheet):
        return any(cell is not None for row in panel.cells for cell in row)
    if isinstance(panel, Hidden):
        return any(map(has_picture, panel.panels))
    return isinstance(panel, Plot)


def measured(row: Experiment, tools: Tools) -> tuple[float, float, Report]:
    """Seconds until the first picture and until the end, and the last report."""
    start, first, report = time.perf_counter(), 0.0, Report(0)
    for report in row(row.settings(), tools):
        if not first and any(map(has_picture, report.panels)):
            first = time.perf_counter() - start
    return first, time.perf_counter() - start, report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments; all if none")
    names = parser.parse_args().names or list(EXPERIMENTS)
    for name in names:
        one_of("experiment", name, tuple(EXPERIMENTS))
    keep_memory()
    print(f"{'card':<10} {'first picture':>13} {'in all':>9}")
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            tools = Tools(folder=Path(folder) / name if EXPERIMENTS[name].keeps else None)
            first, whole, _ = measured(EXPERIMENTS[name], tools)
        late = "" if first <= FIRST else f" first picture after more than {FIRST:g} s"
        long = "" if whole <= ALL or name == WATCHED else f" more than {ALL:g} s"
        print(f"{name:<10} {first:11.1f} s {whole:7.1f} s{late}{long}", flush=True)


if __name__ == "__main__":
    main()
