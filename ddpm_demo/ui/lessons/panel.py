"""The panel that shows lessons beside the app. panel.js is its half in the browser."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from ddpm_demo.config import one_of
from ddpm_demo.media.web_page import joined
from ddpm_demo.ui.components.links import Links, Part, Read, whole
from ddpm_demo.ui.lessons.format import SHIPPED, Lesson, read_lessons
from ddpm_demo.ui.rooms.lectern import lectern
from ddpm_demo.ui.rooms.phones import ROOMS
from ddpm_demo.ui.server import settings

HERE = Path(__file__).parent


def build_lessons(links: Links) -> None:
    """Lay out the panel, and add to links which card is open.

    Raises:
        LessonError: a lesson's file is wrong.
    """
    lessons = read_lessons([SHIPPED, *settings.lessons])
    style = (HERE / "panel.css").read_text(encoding="utf-8")

    def lesson(name: Any) -> dict[str, Any]:
        """Reachable by anyone who can reach the page: a lesson, or {"error": a sentence}."""
        try:
            return dataclasses.asdict(_named(lessons, name))
        except ValueError as problem:
            return {"error": str(problem)}

    gr.HTML(
        html_template=(HERE / "panel.html").read_text(encoding="utf-8"),
        js_on_load=joined(HERE, ("room.js", "panel.js")),
        head=f"<style>{style}</style>",
        server_functions=[lesson, *lectern(lessons, ROOMS)],
        lessons=[_listed(one) for one in lessons.values()],
        apply_default_css=False,
        padding=False,
        elem_id="lessons",
    )
    links.add(
        Part(
            "lesson",
            ("lesson", "card"),
            lambda given: _read(lessons, given),
            stands_for=lambda given: _preset(lessons, given),
        )
    )


def _listed(lesson: Lesson) -> dict[str, Any]:
    """A lesson's entry in the list."""
    said = {key: getattr(lesson, key) for key in ("name", "title", "about", "minutes")}
    return {**said, "cards": len(lesson.cards)}


def _named(lessons: Mapping[str, Lesson], name: Any) -> Lesson:
    one_of("lesson", name, tuple(lessons))
    return lessons[name]


def _place(lessons: Mapping[str, Lesson], given: Mapping[str, str]) -> tuple[Lesson, int]:
    """A lesson, and the number of its card.

    Raises:
        ValueError: there is no such lesson, or no such card.
    """
    lesson = _named(lessons, given.get("lesson", ""))
    return lesson, whole("card", given.get("card", "1"), 1, len(lesson.cards))


def _read(lessons: Mapping[str, Lesson], given: Mapping[str, str]) -> Read:
    """Read which card a link opens."""
    try:
        lesson, card = _place(lessons, given)
    except ValueError as error:
        return Read(problems=[str(error)])
    return Read(page={"lesson": lesson.name, "card": card})


def _preset(lessons: Mapping[str, Lesson], given: Mapping[str, str]) -> str:
    """How a card sets the app up. Empty if there is no such card."""
    try:
        lesson, card = _place(lessons, given)
    except ValueError:
        return ""
    return lesson.cards[card - 1].open
