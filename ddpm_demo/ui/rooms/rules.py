"""The rules of a room: who comes in, when votes count, and when the room is forgotten.

Rooms live in memory only. All they know of people is a random ticket. Everything here runs on
one thread, the server's event loop.
"""

from __future__ import annotations

import csv
import io
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ddpm_demo.ui.lessons.format import Card, Lesson

LETTERS = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"  # of a code; none looks like another
LENGTH = 6
SECONDS = 4 * 3600  # a room ends after this time
AWAY = 600  # seconds without its lecturer after which a room makes way for another
MOST_ROOMS, MOST_PEOPLE = 50, 300
MINUTE = 60.0
MOST_WRONG = 20  # codes that one address may try in a minute without finding a room,
MOST_WRONG_ALL = 600  # and all addresses together, as a proxy may hide or invent addresses
MOST_ADDRESSES = 1000  # the most addresses to remember

Clock = Callable[[], float]


class RoomError(ValueError):
    """A room can't do what was asked. The message is one sentence.

    Attributes:
        status: the HTTP status that says the same.
    """

    status = 409


class NoRoomError(RoomError):
    """There is no room with that code, or not any more."""

    status = 404


class TooManyTriesError(RoomError):
    """Too many wrong codes came from an address."""

    status = 429


@dataclass
class Room:
    """A class that answers one card after the other.

    Attributes:
        code: what people type to come in.
        key: a secret of the lecturer's page.
        until: when it ends, by the clock of `Rooms`.
        seen: when its lecturer was there last.
        card: the index of the card that all phones show.
        version: a number that grows when phones have something new to show.
        closed: it is over.
        people: the tickets of all who came in.
    """

    code: str
    key: str
    lesson: Lesson
    until: float
    seen: float
    card: int = 0
    version: int = 1
    closed: bool = False
    people: set[str] = field(default_factory=set)
    _votes: dict[tuple[str, int], tuple[Card, dict[str, int]]] = field(default_factory=dict)
    _revealed: set[tuple[str, int]] = field(default_factory=set)
    _waiting: dict[str, Callable[[], None]] = field(default_factory=dict)

    @property
    def place(self) -> tuple[str, int]:
        return self.lesson.name, self.card

    @property
    def asked(self) -> Card:
        return self.lesson.cards[self.card]

    @property
    def revealed(self) -> bool:
        """True if all can see the answers to this card."""
        return self.place in self._revealed

    @property
    def votes(self) -> dict[str, int]:
        """The choice of each ticket that has voted on this card."""
        return self._votes.setdefault(self.place, (self.asked, {}))[1]

    def counts(self) -> list[int]:
        """How many votes each choice of this card has."""
        return _counts(self.asked, self.votes)

    def join(self, ticket: str) -> None:
        """Come in, if there is a seat.

        Raises:
            RoomError: the room is full.
        """
        if ticket not in self.people and len(self.people) >= MOST_PEOPLE:
            raise RoomError(f"This room is full: {MOST_PEOPLE} people are in it.")
        self.people.add(ticket)

    def vote(self, ticket: str, place: tuple[str, int], choice: int) -> None:
        """Vote for a choice. A ticket has one vote a card, and may change it until the reveal.

        Raises:
            RoomError: it is too late, or there is no such choice.
        """
        if self.closed or place != self.place:
            raise RoomError("The class is at another card by now.")
        if self.revealed:
            raise RoomError("The answers are on the screen already, so votes have ended.")
        if not 0 <= choice < len(self.asked.choices):
            raise RoomError("There is no such choice.")
        self.votes[ticket] = choice

    def turn(self, lesson: Lesson, card: int) -> None:
        """All phones show this card."""
        if (lesson.name, card) != self.place:
            self.lesson, self.card = lesson, card
            self._change()

    def reveal(self) -> None:
        """End the votes on this card, and show its answer."""
        if not self.revealed:
            self._revealed.add(self.place)
            self._change()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._change()

    def wait(self, ticket: str, call: Callable[[], None]) -> None:
        """Call `call` once when phones have news. A ticket's new wait ends its last one."""
        before = self._waiting.pop(ticket, None)
        self._waiting[ticket] = call
        if before:
            before()

    def leave(self, ticket: str, call: Callable[[], None]) -> None:
        """Call it no more."""
        if self._waiting.get(ticket) is call:
            del self._waiting[ticket]

    def _change(self) -> None:
        self.version += 1
        waiting, self._waiting = self._waiting, {}
        for call in waiting.values():
            call()

    def table(self) -> str:
        """The votes as CSV: one line for each choice of each card that anybody has voted on."""
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(["lesson", "card", "question", "choice", "right", "votes"])
        for (name, k), (card, votes) in self._votes.items():
            counts = _counts(card, votes) if votes else []
            for choice, count in zip(card.choices, counts, strict=False):
                said = [_plain(card.question), _plain(choice.text)]
                lines.writerow([name, k + 1, *said, "yes" if choice.right else "no", count])
        return text.getvalue()

    def shown_to(self, ticket: str) -> dict[str, Any]:
        """What a phone shows. It shows no answers until they are revealed."""
        if self.closed:
            return {"closed": True, "version": self.version}
        card, mine = self.asked, self.votes.get(ticket)
        said: dict[str, Any] = {
            "version": self.version,
            "lesson": self.lesson.name,
            "card": self.card,
            "of": len(self.lesson.cards),
            "title": card.title,
            "question": card.question,
            "choices": [choice.text for choice in card.choices],
            "mine": mine,
        }
        if self.revealed:
            said["right"] = [choice.right for choice in card.choices].index(True)
            said["reply"] = "" if mine is None else card.choices[mine].reply
            said["explained"] = card.explained
        return said


def _counts(card: Card, votes: dict[str, int]) -> list[int]:
    taken = list(votes.values())
    return [taken.count(k) for k in range(len(card.choices))]


def _plain(text: str) -> str:
    """A text that no spreadsheet reads as a formula."""
    return f"'{text}" if text[:1] in "=+-@\t\r" else text


class Tries:
    """Counts wrong codes by the address that they came from."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._all: deque[float] = deque(maxlen=MOST_WRONG_ALL)
        self._by: OrderedDict[str, deque[float]] = OrderedDict()

    def _times(self, address: str) -> Iterator[deque[float]]:
        yield self._all
        if address in self._by:
            yield self._by[address]

    def require(self, address: str) -> None:
        """
        Raises:
            TooManyTriesError: it has to wait.
        """
        since = self._clock() - MINUTE
        if any(len(times) == times.maxlen and times[0] > since for times in self._times(address)):
            raise TooManyTriesError("Too many wrong codes were tried: wait a minute.")

    def wrong(self, address: str) -> None:
        """Count one."""
        self._by.setdefault(address, deque(maxlen=MOST_WRONG))
        self._by.move_to_end(address)
        if len(self._by) > MOST_ADDRESSES:
            self._by.popitem(last=False)
        for times in self._times(address):
            times.append(self._clock())


class Rooms:
    """All rooms of a server.

    Args:
        clock: tells the time in seconds, and never goes back.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._rooms: dict[str, Room] = {}
        self._past: deque[str] = deque(maxlen=4 * MOST_ROOMS)  # codes, for phones that wake up late
        self._tries = Tries(clock)

    def __len__(self) -> int:
        return len(self._rooms)

    def open(self, lesson: Lesson, card: int = 0) -> Room:
        """A new room.

        Raises:
            RoomError: there are too many.
        """
        self.sweep()
        now = self._clock()
        if len(self) >= MOST_ROOMS:
            oldest = min(self._rooms.values(), key=lambda room: room.seen)
            if now - oldest.seen < AWAY:
                raise RoomError(f"{MOST_ROOMS} rooms are open, which is all this server has.")
            self.close(oldest)
        code = _code()
        while code in self._rooms or code in self._past:
            code = _code()
        room = Room(code, secrets.token_urlsafe(32), lesson, now + SECONDS, now, card)
        self._rooms[code] = room
        return room

    def sweep(self) -> None:
        """Forget the rooms whose time is over."""
        for room in [room for room in self._rooms.values() if room.until <= self._clock()]:
            self.close(room)

    def close(self, room: Room) -> None:
        """Tell a room's phones that it is over, and forget it."""
        if self._rooms.pop(room.code, None):
            self._past.append(room.code)
        room.close()

    def close_all(self) -> None:
        for room in list(self._rooms.values()):
            self.close(room)

    def led(self, code: str, key: str) -> Room:
        """The room that a lecturer leads.

        Raises:
            NoRoomError: there is none with this code and this key.
        """
        self.sweep()
        room = self._rooms.get(code)
        if not room or not secrets.compare_digest(room.key.encode(), key.encode()):
            raise NoRoomError("This room is closed.")
        room.seen = self._clock()
        return room

    def enter(self, code: str, ticket: str, address: str) -> Room:
        """The room of a code. From now on, this ticket is in it.

        Raises:
            NoRoomError: there is none.
            TooManyTriesError: this address has tried too many codes, and is in no such room.
            RoomError: it is full.
        """
        self.sweep()
        room = self._rooms.get(code)
        if room and ticket in room.people:
            return room
        if code in self._past:
            raise NoRoomError("This room is closed.")
        self._tries.require(address)
        if not room:
            self._tries.wrong(address)
            raise NoRoomError("There is no room with this code. Look at the screen again.")
        room.join(ticket)
        return room


def _code() -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(LENGTH))
