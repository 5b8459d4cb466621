"""The real app in a process of its own, with tiny models, and pages of it without a browser.

`python tests/faults_server.py ZOO ...` serves the models of a folder with the options of app.py.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parent.parent
PATIENCE = 120.0


class Server:
    """`python app.py` with another zoo; its log is read by tests.

    Args:
        environment: changes of it.
    """

    def __init__(self, zoo: Path, log: Path, **environment: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._log = log
        self.temporary = log.with_suffix(".tmp")
        self.temporary.mkdir()
        command = [sys.executable, __file__, str(zoo), "--port", str(port)]
        threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | threads | {"TMPDIR": str(self.temporary)} | environment,
                stdout=out,
                stderr=out,
            )
        self.url = f"http://127.0.0.1:{port}/"

    def wait(self) -> None:
        """Until the page is up."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            assert self.process.poll() is None, self.log
            try:
                httpx.get(self.url)
                return
            except httpx.TransportError:
                time.sleep(0.1)
        raise TimeoutError(self.log)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def files(self) -> list[Path]:
        """All that it keeps in its temporary folder."""
        return [path for path in self.temporary.rglob("*") if path.is_file()]

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Tab:
    """A page of the app without a browser: a session of its own.

    Args:
        http: a browser's connections and cookies, which its tabs share.
    """

    def __init__(self, server: Server, http: httpx.Client | None = None) -> None:
        self.http = http or httpx.Client(base_url=server.url, timeout=PATIENCE)
        self.session = secrets.token_hex(6)
        self.config = self.http.get("config").json()
        self.parts = {part["id"]: part for part in self.config["components"]}

    def part(self, elem_id: str) -> int:
        return next(i for i, p in self.parts.items() if p["props"].get("elem_id") == elem_id)

    def endpoint(self, elem_id: str, event: str = "click") -> dict[str, Any]:
        """What a control of the page calls."""
        target = [self.part(elem_id), event]
        return next(
            d for d in self.config["dependencies"] if target in d["targets"] and d["backend_fn"]
        )

    def values(self, endpoint: dict[str, Any], **changes: Any) -> list[Any]:
        """What the page would send: the values of its controls, some of them changed."""
        inputs = [self.parts[i] for i in endpoint["inputs"]]
        names = [part["props"].get("elem_id") for part in inputs]
        assert set(changes) <= set(names)
        return [
            changes.get(name, part["props"].get("value"))
            for name, part in zip(names, inputs, strict=True)
        ]

    def join(self, endpoint: dict[str, Any], data: Any) -> httpx.Response:
        body = {"data": data, "fn_index": endpoint["id"], "session_hash": self.session}
        return self.http.post("gradio_api/queue/join", json=body)

    def messages(self) -> Iterator[dict[str, Any]]:
        """What the server says, until all calls of this page have ended."""
        ask = {"session_hash": self.session}
        with self.http.stream("GET", "gradio_api/queue/data", params=ask) as lines:
            for line in lines.iter_lines():
                if line.startswith("data:"):
                    yield json.loads(line.removeprefix("data:"))

    def call(self, endpoint: dict[str, Any], data: Any) -> dict[str, Any]:
        """The last message of a call."""
        joined = self.join(endpoint, data)
        assert joined.status_code == 200, joined.text
        *_, last = (m for m in self.messages() if m["msg"] == "process_completed")
        return last

    def generate(self, **controls: Any) -> Iterator[dict[str, Any]]:
        """Press Generate: the messages for the player."""
        run = self.endpoint("go")
        assert self.join(run, self.values(run, **controls)).status_code == 200
        for message in self.messages():
            if message["msg"] in ("process_generating", "process_completed"):
                yield message

    def upload(self, name: str, data: bytes) -> httpx.Response:
        return self.http.post("gradio_api/upload", files={"files": (name, data)})


def steps(messages: list[dict[str, Any]]) -> list[int]:
    """The steps of the frames in messages for the player."""
    found = []
    for message in messages:
        for value in message["output"].get("data") or []:
            if isinstance(value, str) and value:
                found += [frame["step"] for frame in json.loads(value).get("frames", [])]
    return found


def serve(zoo: str, *options: str) -> None:
    sys.path.insert(0, str(ROOT))
    from ddpm_demo import checkpoint

    checkpoint.ZOO = Path(zoo)
    from ddpm_demo.ui.app import main

    main(options)


if __name__ == "__main__":
    serve(*sys.argv[1:])
