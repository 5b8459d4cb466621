"""A room in real browsers: a lecturer at the projector, and two phones."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ddpm_demo.ui.server import network, settings

pytestmark = pytest.mark.e2e
OPEN = "Open a room for phones"


@pytest.fixture
def address(serve_app: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> str:
    # Phones of the test are on this machine, so its loopback has to stand for its address.
    monkeypatch.setattr(settings, "host", "0.0.0.0")
    monkeypatch.setattr(network, "_own_addresses", lambda: ["127.0.0.1"])
    return serve_app()


@pytest.fixture
def phones(browser: Any) -> Iterator[list[Any]]:
    contexts = [browser.browser.new_context(viewport={"width": 390, "height": 844}) for _ in "ab"]
    for context in contexts:
        context.set_default_timeout(60_000)
    yield [context.new_page() for context in contexts]
    for context in contexts:
        context.close()


def choices(phone: Any) -> Any:
    return phone.locator("#choices button")


def test_a_class_answers_by_phone(browser: Any, address: str, phones: list[Any]) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=60_000)  # for busy machines
    page = browser.new_page()
    page.goto(f"{address}?tab=generate&model=mnist&lesson=what-the-network-sees&card=1&seed=1")
    panel, door = page.get_by_role("complementary", name="Lessons"), page.get_by_role("dialog")
    panel.get_by_role("button", name=OPEN).click()
    code = door.locator("[data-part=room-letters]").inner_text().replace(" ", "")
    assert door.locator("img").evaluate(
        "image => image.decode().then(() => image.naturalWidth > 20)"
    )
    expect(door).to_contain_text(address.removeprefix("http://") + "room")

    ann, bob = phones  # one scans, one types
    ann.goto(f"{address}room/{code.lower()}")
    bob.goto(f"{address}room")
    bob.get_by_label("The code on the screen").fill(f"{code[:3]} {code[3:]}")
    bob.get_by_role("button", name="Come in").click()
    expect(door).to_contain_text("2 people here")
    door.get_by_role("button", name="Begin").click()
    they_vote(ann, bob, panel)
    they_see(ann, panel)

    with page.expect_download() as download:
        panel.get_by_role("button", name="Save the votes").click()
    table = Path(download.value.path()).read_text(encoding="utf-8")
    assert [line[-1] for line in table.splitlines()[1:]] == ["1", "1", "0"]
    panel.get_by_role("button", name="Next").click()
    expect(ann.locator("#place")).to_have_text("2 of 4")
    expect(panel).to_contain_text("2 people here, 0 votes")  # the page is new, the room is not
    panel.get_by_role("button", name="Close the room").click()
    panel.get_by_role("button", name="Forget the votes, and close?").click()
    expect(bob.locator("#title")).to_have_text("This room is closed")
    expect(panel.get_by_role("button", name=OPEN)).to_be_visible()
    page.close()


def they_vote(ann: Any, bob: Any, panel: Any) -> None:
    from playwright.sync_api import expect

    for k in (0, 1):  # the second takes the place of the first
        choices(ann).nth(k).click()
        expect(choices(ann).nth(k)).to_have_attribute("aria-pressed", "true")
    choices(bob).first.click()
    expect(panel).to_contain_text("2 people here, 2 votes")
    assert panel.locator("[data-votes]").count() == 0
    bob.reload()  # another page of the same browser is the same person
    expect(choices(bob).first).to_have_attribute("aria-pressed", "true")


def they_see(ann: Any, panel: Any) -> None:
    from playwright.sync_api import expect

    panel.get_by_role("button", name="Reveal").click()
    bars = panel.locator("[data-part=choices] button")
    expect(bars.first).to_have_attribute("data-votes", "1")
    assert bars.evaluate_all("all => all.map(one => one.dataset.votes).join()") == "1,1,0"
    assert bars.nth(1).evaluate("one => one.style.getPropertyValue('--share')") == "50%"
    expect(panel).to_contain_text("2 people here, 2 votes")
    expect(ann.locator("#choices .right")).to_have_count(1)
    expect(choices(ann).first).to_be_disabled()
