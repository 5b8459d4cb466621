"""Lessons are read as docs/lessons.md says, and what is wrong in a file is said with its line."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ddpm_demo.ui.app import build_app
from ddpm_demo.ui.components.links import Links
from ddpm_demo.ui.lessons.format import SHIPPED, Lesson, LessonError, read_lesson, read_lessons

ROOT = Path(__file__).parent.parent
GOOD = """---
title: A lesson
about: What it is about.
minutes: 5
---

## First card

open: tab=generate&model=mnist&steps=5
hide: x0_hat, z

Two lines of
words.

? What is seen?

- [x] This
- [ ] That
  Look again:
  it was this.

= Because it is
so.
"""


def write(folder: Path, text: str, name: str = "a-lesson.md") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_lesson_is_read(tmp_path: Path) -> None:
    lesson = read_lesson(write(tmp_path, GOOD))
    assert (lesson.name, lesson.title, lesson.minutes) == ("a-lesson", "A lesson", 5)
    (card,) = lesson.cards
    assert card.words == "Two lines of words."
    assert (card.open, card.hide) == ("tab=generate&model=mnist&steps=5", ("x0_hat", "z"))
    assert card.show == card.open + "&run=1"
    assert [(c.text, c.right, c.reply) for c in card.choices] == [
        ("This", True, ""),
        ("That", False, "Look again: it was this."),
    ]
    assert card.explained == "Because it is so."


def test_what_was_run_already_is_not_run_again(tmp_path: Path) -> None:
    text = GOOD.replace("steps=5", "steps=5&run=1")
    assert read_lesson(write(tmp_path, text)).cards[0].show == ""


WRONG = [
    ("---\ntitle", "title", 1, "between two lines of ---"),
    ("title: A lesson", "title: [", 4, "YAML"),
    ("minutes: 5", "minutes: soon", 2, "minutes is missing"),
    ("minutes: 5", "minutes: 500", 2, "1 to 90"),
    ("about:", "subject:", 2, "'subject' is not one of"),
    ("minutes: 5", "minutes: 5\norder: first", 2, "order is not"),
    ("## First card", "First card", 7, "before the first card"),
    ("## First card", "## ", 7, "has a title"),
    ("open: tab=generate&model=mnist&steps=5", "", 7, "no `open:`"),
    ("open: tab=generate&model=mnist&steps=5", "open: nothing", 9, "part after ?"),
    ("open: tab=generate", "open: lesson=other&tab=generate", 9, "not another card"),
    ("hide: x0_hat, z", "hide: x_0", 10, "x_t, x0_hat"),
    ("hide: x0_hat, z", "open: a=b", 10, "open: comes twice"),
    ("Two lines of", "word " * 61, 7, "62 words"),
    ("Two lines of\nwords.", "", 7, "no words"),
    ("? What is seen?", "", 17, "after the question"),
    ("words.\n", "words.\n\n? Why?\n", 17, "one question"),
    ("- [ ] That", "- [x] That", 7, "one choice is right"),
    ("- [x] This", "- [ ] This\n  No.", 7, "one choice is right"),
    ("- [x] This\n", "", 7, "2 to 6 choices"),
    ("  Look again:\n  it was this.\n", "", 18, "needs what is said"),
    ("= Because it is\nso.", "", 7, "no explanation"),
    ("  it was this.", "it was this.", 20, "only their replies"),
]


@pytest.mark.parametrize(("old", "new", "line", "said"), WRONG, ids=[w[3] for w in WRONG])
def test_what_is_wrong_is_said_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, said: str
) -> None:
    assert old in GOOD
    with pytest.raises(LessonError) as error:
        read_lesson(write(tmp_path, GOOD.replace(old, new, 1)))
    assert str(error.value).startswith(f"a-lesson.md, line {line}: ")
    assert said in str(error.value)


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(LessonError, match=r"My Lesson.md, line 1: a file's name"):
        read_lesson(write(tmp_path, GOOD, "My Lesson.md"))
    with pytest.raises(LessonError, match="no folder of lessons"):
        read_lessons([tmp_path / "none"])
    (tmp_path / "b.md").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LessonError, match=r"b.md can't be read"):
        read_lesson(tmp_path / "b.md")
    many = GOOD + GOOD[GOOD.index("## ") :] * 12
    with pytest.raises(LessonError, match="1 to 12 cards"):
        read_lesson(write(tmp_path, many))


def test_ones_own_come_after_the_shipped_and_may_replace_them(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    write(tmp_path, GOOD, "noise-is-easy.md")
    found = read_lessons([SHIPPED, tmp_path])
    assert found["noise-is-easy"].title == found["a-lesson"].title == "A lesson"
    assert len(found) == len(read_lessons([SHIPPED])) + 1


@pytest.fixture(scope="module")
def links() -> Links:
    """Those of the page."""
    (opened,) = {
        function.fn.__self__
        for function in build_app().fns.values()
        if getattr(function.fn, "__func__", None) is Links.opened
    }
    return opened


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("lesson=none", "Lesson must be"),
        ("lesson=one-step&card=99", "Card must be"),
        ("lesson=<b>&card=x", "Lesson must be"),
        ("card=2", "Lesson must be"),
    ],
)
def test_what_is_no_card_is_said(links: Links, query: str, said: str) -> None:
    told = json.loads(links.opened(json.dumps({"link": query, "kept": {}}))[1])
    assert said in told["problems"]
    assert "lesson" not in told["page"] or not told["page"]["lesson"]


@pytest.mark.parametrize("lesson", read_lessons([SHIPPED]).values(), ids=lambda one: one.name)
def test_a_shipped_lesson_opens_what_there_is(links: Links, lesson: Lesson) -> None:
    assert 4 <= len(lesson.cards) <= 8
    for number, card in enumerate(lesson.cards, 1):
        for query in filter(None, (card.open, card.show)):
            asked = f"?{query}&lesson={lesson.name}&card={number}"
            told = json.loads(links.opened(json.dumps({"link": asked, "kept": {}}))[1])
            assert told["problems"] == ""
            assert told["page"]["lesson"] == {"lesson": lesson.name, "card": number}
            assert bool(told["run"]) == ("run=1" in query)


def test_a_link_with_a_card_alone_sets_the_app_up_at_once(links: Links) -> None:
    def told(query: str) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(links.opened(json.dumps({"link": query, "kept": {}}))[1])
        return said

    short = told("?lesson=find-the-bug&card=1&__theme=dark")
    assert short["tab"] == "experiments"
    assert "bug=short" in short["queries"]["experiments"]
    assert told("?lesson=what-the-network-sees")["run"] == "go"
    assert told("?lesson=find-the-bug&card=1&seed=3")["tab"] == "generate"  # whoever says more
    assert told("")["tab"] == "generate"


def test_the_example_of_the_docs_is_a_lesson(tmp_path: Path) -> None:
    docs = (ROOT / "docs" / "lessons.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```markdown\n(.*?)^```$", docs, re.M | re.S)
    assert read_lesson(write(tmp_path, example)).cards
