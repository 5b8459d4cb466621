"""A real Chromium that must not leave this machine, and a server for any gr.Blocks.

Without a browser these tests are skipped, loudly; REQUIRE_BROWSER=1 makes that an error.
"""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before gradio is imported

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
OFF = ["LocalNetworkAccessChecks"]  # a frame of another site shows the app
OFF += ["AimEnabled", "NetworkTimeServiceQuerying", "OptimizationHints", "PreconnectToSearch"]
OFF += ["OmniboxAimPopup", "WebUIOmniboxAimPopup", "WebUIOmniboxPopup"]  # a process for each page
FLAGS += [f"--disable-features={','.join(OFF)}"]  # in place of Playwright's own list
LEFT = "Connection errored out"  # what Gradio's client says of a request whose page is left
FAILED = pytest.StashKey[bool]()  # whether the test itself failed
LAUNCH = {"prevent_thread_lock": True, "quiet": True, "ssr_mode": False, "run_history": False}


def _give_up(reason: str) -> None:
    if os.environ.get("REQUIRE_BROWSER") == "1":
        pytest.fail(f"REQUIRE_BROWSER=1, but {reason}.", pytrace=False)
    pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if "e2e" in r.nodeid]
    if skipped:
        reason = skipped[0].longrepr[-1].removeprefix("Skipped: ")
        line = f"BROWSER TESTS DID NOT RUN: {reason}. REQUIRE_BROWSER=1 makes this an error."
        terminalreporter.write_line(line, red=True, bold=True)


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """A browser context of 1280 x 800; its pages share a cache, which saves seconds a test.

    Not for the whole session: while Playwright runs, `asyncio.run` fails in other tests.
    """
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        _give_up(f"none of {', '.join(NAMES)} is installed")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _give_up("playwright is not installed")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        context = chromium.new_context(viewport={"width": 1280, "height": 800})
        context.set_default_timeout(60_000)  # for busy machines
        yield context
        chromium.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Iterator[Any]:
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


@pytest.fixture
def page(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A new page, in which no script may fail, and from which no request may leave."""
    page, wrong, opened = browser.new_page(), [], []

    def check_request(request: Any) -> None:
        if request.is_navigation_request():
            opened.append(request.url)
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            wrong.append(f"request to {request.url}")

    def check_console(message: Any) -> None:  # Gradio reports what a component throws only here
        if message.type == "error" and "AbortError" not in message.text:  # of a page that is left
            wrong.append(f"console: {message.text} ({message.location['url'][:200]})")

    page.on("request", check_request)
    page.on("console", check_console)
    page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
    yield page
    page.close()
    wrong = [text for text in wrong if len(opened) < 2 or LEFT not in text]
    if request.node.stash.get(FAILED, False):  # a second error would keep it from a second try
        print(*wrong, sep="\n")
    else:
        assert not wrong


@contextmanager
def serving() -> Iterator[Callable[..., str]]:
    """Launches any gr.Blocks as the app is launched, on a free port; gives its address."""
    running = []

    def launch(demo: Any, **options: Any) -> str:
        running.append(demo)
        with socket.socket() as free:  # Gradio's own search collides with that of another worker
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        return str(demo.launch(server_name="127.0.0.1", server_port=port, **LAUNCH, **options)[1])

    yield launch
    for demo in running:
        demo.close(verbose=False)


def launch_app(launch: Callable[..., str]) -> str:
    """The whole page, as it is when it is built now; its address."""
    from ddpm_demo.ui import app

    return launch(app.build_app(), **{k: v for k, v in app.LAUNCH.items() if k not in LAUNCH})


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[..., str]]:
    with serving() as launch:
        yield launch


@pytest.fixture(scope="module")
def serve_app(serve: Callable[..., str]) -> Callable[[], str]:
    """Launches the app of a file that has changed something in it."""
    return lambda: launch_app(serve)


@pytest.fixture(scope="package")
def app_url() -> Iterator[str]:
    """The address of the app with the shipped models; several files share it."""
    with serving() as launch:
        yield launch_app(launch)
