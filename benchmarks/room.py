"""Measures the server's CPU time for a class whose phones join, vote and see the answer.

    python -m benchmarks.room --phones 200 --seconds 10

The server runs with a tiny model. The phones are light clients in another process, at low priority.
First all of them join. Then each votes once, at a random moment within the given seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from faults_server import Server, Tab


def called(tab: Tab, name: str, asked: dict[str, Any]) -> dict[str, Any]:
    """The answer of a function of the lessons' panel."""
    body = {"component_id": tab.part("lessons"), "fn_name": name, "session_hash": tab.session}
    answer = tab.http.post("gradio_api/component_server", json=body | {"data": asked})
    told: dict[str, Any] = answer.json()
    return told


class Meter:
    """Measures the CPU seconds of a process since the last reading."""

    def __init__(self, pid: int) -> None:
        self.process, self.before = psutil.Process(pid), 0.0
        self.read()

    def read(self) -> float:
        times = self.process.cpu_times()
        now = times.user + times.system
        used, self.before = now - self.before, now
        return used


def say(what: str, seconds: float, more: str = "") -> None:
    print(f"{what:34} {seconds:6.2f} s of CPU{more}", flush=True)


async def until_right(phone: httpx.AsyncClient, path: str) -> None:
    """Wait for news as the page does, until the answer is there."""
    seen, told = 1, {}
    while "right" not in told:
        told = (await phone.get(f"{path}/state?seen={seen}")).json()
        seen = told["version"]


async def go(tab: Tab, meter: Meter, at: dict[str, Any], count: int, seconds: float) -> None:
    path, order = f"room/{at['code']}", {"code": at["code"], "key": at["key"]}
    plain = {"base_url": tab.http.base_url, "timeout": 60, "verify": False}  # nothing is encrypted
    phones = [httpx.AsyncClient(**plain) for _ in range(count)]  # type: ignore[arg-type]
    votes = [httpx.AsyncClient(**plain) for _ in range(count)]  # type: ignore[arg-type]
    meter.read()
    for phone, vote in zip(phones, votes, strict=True):
        await phone.get(path)
        vote.cookies = phone.cookies
    following = [asyncio.create_task(until_right(phone, path)) for phone in phones]
    while called(tab, "lead_room", order | {"do": "look"})["people"] < count:
        await asyncio.sleep(0.5)
    say(f"{count} come in", meter.read())

    async def choose(phone: httpx.AsyncClient, late: float) -> None:
        await asyncio.sleep(late)
        body = json.dumps({"lesson": "one-step", "card": 0, "choice": random.randrange(2)})
        (await phone.post(f"{path}/vote", content=body)).raise_for_status()

    async def look() -> None:
        while True:
            await asyncio.to_thread(called, tab, "lead_room", order | {"do": "look"})
            await asyncio.sleep(1)

    start, looking = time.monotonic(), asyncio.create_task(look())
    await asyncio.gather(*(choose(one, random.uniform(0, seconds)) for one in votes))
    took, used = time.monotonic() - start, meter.read()
    looking.cancel()
    say(f"{count} vote within {took:.1f} s", used, f", {used / took:.1%} of a core")
    called(tab, "lead_room", order | {"do": "reveal"})
    await asyncio.gather(*following)
    say(f"{count} see the answer", meter.read())
    await asyncio.sleep(seconds)
    say(f"nobody does anything for {seconds:.0f} s", meter.read())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phones", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10)
    o = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        server = Server(Path(place), "--host", "0.0.0.0")
        try:
            os.nice(10)
            tab = Tab(server)
            asked = {"lesson": "one-step", "card": 0, "page": "https://example.org/"}
            at = called(tab, "open_room", asked)
            time.sleep(10)  # until what the app does at its start is over
            asyncio.run(go(tab, Meter(server.process.pid), at, o.phones, o.seconds))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
