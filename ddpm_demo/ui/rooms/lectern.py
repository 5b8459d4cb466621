"""The lecturer's side: functions that the lessons' panel calls, outside the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import segno

from ddpm_demo.config import one_of
from ddpm_demo.ui.lessons.format import Lesson
from ddpm_demo.ui.rooms.rules import SECONDS, Room, RoomError, Rooms
from ddpm_demo.ui.server import settings
from ddpm_demo.ui.server.network import for_phones

MOST_PLACES = 8  # addresses to choose from


def lectern(lessons: Mapping[str, Lesson], rooms: Rooms) -> list[Callable[..., Any]]:
    """The functions for a lecturer's page. Anyone can call them, but a room needs its key.

    They are coroutines, so they run on the event loop, which also answers the phones.
    """

    async def open_room(asked: Any) -> dict[str, Any]:
        """Open a room at {lesson, card}, for a page at the address `page`."""
        try:
            lesson, card = _card(lessons, asked)
            places = for_phones(_text(asked, "page"), settings.host, settings.shared)
            room = rooms.open(lesson, card)
        except ValueError as problem:
            return {"error": str(problem)}
        asyncio.get_running_loop().call_later(SECONDS + 1, rooms.sweep)
        places = places[:MOST_PLACES]
        return {"code": room.code, "key": room.key} | {
            "places": [_place(address, room.code) for address in places]
        }

    async def lead_room(asked: Any) -> dict[str, Any]:
        """Do what {do} says in the room of {code, key}, and tell how it is there now."""
        try:
            room = rooms.led(_text(asked, "code"), _text(asked, "key"))
            do = _text(asked, "do")
            one_of("do", do, ("look", "turn", "reveal", "table", "close"))
            if do == "turn":
                room.turn(*_card(lessons, asked))
            elif do == "reveal":
                room.reveal()
            elif do == "table":
                return {"table": room.table()}
            elif do == "close":
                rooms.close(room)
        except RoomError as problem:
            return {"closed": True, "error": str(problem)}
        except ValueError as problem:
            return {"error": str(problem)}
        return _seen(room)

    return [open_room, lead_room]


def _seen(room: Room) -> dict[str, Any]:
    """What the lecturer sees of a room: how many have voted, and once revealed, for what."""
    said: dict[str, Any] = {"people": len(room.people), "votes": len(room.votes)}
    said |= {"lesson": room.lesson.name, "card": room.card, "closed": room.closed}
    if room.revealed:
        said["counts"] = room.counts()
    return said


def _place(address: str, code: str) -> dict[str, str]:
    """An address to type, without the parts that browsers add, and one to scan."""
    link = f"{address}/room/{code}"
    picture = segno.make_qr(link, error="m").svg_data_uri(border=3, dark="#000", light="#fff")
    return {"typed": f"{address.removeprefix('http://')}/room", "link": link, "qr": picture}


def _text(asked: Any, name: str) -> str:
    value = asked.get(name) if isinstance(asked, dict) else None
    if not isinstance(value, str) or len(value) > 300:
        raise ValueError(f"{name} is missing.")
    return value


def _card(lessons: Mapping[str, Lesson], asked: Any) -> tuple[Lesson, int]:
    name = _text(asked, "lesson")
    one_of("lesson", name, tuple(lessons))
    card, most = asked.get("card"), len(lessons[name].cards)
    if type(card) is not int or not 0 <= card < most:
        raise ValueError(f"card is not one of 0 to {most - 1}.")
    return lessons[name], card
