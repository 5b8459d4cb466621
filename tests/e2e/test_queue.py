"""Visitors who must wait, and a server that goes away: what their pages say, and how it goes on."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from faults_server import Server

from .test_app import FRAMES, generate, saved, set_number

pytestmark = pytest.mark.e2e

PATIENCE = 60.0


class Gates(NamedTuple):
    """Each `release()` of the first two lets one that is held go on: see `url`."""

    run: threading.Semaphore
    tuning: threading.Semaphore
    ended: threading.Semaphore  # how many of Fine-tune have gone on

    def end_tuning(self) -> None:
        """Let one of Fine-tune go on, and wait until it has."""
        self.tuning.release()
        assert self.ended.acquire(timeout=PATIENCE)


@pytest.fixture(scope="module")
def gates() -> Gates:
    return Gates(*(threading.Semaphore(0) for _ in Gates._fields))


@pytest.fixture(scope="module")
def url(serve_app: Callable[[], str], gates: Gates) -> Iterator[str]:
    """The app for one run at a time. Runs are held after their first frame, and what goes on in
    Fine-tune is held at its beginning and then fails."""
    from ddpm_demo.ui.finetune import handlers as tuning
    from ddpm_demo.ui.generate import handlers as tab
    from ddpm_demo.ui.server import settings

    real = tab.play

    def held(*args: Any, **options: Any) -> Iterator[Any]:
        steps = real(*args, **options)
        yield next(steps)
        assert gates.run.acquire(timeout=PATIENCE)
        yield from steps

    def fail(*_args: Any) -> Iterator[str]:
        yield "Held here."
        assert gates.tuning.acquire(timeout=PATIENCE)
        gates.ended.release()
        raise ValueError("This was held.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "RUNS", 1)
        patch.setattr(tab, "play", held)
        patch.setattr(tuning, "plan", fail)
        yield serve_app()


@pytest.fixture
def visit(browser: Any, url: str) -> Iterator[Callable[[], Any]]:
    """Opens a page as another visitor does: a browser has six connections for all of its tabs."""
    visitors = []

    def open_page() -> Any:
        visitor = browser.browser.new_context(viewport={"width": 1280, "height": 800})
        visitor.set_default_timeout(60_000)
        visitors.append(visitor)
        page = visitor.new_page()
        page.goto(url)
        return page

    yield open_page
    for visitor in visitors:
        visitor.close()


def said(page: Any, player: str = "player") -> Any:
    """What stands over the pictures, as long as it is seen."""
    return page.locator(f"#{player} [data-part=empty]:visible")


def wait_in_queue(page: Any, place: str, player: str = "player") -> None:
    text = f"You are {place} in the queue. It starts by itself."
    page.locator(f"#{player}").get_by_text(text, exact=True).filter(visible=True).first.wait_for()


def open_tuning(page: Any) -> None:
    """Its tab, with the recorded run that it shows first."""
    page.get_by_role("tab", name="Fine-tune").click()
    page.locator("#tuner").get_by_text("recorded on another machine").first.wait_for()


def status(page: Any, text: str) -> None:
    page.locator("#player [data-part=status]", has_text=text).wait_for()


def test_who_must_wait_is_told_the_place(visit: Any, gates: Gates) -> None:
    first, second, third = visit(), visit(), visit()
    generate(first, steps=2, n=1)
    status(first, "step 0 / 2")
    assert not said(first).count()
    generate(second, steps=2, n=1)
    wait_in_queue(second, "1st")
    generate(third, steps=2, n=1)
    wait_in_queue(third, "2nd")
    gates.run.release()
    status(first, "step 2 / 2")
    status(second, "step 0 / 2")
    assert not said(second).count()
    wait_in_queue(third, "1st")

    first.locator("#go").click()  # now over the pictures of the last run
    wait_in_queue(first, "2nd")
    status(first, "Starting…")
    third.locator("#stop").click()  # leaves the queue
    status(third, "Stopped.")
    said(third).get_by_text("Stopped.").wait_for()
    gates.run.release()
    status(second, "step 2 / 2")
    status(first, "step 0 / 2")
    said(first).wait_for(state="detached")
    gates.run.release()
    status(first, "step 2 / 2")


def test_fine_tuning_and_measuring_wait_in_a_queue_of_their_own(visit: Any, gates: Gates) -> None:
    page = visit()
    open_tuning(page)
    page.locator("#tune-estimate").click()
    page.get_by_text("Held here.").first.wait_for()  # and held
    page.locator("#tune").click()
    wait_in_queue(page, "1st", "tuner")
    page.get_by_role("tab", name="Measure").click()
    page.locator("#measure").click()
    wait_in_queue(page, "2nd", "measured")

    page.get_by_role("tab", name="Generate").click()
    generate(page, steps=2, n=1)  # does not wait for them
    status(page, "step 0 / 2")
    gates.run.release()
    status(page, "step 2 / 2")

    gates.end_tuning()
    page.get_by_role("tab", name="Fine-tune").click()
    page.get_by_text("Held here.").first.wait_for()  # Start has begun, and is held
    page.locator("#tune-estimate").click()
    wait_in_queue(page, "2nd", "tuner")
    page.get_by_role("tab", name="Measure").click()
    wait_in_queue(page, "1st", "measured")
    page.locator("#measure-stop").click()
    page.locator("#measured [data-part=status]", has_text="Stopped.").wait_for()
    for _ in range(2):
        gates.end_tuning()


def test_stop_takes_a_fine_tuning_out_of_the_queue(visit: Any, gates: Gates) -> None:
    page = visit()
    open_tuning(page)
    page.locator("#tune-estimate").click()
    page.get_by_text("Held here.").first.wait_for()
    page.locator("#tune").click()
    wait_in_queue(page, "1st", "tuner")
    page.locator("#tune-stop").click()
    page.locator("#tune-line").get_by_text("Cancelled before it started.").first.wait_for()
    gates.end_tuning()
    page.get_by_text("This was held.").first.wait_for()
    page.get_by_role("tab", name="Measure").click()
    page.locator("#measure").click()  # the next in the same queue
    page.locator("#measure-line progress").wait_for()
    page.locator("#measure-stop").click()
    assert "Cancelled before it started." in page.locator("#tune-line").text_content()


# --- the server goes away ---------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.stop()


def test_a_page_outlives_its_server_and_so_do_its_pictures(browser: Any, server: Server) -> None:
    page = browser.new_page()  # with messages of lost connections in its console
    asked: set[Any] = set()
    page.on("request", lambda r: asked.add(r) if r.method == "POST" else None)
    for ended in ("requestfinished", "requestfailed"):
        page.on(ended, lambda r: asked.discard(r))
    page.goto(server.url)
    generate(page, steps=2, n=2)
    status(page, "step 2 / 2")
    page.locator("#go").wait_for()
    page.wait_for_timeout(1000)  # the connection that brought the run is closed
    while asked:  # a request that finds no server makes Gradio load the page again
        page.wait_for_timeout(1000)
    server.kill()
    server.start()
    page.wait_for_timeout(3000)  # it may have noticed
    page.locator("#go").wait_for()
    page.evaluate("window.same = true")
    generate(page, steps=900, n=2)  # as if nothing had been
    page.wait_for_function(f"() => {FRAMES} > 5", timeout=2 * PATIENCE * 1000)
    assert page.evaluate("window.same")

    server.kill()
    page.get_by_text("Connection to the server was lost.").first.wait_for()
    status(page, "The run ended early, at step ")
    frames = page.evaluate(FRAMES)
    server.start()
    page.wait_for_function("() => !window.same", timeout=PATIENCE * 1000)
    status(page, "Reloaded. Your last run is still here (stopped at step ")
    assert page.evaluate(FRAMES) == frames
    assert saved(page, "gif").startswith(b"GIF")
    set_number(page, "n", 1)
    generate(page, steps=3, n=1)
    status(page, "step 3 / 3")
    page.close()
