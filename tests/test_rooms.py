"""Rooms keep their rules: seats, votes, codes that are tried, and what is forgotten when."""

import asyncio
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import gradio as gr
import httpx
import pytest
from faults_server import Tab
from starlette.applications import Starlette
from starlette.middleware import Middleware

from ddpm_demo.ui.app import LAUNCH, TabRow, build_app
from ddpm_demo.ui.lessons.format import SHIPPED, read_lessons
from ddpm_demo.ui.rooms import phones, rules
from ddpm_demo.ui.rooms.lectern import lectern
from ddpm_demo.ui.rooms.rules import (
    LETTERS,
    NoRoomError,
    Room,
    RoomError,
    Rooms,
    TooManyTriesError,
)
from ddpm_demo.ui.server import network, settings
from ddpm_demo.ui.server.guard import Guard

LESSONS = read_lessons([SHIPPED])
LESSON = LESSONS["one-step"]
RIGHT = [choice.right for choice in LESSON.cards[0].choices].index(True)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rooms(clock: Clock) -> Rooms:
    return Rooms(clock)


@pytest.fixture
def room(rooms: Rooms) -> Room:
    return rooms.open(LESSON)


# The rules


def test_a_vote_counts_once_and_may_be_changed_until_the_answer(room: Room) -> None:
    for choice in (0, 1, 1):
        room.vote("ann", room.place, choice)
    room.vote("bob", room.place, 0)
    assert room.counts()[:2] == [1, 1]
    assert "right" not in room.shown_to("ann")
    room.reveal()
    with pytest.raises(RoomError, match="votes have ended"):
        room.vote("ann", room.place, 0)
    assert room.counts()[:2] == [1, 1]
    shown = room.shown_to("ann")
    assert (shown["mine"], shown["right"]) == (1, RIGHT)
    assert shown["explained"] == LESSON.cards[0].explained
    assert room.shown_to("eve")["reply"] == ""


@pytest.mark.parametrize("choice", [-1, 99])
def test_what_is_no_choice_is_refused(room: Room, choice: int) -> None:
    with pytest.raises(RoomError, match="no such choice"):
        room.vote("ann", room.place, choice)


def test_phones_follow_the_lecturer_and_votes_stay_with_their_card(room: Room) -> None:
    called = []
    room.wait("ann", lambda: called.append("first"))
    room.wait("ann", lambda: called.append("ann"))  # a second page of the same browser
    assert called == ["first"]
    room.vote("ann", room.place, 1)
    room.turn(LESSON, 0)  # where it is already
    assert called == ["first"]
    room.turn(LESSON, 1)
    assert called == ["first", "ann"]
    with pytest.raises(RoomError, match="another card"):
        room.vote("ann", (LESSON.name, 0), 0)
    assert room.shown_to("ann")["mine"] is None
    room.turn(LESSON, 0)
    assert room.shown_to("ann")["mine"] == 1


def test_a_room_has_seats(room: Room) -> None:
    for k in range(rules.MOST_PEOPLE):
        room.join(f"ticket {k}")
    room.join("ticket 0")
    with pytest.raises(RoomError, match="full"):
        room.join("one more")


def test_all_is_forgotten_after_four_hours(rooms: Rooms, room: Room, clock: Clock) -> None:
    told: list[bool] = []
    rooms.enter(room.code, "ann", "a")
    room.wait("ann", lambda: told.append(True))
    clock.now = 4 * 3600 - 1
    assert rooms.led(room.code, room.key) is room
    clock.now += 1
    with pytest.raises(NoRoomError):
        rooms.enter(room.code, "ann", "a")
    with pytest.raises(NoRoomError):
        rooms.led(room.code, room.key)
    assert (len(rooms), told) == (0, [True])
    assert room.shown_to("ann") == {"closed": True, "version": room.version}


def test_there_are_fifty_rooms_and_abandoned_ones_make_way(rooms: Rooms, clock: Clock) -> None:
    opened = [rooms.open(LESSON) for _ in range(rules.MOST_ROOMS)]
    assert len({room.code for room in opened}) == len({room.key for room in opened}) == 50
    with pytest.raises(RoomError, match="50 rooms"):
        rooms.open(LESSON)
    clock.now = rules.AWAY
    for room in opened[1:]:
        rooms.led(room.code, room.key)
    rooms.open(LESSON)
    assert opened[0].closed
    with pytest.raises(RoomError, match="50 rooms"):
        rooms.open(LESSON)


def test_a_room_is_led_by_its_key_alone(rooms: Rooms, room: Room) -> None:
    assert re.fullmatch(f"[{LETTERS}]{{6}}", room.code)
    assert len(room.key) >= 43  # 256 bits
    for key in ("", room.key[:-1], room.key + "x", rooms.open(LESSON).key, "é"):
        with pytest.raises(NoRoomError):
            rooms.led(room.code, key)


def test_codes_cannot_be_tried_by_force(rooms: Rooms, room: Room, clock: Clock) -> None:
    rooms.enter(room.code, "ann", "mallory's")
    for _ in range(rules.MOST_WRONG):
        with pytest.raises(NoRoomError):
            rooms.enter("WRONG2", "mallory", "mallory's")
    with pytest.raises(TooManyTriesError):  # the right one is of no use now
        rooms.enter(room.code, "mallory", "mallory's")
    assert rooms.enter(room.code, "ann", "mallory's") is room  # who is in already stays
    assert rooms.enter(room.code, "bob", "elsewhere") is room
    clock.now += rules.MINUTE
    assert rooms.enter(room.code, "mallory", "mallory's") is room


def test_a_class_that_wakes_up_late_is_not_taken_for_a_thief(rooms: Rooms, room: Room) -> None:
    rooms.close(room)
    for k in range(2 * rules.MOST_WRONG):
        with pytest.raises(NoRoomError, match="closed"):
            rooms.enter(room.code, f"ticket {k}", "school's")
    assert rooms.enter(rooms.open(LESSON).code, "ann", "school's")


def test_invented_addresses_do_not_help(rooms: Rooms, room: Room) -> None:
    for k in range(rules.MOST_WRONG_ALL):
        with pytest.raises(NoRoomError):
            rooms.enter("WRONG2", "mallory", f"address {k}")
    with pytest.raises(TooManyTriesError):
        rooms.enter(room.code, "mallory", "another")
    assert len(rooms._tries._by) <= rules.MOST_ADDRESSES


def test_the_table_has_counts_and_no_people(room: Room) -> None:
    room.vote("ann", room.place, RIGHT)
    room.turn(LESSON, 2)
    header, *lines = room.table().splitlines()
    assert header == "lesson,card,question,choice,right,votes"
    assert len(lines) == len(LESSON.cards[0].choices)
    assert lines[RIGHT].endswith(",yes,1")
    assert sum(int(line.rpartition(",")[2]) for line in lines) == 1
    assert "ann" not in room.table()
    assert rules._plain("=1+1") == "'=1+1"


# Addresses


def test_phones_get_an_address_that_they_can_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_own_addresses", lambda: ["192.168.0.7", "10.42.0.1"])
    find = network.for_phones
    own = ["http://192.168.0.7:7860", "http://10.42.0.1:7860"]
    assert find("http://127.0.0.1:7860/", "0.0.0.0") == own
    assert find("http://localhost:7860/", "0.0.0.0", "https://x.gradio.live")[0].startswith("https")
    assert find("http://10.42.0.1:7860/", "0.0.0.0") == [own[1], own[0]]
    assert find("http://localhost:7860/", "192.168.0.7") == [own[0]]
    space = "https://you-ddpm.hf.space"
    assert find(f"{space}/", "0.0.0.0") == [space]  # and nothing of the Space's inner network
    assert find("https://example.org/demo/", "127.0.0.1") == ["https://example.org/demo"]
    with pytest.raises(ValueError, match=r"--host 0\.0\.0\.0"):
        find("http://localhost:7860/", "127.0.0.1")
    monkeypatch.setattr(network, "_own_addresses", list)
    with pytest.raises(ValueError, match="hot spot"):
        find("http://127.0.0.1:7860/", "0.0.0.0")
    for bad in ("", "x", "ftp://a/", "http://", "http://a:b/", "javascript:1", "http://u:p@h/"):
        with pytest.raises(ValueError, match="no address"):
            find(bad, "0.0.0.0")


def test_no_loopback_is_among_the_addresses_of_this_machine() -> None:
    assert not [one for one in network._own_addresses() if one.startswith(("127.", "169.254."))]


# What phones and lecturers are answered


class Class:
    """A lecturer and phones, without sockets."""

    def __init__(self, rooms: Rooms) -> None:
        self.phones = phones.Phones(rooms)
        self.app = Starlette(routes=self.phones.routes(), middleware=[Middleware(Guard)])
        self.open_room, self.lead_room = lectern(LESSONS, rooms)

    def phone(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=self.app)
        return httpx.AsyncClient(transport=transport, base_url="http://here")

    async def opened(self) -> dict[str, Any]:
        asked = {"lesson": LESSON.name, "card": 0, "page": "https://you.hf.space/"}
        return await self.open_room(asked)

    async def lead(self, at: dict[str, Any], do: str, **more: Any) -> dict[str, Any]:
        return await self.lead_room({"code": at["code"], "key": at["key"], "do": do, **more})


def test_a_class_over_http(rooms: Rooms) -> None:
    async def go() -> None:
        here = Class(rooms)
        at = await here.opened()
        assert at["places"][0]["link"] == f"https://you.hf.space/room/{at['code']}"
        assert at["places"][0]["qr"].startswith("data:image/svg+xml")
        async with here.phone() as phone, here.phone() as other:
            page = await phone.get(f"/room/{at['code']}")
            assert len(page.content) < 6000
            assert "HttpOnly" in page.headers["set-cookie"]
            assert "set-cookie" not in (await phone.get(f"/room/{at['code']}")).headers
            state = (await phone.get(f"/room/{at['code'].lower()}/state?seen=0")).json()
            assert state["question"] == LESSON.cards[0].question
            path, vote = f"/room/{at['code']}/vote", {"lesson": LESSON.name, "card": 0, "choice": 1}
            for choice in (0, 1):
                said = await phone.post(path, json=vote | {"choice": choice})
                assert said.json()["mine"] == choice
            seen = await here.lead(at, "look")
            assert (seen["people"], seen["votes"], seen.get("counts")) == (1, 1, None)

            news = asyncio.create_task(phone.get(f"/room/{at['code']}/state?seen=1"))
            while not rooms.led(at["code"], at["key"])._waiting:
                await asyncio.sleep(0.01)
            assert (await here.lead(at, "reveal"))["counts"][1] == 1
            assert (await news).json()["right"] == RIGHT
            assert (await phone.post(path, json=vote)).status_code == 409

            assert (await other.post(path, json=vote)).json()["error"].startswith("Voting needs c")
            other.cookies.set(phones.COOKIE, "0123456789abcdef01234567.00")
            assert (await other.post(path, json=vote)).json()["error"].startswith("Voting needs c")
            assert (await here.lead(at, "table"))["table"].startswith("lesson,")
            assert (await here.lead(at, "close"))["closed"]
            answer = await phone.get(f"/room/{at['code']}/state?seen=0")
            assert (answer.status_code, len(rooms)) == (404, 0)

    asyncio.run(go())


NO_VOTES = ["", "[]", "null", "{}", "[" * 900, '{"lesson": [], "card": {}, "choice": null}']
NO_VOTES += [
    '{"lesson": "one-step", "card": 0, "choice": true}',
    '{"card": 0, "choice": 0}',
    "\xff",
]


def test_what_is_no_vote_or_no_order_gets_a_sentence(rooms: Rooms) -> None:
    async def go() -> None:
        here = Class(rooms)
        at = await here.opened()
        path = f"/room/{at['code']}"
        async with here.phone() as phone:
            await phone.get(path)
            for body in NO_VOTES:
                said = await phone.post(f"{path}/vote", content=body)
                assert (said.status_code, said.json()) == (409, {"error": "This is not a vote."})
            much = await phone.post(f"{path}/vote", content=b" " * 5000)
            assert much.status_code == 413
            assert (await phone.get(f"{path}/vote")).status_code == 405
        for asked in (None, [], "x", {}, {"lesson": "../x"}, {"lesson": "one-step", "card": "0"}):
            assert (await here.open_room(asked))["error"]
            assert (await here.lead_room(asked))["error"]
        for more in ({"do": "explode"}, {"do": "turn"}, {"do": "turn", "lesson": "x", "card": 0}):
            assert (await here.lead(at, **more))["error"]  # type: ignore[arg-type]
        assert (await here.lead({"code": at["code"], "key": "x"}, "reveal"))["closed"]
        assert not (await here.lead(at, "look")).get("counts")

    asyncio.run(go())


def test_a_laptop_that_nobody_can_reach_opens_no_room(rooms: Rooms) -> None:
    asked = {"lesson": LESSON.name, "card": 0, "page": "http://127.0.0.1:7860/"}
    assert settings.host == "127.0.0.1"
    said = asyncio.run(Class(rooms).open_room(asked))
    assert "start it with --host 0.0.0.0" in said["error"]
    assert len(rooms) == 0


# The real server, and thirty people


@pytest.fixture
def url() -> Iterator[str]:
    """The app, served as it is, but for its tabs."""
    page = build_app([TabRow("more", "More", lambda shared: gr.Markdown("more"))])
    options = {"server_name": "127.0.0.1", "prevent_thread_lock": True, "quiet": True}
    yield page.launch(**LAUNCH | options)[1]
    page.close(verbose=False)


def called(tab: Tab, name: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What a function of the lessons' panel answers."""
    body = {"component_id": tab.part("lessons"), "fn_name": name, "session_hash": tab.session}
    answer = tab.http.post("gradio_api/component_server", json=body | {"data": asked})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_thirty_people_vote_and_see_the_answer(url: str) -> None:
    tab = Tab(url)
    page = {"page": "https://you.hf.space/"}  # as behind a proxy: this machine may have no network
    at = called(tab, "open_room", {"lesson": LESSON.name, "card": 0} | page)
    order = {"code": at["code"], "key": at["key"]}

    async def person(k: int) -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=url, timeout=60) as phone:
            path = f"room/{at['code']}"
            await phone.get(path)
            state = (await phone.get(f"{path}/state?seen=0")).json()
            vote = {"lesson": state["lesson"], "card": state["card"], "choice": k % 2}
            for _ in range(2):
                await phone.post(f"{path}/vote", content=json.dumps(vote))
            told: dict[str, Any] = {}
            while "right" not in told:  # the next time it is asked, the lecturer has shown it
                told = (await phone.get(f"{path}/state?seen={state['version']}")).json()
            return told

    async def lecturer() -> dict[str, Any]:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            seen = await asyncio.to_thread(called, tab, "lead_room", order | {"do": "look"})
            if seen["votes"] == 30:
                return await asyncio.to_thread(called, tab, "lead_room", order | {"do": "reveal"})
            await asyncio.sleep(0.1)
        raise TimeoutError

    async def go() -> list[dict[str, Any]]:
        return await asyncio.gather(lecturer(), *(person(k) for k in range(30)))

    seen, *told = asyncio.run(go())
    assert (seen["people"], seen["counts"][:2]) == (30, [15, 15])
    assert all(one["mine"] == k % 2 and one["right"] == RIGHT for k, one in enumerate(told))
    assert called(tab, "lead_room", order | {"do": "close"})["closed"]
    assert httpx.get(f"{url}room").text == phones.PAGE
