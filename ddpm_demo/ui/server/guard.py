"""Refuses malformed requests with one sentence, before they reach the handlers.

Gradio would treat them as bugs of the app, and fill the log with tracebacks, which any visitor
could cause. This module also closes routes of Gradio that the app doesn't use. Other errors of the
server stay as they are.
"""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Iterator
from typing import Any

import anyio.to_thread
import gradio as gr
from gradio.route_utils import FnIndexInferError
from gradio.state_holder import SessionState
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ddpm_demo.ui.server import disk

BODY = 88 * 2**20  # the most bytes of a request; uploaded weights are the page's largest
VOTE = 1024  # the most bytes of a request from a phone
QUERY = 8192  # the most bytes of a query
# Routes that fetch other addresses for anybody, cut films, store pages, or edit the program.
CLOSED = ("proxy=", "process_recording", "deep_link", "vibe-", "undo-vibe-", "dev/")
REMOTE = re.compile("file[=/]+https?:", re.IGNORECASE)
log = logging.getLogger(__name__)


class Page(gr.Blocks):
    """A `gr.Blocks` that answers with one sentence if the values of a request don't fit."""

    async def preprocess_data(self, block_fn: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        """Do what `gr.Blocks` does, after more checks.

        Raises:
            gr.Error: there are too few values, or a component can't use its value.
        """
        try:
            for part in _parts(inputs):
                path = part.get("path") if isinstance(part, dict) else None
                if isinstance(path, str) and path.lower().startswith(("http:", "https:")):
                    raise ValueError("a file must be an upload, not an address.")
                if isinstance(part, int) and abs(part) >= 2**63:  # an answer could not hold it
                    raise ValueError("a number is too large.")
            for block, value in zip(block_fn.inputs, inputs, strict=False):
                if isinstance(block, gr.Dataset) and type(value) is not int:
                    raise ValueError("the number of an example is missing.")
            return await super().preprocess_data(block_fn, inputs, *args, **options)
        except Exception as error:  # it can't be our bug: no handler has run yet
            said = " ".join(error.message.split()) if isinstance(error, gr.Error) else ""
            line = next(iter(str(error).splitlines()), type(error).__name__)
            said = (said or f"These values can't be used: {line}")[:250]
            raise gr.Error(html.escape(said), print_exception=False) from None

    async def postprocess_data(
        self, block_fn: Any, predictions: Any, state: SessionState | None
    ) -> list[Any]:
        """Do what `gr.Blocks` does, but forget what the handler returned.

        Gradio would keep half a megabyte for each visitor, which only deep links need.
        """
        outputs = await super().postprocess_data(block_fn, predictions, state)
        if state:
            state.config_values.clear()
        return outputs


def _parts(value: Any) -> Iterator[Any]:
    """Yield a value and all values inside it, at any depth."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        yield value
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def route_of(scope: Scope) -> str:
    """The route of a request, without the app's root path and Gradio's prefix.

    A proxy may put the app below any path. The route is the part after it.
    """
    path, root = scope["path"], scope.get("root_path", "").rstrip("/")
    if root and path.startswith(f"{root}/"):
        path = path[len(root) :]
    return str(path.lstrip("/").removeprefix("gradio_api/"))


def closed(route: str) -> bool:
    """True if a route is closed. Only its beginning counts, not a file's name in it."""
    return route.startswith(CLOSED) or REMOTE.match(route) is not None


class TooLarge(Exception):
    """The body of a request has too many bytes."""


class Exchange:
    """Passes on a request and its answer, and counts the bytes of the request.

    Attributes:
        most: the most bytes of the body.
        answered: True once the answer has begun.
    """

    def __init__(self, receive: Receive, send: Send, most: int = BODY) -> None:
        self._receive, self._send, self.most = receive, send, most
        self._come, self.answered = 0, False

    async def receive(self) -> Message:
        message = await self._receive()
        self._come += len(message.get("body", b""))
        if self._come > self.most:
            raise TooLarge
        return message

    async def send(self, message: Message) -> None:
        if self._come > self.most:  # Gradio may have caught the first error
            raise TooLarge
        self.answered = True
        await self._send(message)


class Guard:
    """ASGI middleware around Gradio's routes."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if len(scope["query_string"]) > QUERY:  # Gradio would fail; only the page reads it
            scope = {**scope, "query_string": b""}
        route = route_of(scope)
        exchange = Exchange(receive, send, VOTE if route.startswith("room/") else BODY)
        refusal = await self._served(scope, exchange, route)
        if refusal and not exchange.answered:
            await refusal(scope, receive, send)

    async def _served(
        self, scope: Scope, exchange: Exchange, route: str
    ) -> PlainTextResponse | None:
        """Let the app answer. If it can't, return the answer to send instead."""
        if closed(route):
            return PlainTextResponse("This server doesn't do that.", 403)
        try:
            if route == "upload":
                await anyio.to_thread.run_sync(disk.require_room)
            await self.app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            return None
        except TooLarge:
            most = f"{BODY // 2**20} MB" if exchange.most == BODY else f"{exchange.most:,} bytes"
            return PlainTextResponse(f"More than {most} are too much.", 413)
        except (KeyError, FnIndexInferError) as error:
            log.warning("%s %s was refused: %r", scope["method"], scope["path"], error)
            return PlainTextResponse("There is no such endpoint.", 404)
        except OSError as error:
            if route != "upload":
                raise
            log.warning("An upload was refused: %s", error)
            said = f"The upload can't be kept: {error.strerror or error}"
            return PlainTextResponse(said, 507)
        return None
