"""What a link holds of the tab: the experiment, its settings, and run=1."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from ddpm_demo.config import settings
from ddpm_demo.experiments import EXPERIMENTS
from ddpm_demo.ui.components.links import Read
from ddpm_demo.ui.experiments.asked import asked, names, uploads

_EVERY = dict.fromkeys(n for r in EXPERIMENTS.values() for n in names(r) if n not in uploads(r))
NAMES = ("experiment", *_EVERY)


def read(given: dict[str, str]) -> Read:
    """New values of the list of cards and of all controls. Bad values change nothing."""
    problems = []
    wanted = given.get("experiment", "")
    row = EXPERIMENTS.get(wanted) or next(iter(EXPERIMENTS.values()))
    if wanted and wanted != row.name:
        problems.append(f"There is no experiment {wanted[:40]!r}.")
    mine: dict[str, Any] = {}
    for name in (name for name in given if name != "experiment"):
        try:
            row.ask({name: given[name]})
            mine[name] = given[name]
        except ValueError as error:
            problems.append(str(error))
    made = row.ask(mine)
    values: list[Any] = [row.name]
    for each in EXPERIMENTS.values():
        asked_for = made if each is row else each.settings()
        values += [None if n in uploads(each) else _shown(asked_for, n) for n in names(each)]
    return Read(values, {}, _query(row.name, made), problems)


def _shown(made: Any, name: str) -> Any:
    value = getattr(made, name)
    return ", ".join(map(str, value)) if isinstance(value, tuple) else value


def _query(name: str, made: Any) -> str:
    pairs = [("experiment", name)]
    for key, (field, about) in settings(type(made)).items():
        if not about.upload and getattr(made, key) != field.default:
            pairs.append((key, str(_shown(made, key)).replace(" ", "")))
    return urlencode(pairs)


def query(name: Any, *values: Any) -> str:
    """The address's part for the values of the controls. Empty while one is not allowed."""
    try:
        row, made = asked(name, values)
    except ValueError:
        return ""
    return _query(row.name, made)
