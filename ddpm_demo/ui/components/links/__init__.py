"""Links that hold the state of the page: `?tab=generate&class=ship&seed=7&run=1`.

A tab adds a `Part`: the names that its links may hold, and a function that reads them. Anybody may
have written a link, so a part checks every value. One line names the values that can't be used, and
the others count. When controls change, links.js writes the address in the browser.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from ddpm_demo.config import one_of, require
from ddpm_demo.inference.spec import QUERY_MOST, parts, shortened
from ddpm_demo.models.facts import Facts
from ddpm_demo.models.zoo import available, facts
from ddpm_demo.ui.components.controls import QUICK, QUIET, answer, first_model

HERE = Path(__file__).parent
ASKED = "() => globalThis.ddpmLinks?.asked() ?? ''"
NAMED = 3  # the most problems in the line
HEAD = f"<script>{(HERE / 'links.js').read_text(encoding='utf-8')}</script>"
LINE = """
const line = element.querySelector("p");
watch("value", () => {
  const message = JSON.parse(props.value);
  line.textContent = message.problems;
  globalThis.ddpmLinks?.open(message);
});
"""
WRITTEN = 'watch("value", () => globalThis.ddpmLinks?.written("PART", props.value));'


@dataclass(frozen=True)
class Read:
    """What a part makes of a link.

    Attributes:
        controls: new values, in the order of `Part.controls`. If empty, nothing changes.
        page: what the page's scripts set by themselves, such as {"t": 400}.
        query: the same part as the page would write it, without the names in `page`.
        problems: a sentence on each value that can't be used.
    """

    controls: Sequence[Any] = ()
    page: Mapping[str, Any] = field(default_factory=dict)
    query: str = ""
    problems: Sequence[str] = ()


@dataclass(frozen=True)
class Part:
    """One part of a link. It belongs to a tab, or to another part of the page.

    Attributes:
        id: the tab's id. Parts that belong to no tab are always read.
        names: its own parameters.
        read: called with the parameters that a link holds, if it holds any.
        controls: the controls that `read` sets.
        go: the id of the button that run=1 presses, if there is one.
        stands_for: what a link means that has only names of this part.
    """

    id: str
    names: Sequence[str]
    read: Callable[[dict[str, str]], Read]
    controls: Sequence[Any] = ()
    go: str = ""
    stands_for: Callable[[dict[str, str]], str] | None = None


def link_line() -> gr.HTML:
    """The line that names a link's bad values. Lay it out above the tabs."""
    template = '<p role="status"></p>'
    return gr.HTML(html_template=template, js_on_load=LINE, elem_id="link-line", padding=False)


class Links:
    """The parts of the page's links. It connects them with the address.

    Attributes:
        tabs: by id. Links that name no tab open the first.
    """

    def __init__(self) -> None:
        self.tabs: dict[str, gr.Tab] = {}
        self.parts: list[Part] = []

    @property
    def first(self) -> str:
        return next(iter(self.tabs))

    def add(
        self, part: Part, changes: Sequence[Any] = (), write: Any = None, **options: Any
    ) -> None:
        """Add a part; call it where the part is laid out.

        Args:
            changes: the events that change the address.
            write: returns the part's query.
            options: of the event that calls `write`, such as its inputs.
        """
        self.parts.append(part)
        if write:
            unseen: dict[str, Any] = {"elem_classes": "unseen", "padding": False}
            js = WRITTEN.replace("PART", part.id)
            box = gr.HTML(html_template=" ", js_on_load=js, **unseen)
            answer(list(changes), write, options.pop("inputs", None), box, **options)

    def at_load(self, part: str, read: Callable[[dict[str, str]], Any], output: Any) -> None:
        """Fill a component of a new page with what `read` makes of a part of the link."""

        def given(asked: Any) -> Any:
            return read(self.given(asked)[1][part])

        gr.on(None, given, gr.Textbox(visible=False), output, js=ASKED, **QUIET)

    def given(self, asked: Any) -> tuple[str, dict[str, dict[str, str]], list[str], bool]:
        """The tab that a page opens with, what each part is given, problems, and whether to run.

        Args:
            asked: JSON of the page: its address, and what other tabs had before it was reloaded.
        """
        link, kept = _asked(asked)
        pairs, problems = parts(link)
        pairs = {key: value for key, value in pairs.items() if not key.startswith("__")}
        pairs |= self._meant(pairs)
        tab, run = pairs.pop("tab", self.first), pairs.pop("run", "")
        if tab not in self.tabs:
            problems.append(f"There is no tab {shortened(tab)!r}.")
            tab = self.first
        here = next((part for part in self.parts if part.id == tab), None)
        if run and (run != "1" or not here or not here.go):
            problems.append(f"run is {shortened(run)!r}, which can't be done here.")
        given = {}
        for part in self.parts:
            source = pairs
            if part.id in self.tabs and part.id != tab:
                source = parts(kept.get(part.id, ""))[0]
            given[part.id] = {name: source[name] for name in part.names if name in source}
        read = [part for part in self.parts if part is here or part.id not in self.tabs]
        known = {name for part in read for name in part.names}
        problems += [f"Nothing is called {shortened(k)!r}." for k in pairs if k not in known]
        return tab, given, problems, run == "1" and bool(here and here.go)

    def _meant(self, pairs: dict[str, str]) -> dict[str, str]:
        """What a short link stands for, such as one that has the card of a lesson alone."""
        for part in self.parts:
            if part.stands_for and pairs and pairs.keys() <= set(part.names):
                return parts(part.stands_for(pairs))[0]
        return {}

    def opened(self, asked: Any) -> list[Any]:
        """For a new page: the tab, a message to the page, and the values of all controls."""
        tab, given, problems, run = self.given(asked)
        queries, page, controls = {}, {}, []
        for part in self.parts:
            read = part.read(given[part.id]) if given[part.id] else Read()
            controls += list(read.controls) or [gr.skip()] * len(part.controls)
            queries[part.id], page[part.id] = read.query, read.page
            if part.id == tab or part.id not in self.tabs:
                problems += read.problems
        more = [f"And {len(problems) - NAMED} more."] if len(problems) > NAMED else []
        go = next((part.go for part in self.parts if part.id == tab), "") if run else ""
        line = " ".join(["Not all of this link can be used.", *problems[:NAMED], *more])
        message = {"tab": tab, "tabs": list(self.tabs), "run": go, "queries": queries, "page": page}
        message["problems"] = line if problems else ""
        # The first is open already, or the visitor has chosen another meanwhile.
        chosen = gr.skip() if tab == self.first else gr.Tabs(selected=tab)
        return [chosen, json.dumps(message), *controls]

    def connect(self, tabs: gr.Tabs, line: gr.HTML) -> None:
        """Read the address of each new page, and write it when another tab is chosen.

        Args:
            line: as `link_line` made it.
        """
        asked = gr.Textbox(visible=False)
        controls = [control for part in self.parts for control in part.controls]
        gr.on(None, self.opened, asked, [tabs, line, *controls], js=ASKED, **QUICK)
        for name, tab in self.tabs.items():
            chosen = f"() => {{ globalThis.ddpmLinks?.choose({name!r}); }}"
            tab.select(None, js=chosen, **QUIET)


def listed(name: str) -> Facts:
    """The shipped model that a link names.

    Raises:
        OSError, ValueError: there is none, or its files are broken.
    """
    one_of("model", name, available())
    return facts(name)


def checked(
    given: Mapping[str, str],
    fields: Mapping[str, str],
    checks: Mapping[str, Callable[[str, str], Any]],
) -> tuple[dict[str, Any], list[str]]:
    """The values of a link by field, and a sentence on each that can't be used.

    Args:
        fields: the name in a link of each field.
        checks: by that name, what makes a value of name and text, or raises `ValueError`.
    """
    values, problems = {}, []
    for key, name in fields.items():
        if name in given:
            try:
                values[key] = checks[name](name, given[name])
            except ValueError as error:
                problems.append(str(error))
    return values, problems


def query_of(fields: Mapping[str, str], name: str, asked: Any, usual: Mapping[str, Any]) -> str:
    """The query for the values that differ from what the tab offers.

    Args:
        fields: the fields of `asked`, each with its name in a link.
        usual: what the tab offers, by field.
    """
    pairs = {} if name == first_model() else {"model": name}
    for field_, word in fields.items():
        value = getattr(asked, field_)
        if value != usual.get(field_, value):
            pairs[word] = words(value)
    return urlencode(pairs)


def words(value: Any) -> str:
    """A value as links hold it."""
    return ",".join(map(str, value)) if isinstance(value, list) else f"{value}"


def whole(name: str, text: str, low: int, high: int) -> int:
    """Read a whole number from a link.

    Raises:
        ValueError: it is not a whole number from `low` to `high`.
    """
    ok = bool(re.fullmatch(r"[0-9]{1,12}", text)) and low <= int(text) <= high
    require(ok, name, shortened(text), f"a whole number from {low:,} to {high:,}")
    return int(text)


def _asked(asked: Any) -> tuple[str, dict[str, str]]:
    """The address's query, and other tabs' queries, as the page sent them."""
    try:
        said = json.loads(asked)
        link, kept = said["link"], said["kept"]
        if isinstance(link, str) and isinstance(kept, dict):
            words = {k: v for k, v in kept.items() if isinstance(v, str) and len(v) < QUERY_MOST}
            return link, words
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    return "", {}
