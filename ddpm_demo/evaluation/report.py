"""The results of an evaluation in words, as plots, and as a section of a model's card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddpm_demo.data import shown
from ddpm_demo.evaluation.bounds import Bound
from ddpm_demo.machine.files import write_atomically
from ddpm_demo.media.plots import as_file, line_plot

SECTION = "## Evaluation"
SETTINGS = ("sampler", "steps", "guidance", "start")  # the other columns of a row are results
SAYS = " says"  # the name of a column with a classifier's verdict ends like this


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The results in a row that are numbers."""
    return {k: v for k, v in row.items() if isinstance(v, float) and k not in SETTINGS}


def said(row: Mapping[str, Any]) -> dict[str, Any]:
    """Each classifier's verdict, by the name of its metric."""
    return {k.removesuffix(SAYS): v for k, v in row.items() if k.endswith(SAYS)}


def sure(verdict: Mapping[str, Any]) -> str:
    return f"{100 * verdict['sure']:.1f} % (data {100 * verdict['sure_data']:.1f} %)"


def row_lines(row: Mapping[str, Any]) -> list[str]:
    """A row of results for the terminal, and a line for each classifier's verdict."""
    words = [f"{row['sampler']:<13} {row['steps']:>5} steps"]
    words += [f"{name} {value:.3f}" for name, value in numbers(row).items()]
    words += [f"clearly one class: {sure(verdict)}" for verdict in said(row).values()]
    return ["  ".join(words), *(_shares(name, verdict) for name, verdict in said(row).items())]


def _shares(name: str, verdict: Mapping[str, Any]) -> str:
    """How often a classifier chooses each class, in percent of samples and data."""
    pairs = zip(verdict["classes"].items(), verdict["classes_data"].values(), strict=True)
    words = [f"{kind} {100 * mine:.1f} ({100 * data:.1f})" for (kind, mine), data in pairs]
    return f"  classes that {name} sees, in % (data): {', '.join(words)}"


def bound_sentence(bound: Bound) -> str:
    """The bound and its parts in bits/dim."""
    return (
        f"{bound.total:.3f} ± {bound.error:.3f} bits/dim on {bound.n:,} test pictures: "
        f"L_T {bound.prior:.4f}, L_0 {float(bound.terms[0]):.3f}, "
        f"L_1 to L_T-1 {float(bound.terms[1:].sum()):.3f}"
    )


def bound_plots(bound: Bound) -> dict[str, str]:
    """SVGs by name: the terms over t, and distortion over rate (Ho et al. 2020, fig. 5)."""
    middle, (rate, rmse) = (bound.first + bound.last) / 2, bound.curve
    return {
        "terms": line_plot(
            {"L": (middle.tolist(), bound.per_t.tolist())}, "t", "L of t, bits/dim", log=True
        ),
        "rate-distortion": line_plot(
            {"": (rate.tolist(), rmse.tolist())}, "rate, bits/dim", "distortion, RMSE of 0 to 255"
        ),
    }


# ---- files --------------------------------------------------------------------------------------


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    write_atomically(path, (json.dumps(result, indent=1) + "\n").encode())


def write_plots(path: Path, bound: Bound) -> None:
    """Write the plots of a bound beside the results at `path`."""
    for name, svg in bound_plots(bound).items():
        write_atomically(path.with_name(f"{path.stem}-{name}.svg"), as_file(svg).encode())


def write_card(card: Path, result: Mapping[str, Any], command: str) -> None:
    """Write these results into their section of the card. The rest of the card stays."""
    lines = [SECTION, ""]
    if result["samples"]:
        lines += [*_table(result), ""]
    if "bpd" in result:
        lines += [_bound_line(result["bpd"]), ""]
    lines += ["By", "", f"    {command}"]
    before, _, rest = card.read_text(encoding="utf-8").partition(SECTION)
    _, mark, after = rest.partition("\n## ")
    text = before.rstrip() + "\n\n" + "\n".join(lines) + "\n" + ("\n## " + after if mark else "")
    write_atomically(card, text.encode())


def _table(result: Mapping[str, Any]) -> list[str]:
    rows = result["samples"]
    names, judges = list(numbers(rows[0])), list(said(rows[0]))
    head = ["sampler", "steps", "guidance", *names, *(f"{j} sure of (of the data)" for j in judges)]
    lines = [
        f"{result['n']:,} samples (seeds from {result['seed']}, class: {result['class']}) "
        f"against {result['n_data']:,} pictures: {shown(result['dataset'])}, "
        f"{result['split']} split, class: {result['data_class']}.",
        "",
        "| " + " | ".join(head) + " |",
        "| --- " * len(head) + "|",
    ]
    for row in rows:
        cells = [row["sampler"], str(row["steps"]), f"{row['guidance']:g}"]
        cells += [f"{numbers(row)[name]:.3f}" for name in names]
        for verdict in said(row).values():
            share, data = verdict["sure"], verdict["sure_data"]
            cells.append(f"{100 * share:.1f} % ({100 * data:.1f} %)")
        lines.append("| " + " | ".join(cells) + " |")
    if judges:
        lines += [
            "",
            "fd-NAME is the Fréchet distance in the features of this repository's own "
            "classifier NAME. It is not FID. “Sure” means a probability above 0.9.",
        ]
    return lines


def _bound_line(bound: Mapping[str, Any]) -> str:
    return (
        f"Variational bound (Ho et al. 2020, eq. 5) on {bound['n']:,} test pictures: "
        f"{bound['bits_per_dim']:.3f} ± {bound['standard_error']:.3f} bits/dim, of which L_0 is "
        f"{bound['L_0']:.3f} and L_T {bound['L_T']:.4f}."
    )
