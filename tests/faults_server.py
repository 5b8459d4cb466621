"""The real app in a process of its own, with tiny models, and pages of it without a browser.

`python tests/faults_server.py MODELS ...` is app.py with the models of another folder.
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
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from ddpm_demo.config import DiffusionConfig, ModelConfig
from ddpm_demo.models.checkpoint import Checkpoint, save_checkpoint
from ddpm_demo.nn.unet import UNet

PATIENCE = 240.0


class Server:
    """`python app.py`; it is up when this is made.

    Args:
        place: an empty folder for its models, its log and its temporary files.
        options: of app.py.
        models: names of models with a thousand steps.
        environment: changes of it.
    """

    def __init__(
        self, place: Path, *options: str, models: Sequence[str] = ("tiny",), **environment: str
    ) -> None:
        self.zoo, self.temporary, self._log = (place / name for name in ("zoo", "tmp", "log"))
        self.temporary.mkdir()
        torch.manual_seed(0)
        for name in models:
            net = UNet(ModelConfig(size=8, channels=1, width=8, multipliers=(1, 2), time_dim=16))
            save_checkpoint(
                self.zoo / name, Checkpoint(net, DiffusionConfig(), {"dataset": "none"})
            )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{port}/"
        own = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TMPDIR": str(self.temporary)}
        self._command = [sys.executable, __file__, str(self.zoo), "--port", port, *options]
        self._environment = os.environ | own | environment
        self.start()

    def start(self) -> None:
        """Start it, for the first time or again at the same address, and wait until it is up."""
        with self._log.open("wb") as out:
            self.process = subprocess.Popen(
                self._command, env=self._environment, stdout=out, stderr=out
            )
        self._wait()

    @cached_property
    def config(self) -> dict[str, Any]:
        """What a page is told."""
        found: dict[str, Any] = httpx.get(f"{self.url}config", timeout=PATIENCE).json()
        return found

    def _wait(self) -> None:
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
                self.kill()

    def kill(self) -> None:
        """End it as when the power goes."""
        self.process.kill()
        self.process.wait()


class Tab:
    """A page of the app without a browser: a session of its own.

    Args:
        http: a browser's connections and cookies, which its tabs share.
        config: what another tab was told of the page.
    """

    def __init__(
        self,
        server: Server | str,
        http: httpx.Client | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        url = server if isinstance(server, str) else server.url
        # Nothing is encrypted here, and reading certificates takes longer than a call.
        self.http = http or httpx.Client(base_url=url, timeout=PATIENCE, verify=False)
        self.session = secrets.token_hex(6)
        self.event: dict[str, Any] = {}  # of the last run
        if config is None and http is None and isinstance(server, Server):
            config = server.config  # which is the same for all
        self.config = config or self.http.get("config").json()
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
        joined = self.join(run, self.values(run, **controls))
        assert joined.status_code == 200, joined.text
        self.event = {"fn_index": run["id"], "event_id": joined.json()["event_id"]}
        for message in self.messages():
            if message["msg"] in ("process_generating", "process_completed"):
                yield message

    def stop(self) -> None:
        """Press Stop."""
        body = {"session_hash": self.session, **self.event}
        assert self.http.post("gradio_api/cancel", json=body).status_code == 200

    def upload(self, name: str, data: bytes) -> httpx.Response:
        return self.http.post("gradio_api/upload", files={"files": (name, data)})


def frames(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The frames in messages for the player."""
    found = []
    for message in messages:
        for value in message["output"].get("data") or []:
            if isinstance(value, str) and value:
                found += json.loads(value).get("frames", [])
    return found


def error(message: dict[str, Any]) -> str:
    """The one sentence in which a call ended."""
    said = message["output"]["error"]
    assert not message["success"]
    assert isinstance(said, str)
    assert len(said.splitlines()) == 1
    return said


if __name__ == "__main__":
    os.environ["DDPM_DEMO_MODELS"] = sys.argv[1]
    from ddpm_demo.ui.serve import main

    main(sys.argv[2:])
