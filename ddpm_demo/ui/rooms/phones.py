"""The routes of phones: one page of a few kB, its state, and votes. No Gradio is in it.

GET  room, room/CODE            the page
GET  room/CODE/state?seen=7     what it shows; answers when there is more than version 7
POST room/CODE/vote             {"lesson": "one-step", "card": 0, "choice": 2}
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from ddpm_demo.ui.rooms.rules import Room, RoomError, Rooms

PAGE = (Path(__file__).parent / "phone.html").read_text(encoding="utf-8")
COOKIE = "ddpm-ticket"
WAIT = 20.0  # seconds that a phone waits for news before it asks again; proxies end longer ones
MOST_WAITING = 400  # phones that wait at the same time, each with a connection; others ask again
AGAIN = 4  # seconds until those ask again


def _hashes(tag: str) -> str:
    """The hashes of the page's own scripts or styles, so that no others run there."""
    inside = re.findall(f"<{tag}>(.*?)</{tag}>", PAGE, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()) for text in inside]
    return " ".join(f"'sha256-{digest.decode()}'" for digest in digests)


HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; "
    f"script-src {_hashes('script')}; style-src {_hashes('style')}",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",  # the cookie comes with the page
}


class Tickets:
    """Random names of browsers. They are signed, so nobody can make up more of them."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def new(self) -> str:
        name = secrets.token_hex(12)
        return f"{name}.{self._sign(name)}"

    def _sign(self, name: str) -> str:
        return hmac.new(self._secret, name.encode(), "sha256").hexdigest()[:32]

    def of(self, request: Request) -> str:
        """The ticket of a request, or nothing."""
        name, _, signed = request.cookies.get(COOKIE, "").partition(".")
        ok = hmac.compare_digest(signed.encode(), self._sign(name).encode())
        return name if ok else ""


class Phones:
    """What phones can ask."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms, self._tickets, self._waiting = rooms, Tickets(), 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def routes(self) -> list[Route]:
        return [
            Route("/room", self.page),
            Route("/room/{code}", self.page),
            Route("/room/{code}/state", partial(self._answer, self._state)),
            Route("/room/{code}/vote", partial(self._answer, self._vote), methods=["POST"]),
        ]

    def end(self) -> None:
        """Close all rooms when the server is being stopped. Any thread may call it."""
        if self._loop and self._loop.is_running():
            self._loop.call_soon_threadsafe(self.rooms.close_all)

    async def page(self, request: Request) -> Response:
        answer = HTMLResponse(PAGE, headers=HEADERS)
        if "code" in request.path_params and not self._tickets.of(request):
            # Without a path, the cookie is for all rooms of this app, whatever path a proxy uses.
            secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
            more = "; Secure" if secure else ""
            cookie = f"{COOKIE}={self._tickets.new()}; Max-Age=14400; HttpOnly; SameSite=Lax{more}"
            answer.headers.append("Set-Cookie", cookie)
        return answer

    async def _answer(
        self, ask: Callable[[Request, Room, str], Awaitable[dict[str, Any]]], request: Request
    ) -> JSONResponse:
        """What a phone in a room is told, or a sentence that says why it is not in the room."""
        code = request.path_params["code"].upper()
        address = request.client.host if request.client else ""
        headers = {"Cache-Control": "no-store"}
        try:
            ticket = self._tickets.of(request)
            if not ticket:
                raise RoomError("Voting needs cookies: allow them, and open this page again.")
            room = self.rooms.enter(code, ticket, address)
            return JSONResponse(await ask(request, room, ticket), headers=headers)
        except RoomError as error:
            return JSONResponse({"error": str(error)}, error.status, headers)

    async def _state(self, request: Request, room: Room, ticket: str) -> dict[str, Any]:
        if request.query_params.get("seen") == str(room.version):
            if self._waiting >= MOST_WAITING:
                return room.shown_to(ticket) | {"again": AGAIN}
            await self._news(room, ticket)
        return room.shown_to(ticket)

    async def _news(self, room: Room, ticket: str) -> None:
        """Wait until the room has changed, for some seconds at most."""
        self._loop = asyncio.get_running_loop()
        come = self._loop.create_future()

        def call() -> None:
            if not come.done():
                come.set_result(None)

        room.wait(ticket, call)
        self._waiting += 1
        try:
            await asyncio.wait([come], timeout=WAIT)
        finally:
            self._waiting -= 1
            room.leave(ticket, call)

    async def _vote(self, request: Request, room: Room, ticket: str) -> dict[str, Any]:
        try:
            said = json.loads(await request.body())
            place, choice = (said["lesson"], said["card"]), said["choice"]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise RoomError("This is not a vote.") from None
        if [type(value) for value in (*place, choice)] != [str, int, int]:
            raise RoomError("This is not a vote.")
        room.vote(ticket, place, choice)
        return room.shown_to(ticket)


ROOMS = Rooms()
PHONES = Phones(ROOMS)
