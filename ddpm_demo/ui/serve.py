"""The app's command line: how the page is served, and how serving ends."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ddpm_demo.machine.files import expand, require_temporary_folder
from ddpm_demo.models.zoo import models_folder
from ddpm_demo.ui.lessons.format import read_lessons
from ddpm_demo.ui.server import settings
from ddpm_demo.ui.server.network import (
    ask_own_address_directly,
    is_here,
    require_free,
    require_proxies,
    written,
)

if TYPE_CHECKING:
    import gradio as gr

PATIENCE = 3.0  # seconds for telling visitors that the server is being stopped
LAST = 3.0  # seconds after that for threads that compute to end


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the command line, checked as far as that needs no imports."""
    p = argparse.ArgumentParser(
        prog="app.py",
        description="Serve the app.",
        epilog=f"With {settings.AUTH}=USER:PASSWORD in the environment, visitors have to log in.",
    )
    host = "0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1"
    p.add_argument("--host", default=host, help="the address to serve at (default: %(default)s)")
    p.add_argument("--port", type=int, default=7860, help="default: %(default)s")
    p.add_argument("--share", action="store_true", help="also through a public gradio.live address")
    p.add_argument("--open", action="store_true", help="open the page in the browser")
    p.add_argument("--models", metavar="DIR", help="folder of models, or hub:OWNER")
    p.add_argument("--lessons", metavar="DIR", help="lessons of your own")
    p.add_argument("--mcp", action="store_true", help="also serve the API as MCP tools")
    p.add_argument("--bf16", action="store_true", help="bfloat16, where it is faster")
    o = p.parse_args(arguments)
    if o.models:
        os.environ["DDPM_DEMO_MODELS"] = o.models
    try:
        settings.lessons = [expand(o.lessons)] if o.lessons else []
        models_folder()
        read_lessons(settings.lessons)
        if o.mcp and not find_spec("mcp"):
            raise ValueError("--mcp needs more packages: pip install 'gradio[mcp]'.")
        o.auth = settings.password()
        settings.most_seconds(settings.RUN_MINUTES, 0)
        settings.most_seconds(settings.LANE_MINUTES, 0)
        require_temporary_folder()
        require_free(o.host, o.port)
        require_proxies()
    except ValueError as error:
        p.error(str(error))
    return o


def end_by_signals() -> None:
    """Let SIGTERM and a closed terminal end the app as Ctrl-C does, after it has tidied up."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) == signal.SIG_DFL:  # `nohup` ignores one of them
            signal.signal(number, signal.default_int_handler)


def until_stopped(page: gr.Blocks) -> None:
    """Serve until Ctrl-C or SIGTERM. Then tell visitors whose runs go on, and end."""
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(60)
    from ddpm_demo.ui.rooms.phones import PHONES

    settings.closing.set()  # each run ends at its next step; a waiting one ends when its turn comes
    PHONES.end()
    queue, until = page._queue, time.monotonic() + PATIENCE
    while (any(queue.active_jobs) or len(queue)) and time.monotonic() < until:
        time.sleep(0.05)
    end_in(LAST)


def end() -> None:
    """Tidy up, and end this process at once.

    Python itself would wait for threads that train or download, and then free all that torch has
    made. This can take ten seconds.
    """
    from ddpm_demo.ui.server import disk

    for tunnel in getattr(sys.modules.get("gradio.tunneling"), "CURRENT_TUNNELS", ()):
        tunnel.kill()
    disk.delete()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)


def end_in(seconds: float) -> None:
    """Make this process end within some seconds. It ignores further signals."""

    def wait() -> None:
        time.sleep(seconds)
        end()

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=wait, daemon=True).start()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the app as the command line says."""
    o = options_of(arguments)
    end_by_signals()
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing is sent anywhere
    if o.bf16:
        os.environ["DDPM_DEMO_BF16"] = "1"
    settings.strangers = "SPACE_ID" in os.environ or o.share or not is_here(o.host)
    settings.host = o.host
    ask_own_address_directly(o.host)
    with suppress(KeyboardInterrupt):  # before the page was up, or a second time
        _serve(o)
    end()


def _serve(o: argparse.Namespace) -> None:
    from ddpm_demo.ui.server import disk

    disk.own_temporary_folder()  # before gradio is imported
    from ddpm_demo.ui.components.controls import first_model
    from ddpm_demo.ui.server import runtime

    if settings.ZERO:  # its GPUs are found by what is imported before the page
        runtime.start(first_model())
    from ddpm_demo.ui.app import LAUNCH, build_app
    from ddpm_demo.ui.generate.first_run import announce, make

    page, name = build_app(), first_model()
    begin, given = (make, (name,)) if name else (runtime.start, (None,))
    if name:
        announce()
    engine = threading.Thread(target=begin, args=given, daemon=True)
    try:
        page.launch(
            server_name=written(o.host),
            server_port=o.port,
            share=o.share,
            inbrowser=o.open,
            prevent_thread_lock=True,
            auth=o.auth,
            mcp_server=o.mcp,
            **LAUNCH,
        )
        settings.shared = page.share_url or ""
        threading.Thread(target=disk.keep_swept, args=(page,), daemon=True).start()
        engine.start()
        until_stopped(page)
    finally:
        page.close(verbose=False)
