"""Reads lessons from text files, as docs/lessons.md describes, and checks them line by line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

import yaml

SHIPPED = Path(__file__).resolve().parents[2] / "lessons"
MOST_WORDS, MOST_CARDS, MOST_CHARS, MOST_BYTES = 60, 12, 300, 100_000
LATE = 100  # the order of a lesson that doesn't say
HIDDEN = ("x_t", "x0_hat", "eps_hat", "z")  # panes that a card can cover
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,60}", re.ASCII)
SETTING = re.compile(r"(open|hide|show):\s*(.*)", re.ASCII)
CHOICE = re.compile(r"- \[([ x])\] (.+)")


@dataclass(frozen=True)
class Choice:
    """A possible answer, and the reply to it."""

    text: str
    right: bool
    reply: str = ""


@dataclass(frozen=True)
class Card:
    """One card of a lesson.

    Attributes:
        open: the query of the page's address that sets the app up for the question.
        show: the query to open after the answer; empty if the run is there already.
        hide: the panes to cover until the answer.
        explained: one sentence to show after the answer.
        line: its line in the file, from 1.
    """

    title: str
    words: str
    open: str
    show: str
    hide: tuple[str, ...]
    question: str
    choices: tuple[Choice, ...]
    explained: str
    line: int


@dataclass(frozen=True)
class Lesson:
    """A lesson; its name is that of its file."""

    name: str
    title: str
    about: str
    minutes: int
    cards: tuple[Card, ...]
    order: int


class LessonError(ValueError):
    """A lesson's file has a mistake. The message says where, and which."""


def read_lessons(folders: Iterable[Path]) -> dict[str, Lesson]:
    """All lessons of some folders, by name and in order. A later folder wins.

    Raises:
        LessonError: a file is wrong, or a folder isn't there.
    """
    found = {}
    for folder in folders:
        if not folder.is_dir():
            raise LessonError(f"There is no folder of lessons {folder}.")
        for path in sorted(folder.glob("*.md")):
            found[path.stem] = read_lesson(path)
    return dict(sorted(found.items(), key=lambda pair: (pair[1].order, pair[0])))


def read_lesson(path: Path) -> Lesson:
    """Read one lesson.

    Raises:
        LessonError: it is not a lesson; the message has file and line.
    """
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LessonError(f"{path.name} can't be read as UTF-8 text: {error}") from None
    lines = _Lines(path.name, text)
    lines.require(len(raw) <= MOST_BYTES, 1, f"the file has more than {MOST_BYTES:,} bytes")
    lines.require(bool(NAME.fullmatch(path.stem)), 1, "a file's name has a to z, 0 to 9 and -")
    title, about, minutes, order, first = _front(lines)
    cards = tuple(_card(lines, *block) for block in _blocks(lines, first))
    lines.require(1 <= len(cards) <= MOST_CARDS, first, f"a lesson has 1 to {MOST_CARDS} cards")
    return Lesson(path.stem, title, about, minutes, cards, order)


class _Lines:
    """The lines of a file, and complaints about them."""

    def __init__(self, name: str, text: str) -> None:
        self.name, self.all = name, text.splitlines()

    def require(self, ok: object, line: int, what: str) -> None:
        if not ok:
            raise LessonError(f"{self.name}, line {line}: {what}.")


def _front(lines: _Lines) -> tuple[str, str, int, int, int]:
    """Title, about, minutes and order, and the index of the first line that follows."""
    fences = [i for i, line in enumerate(lines.all) if line.strip() == "---"][:2]
    ok = len(fences) == 2 and fences[0] == 0
    lines.require(ok, 1, "a lesson begins with title, about and minutes between two lines of ---")
    try:
        said = yaml.safe_load("\n".join(lines.all[1 : fences[1]])) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = 2 + (mark.line if mark else 0)
        raise LessonError(f"{lines.name}, line {line}: this is not YAML.") from None
    lines.require(isinstance(said, dict), 2, "each line here is NAME: VALUE")
    names = {"title": str, "about": str, "minutes": int}
    order = said.pop("order", LATE)
    lines.require(type(order) is int, 2, "order is not a number")
    for name in said:
        lines.require(name in names, 2, f"{name!r} is not one of title, about, minutes and order")
    for name, kind in names.items():
        ok = type(said.get(name)) is kind and said[name]
        lines.require(ok, 2, f"{name} is missing, or not a {'text' if kind is str else 'number'}")
        lines.require(len(str(said[name])) <= MOST_CHARS, 2, f"{name} is too long")
    lines.require(1 <= said["minutes"] <= 90, 2, "minutes are 1 to 90")
    return said["title"], said["about"], said["minutes"], order, fences[1] + 1


def _blocks(lines: _Lines, first: int) -> Iterator[tuple[int, int]]:
    """Where the cards begin and end."""
    starts = [i for i, text in enumerate(lines.all) if text.startswith("## ") and i >= first]
    for i in range(first, starts[0] if starts else len(lines.all)):
        lines.require(not lines.all[i].strip(), i + 1, "before the first card, nothing can stand")
    yield from zip(starts, [*starts[1:], len(lines.all)], strict=True)


@dataclass
class _Draft:
    """A card that is being read: its texts, each with its line."""

    settings: dict[str, str] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    question: str = ""
    choices: list[tuple[int, bool, str, str]] = field(default_factory=list)
    explained: str = ""


def _card(lines: _Lines, start: int, end: int) -> Card:
    draft, title = _Draft(), lines.all[start][3:].strip()
    for i in range(start + 1, end):
        if lines.all[i].strip():
            _take(lines, draft, i)
    line = start + 1
    settings, words = draft.settings, " ".join(draft.words)
    lines.require(title, line, "a card has a title after ##")
    lines.require(words, line, "the card has no words")
    count = len(words.split())
    lines.require(
        count <= MOST_WORDS, line, f"the card has {count} words; allowed are {MOST_WORDS}"
    )
    lines.require(draft.question, line, "the card has no question, which begins with ?")
    lines.require(settings.get("open"), line, "the card has no `open:` with an address")
    lines.require(2 <= len(draft.choices) <= 6, line, "a question has 2 to 6 choices")
    right = sum(ok for _, ok, _, _ in draft.choices)
    lines.require(right == 1, line, f"one choice is right, as in - [x]; here {right} are")
    lines.require(draft.explained, line, "the card has no explanation, which begins with =")
    for at, ok, _, reply in draft.choices:
        said = "a wrong choice needs what is said to it, indented below it"
        lines.require(ok or reply, at, said)
    hide = tuple(settings.get("hide", "").replace(",", " ").split())
    choices = tuple(Choice(text, ok, reply) for _, ok, text, reply in draft.choices)
    opened = settings["open"]
    here = dict(parse_qsl(opened))
    runs = here.get("tab", "generate") == "generate" and "run" not in here
    shown = settings.get("show", f"{opened}&run=1" if runs else "")
    asked = (draft.question, choices, draft.explained)
    return Card(title, words, opened, shown, hide, *asked, line)


def _take(lines: _Lines, draft: _Draft, i: int) -> None:
    """Read one line of a card. It is not empty."""
    text, line = lines.all[i].rstrip(), i + 1
    lines.require(len(text) <= 4 * MOST_CHARS, line, "the line is too long")
    setting, choice = SETTING.fullmatch(text), CHOICE.fullmatch(text)
    if setting and not draft.words:
        _set(lines, draft, line, *setting.groups())
    elif choice:
        lines.require(draft.question, line, "choices come after the question")
        draft.choices.append((line, choice[1] == "x", choice[2].strip(), ""))
    elif text.startswith("  ") and draft.choices:
        at, ok, said, reply = draft.choices[-1]
        draft.choices[-1] = (at, ok, said, f"{reply} {text.strip()}".strip())
    elif text.startswith("? "):
        lines.require(not draft.question, line, "a card has one question")
        draft.question = text[2:].strip()
    elif text.startswith("= "):
        lines.require(
            not draft.explained and draft.choices, line, "= comes once, after the choices"
        )
        draft.explained = text[2:].strip()
    elif draft.explained:
        draft.explained += f" {text.strip()}"
    else:
        lines.require(not draft.choices, line, "after choices, only their replies and = can stand")
        if draft.question:
            draft.question += f" {text.strip()}"
        else:
            draft.words.append(text.strip())


def _set(lines: _Lines, draft: _Draft, line: int, name: str, value: str) -> None:
    """A line such as `open: model=mnist&steps=10`."""
    lines.require(name not in draft.settings, line, f"{name}: comes twice")
    value = value.strip().removeprefix("?")
    if name == "hide":
        bad = [v for v in value.replace(",", " ").split() if v not in HIDDEN]
        allowed = ", ".join(HIDDEN)
        lines.require(value and not bad, line, f"hide: takes panes, which are {allowed}")
    else:
        try:
            pairs = parse_qsl(value, keep_blank_values=True, strict_parsing=True)
        except ValueError:
            pairs = []
        lines.require(pairs, line, f"{name}: is a link's part after ?, as in model=mnist&steps=10")
        own = [key for key, _ in pairs if key in ("lesson", "card")]
        lines.require(not own, line, f"{name}: opens the app, not another card")
    draft.settings[name] = value
