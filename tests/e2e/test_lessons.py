"""A lesson in a real browser: what is hidden, what an answer shows, what is kept."""

from typing import Any

import pytest

pytestmark = pytest.mark.e2e


def test_a_lesson_is_walked_through(browser: Any, app_url: str) -> None:
    from playwright.sync_api import expect

    page = browser.new_page()  # loading it anew breaks off streams, of which Gradio complains
    page.goto(app_url)
    page.get_by_role("button", name="Lessons", exact=True).click()
    page.get_by_role("button", name="What the network sees").click()
    card = page.get_by_role("complementary", name="Lessons")
    card.get_by_role("heading", name="The first guess").wait_for()
    stage = page.locator("#player [data-pane=x0_hat] .ddpm-box")
    cover = "box => getComputedStyle(box, '::after').content"
    page.locator("#player [data-run=over]").wait_for()
    assert "Hidden until you have answered" in stage.evaluate(cover)
    assert page.locator("#model input").input_value() == "mnist"
    expect(page.locator("[data-part=reply]")).to_be_empty()

    card.get_by_role("button", name="Noise", exact=True).click()
    expect(card.get_by_role("status")).to_contain_text("the guesses are smooth")
    expect(card).to_contain_text("the mean of all digits")
    assert stage.evaluate(cover) == "none"

    page.reload()
    card.get_by_role(
        "heading", name="The first guess"
    ).wait_for()  # the answer is kept in this browser, and the address names the card
    expect(card.get_by_role("status")).to_contain_text("the guesses are smooth")
    assert "lesson=what-the-network-sees&card=1" in page.url
    card.get_by_role("button", name="All", exact=True).click()
    expect(card.get_by_role("button", name="What the network sees")).to_contain_text(
        "1 of 4 answered"
    )
    card.get_by_role("button", name="Close the lessons").click()
    expect(card).to_be_hidden()
    page.evaluate("localStorage.clear()")
    page.close()


def test_a_card_runs_an_experiment(browser: Any, app_url: str) -> None:
    from playwright.sync_api import expect

    page, loaded = browser.new_page(), []
    page.on("domcontentloaded", lambda page: loaded.append(page.url))
    page.goto(f"{app_url}?lesson=find-the-bug&card=1")
    card = page.get_by_role("complementary", name="Lessons")
    card.get_by_role("heading", name="Grain").wait_for()
    tab = page.get_by_role("tab", name="Experiments")
    expect(tab).to_have_attribute("aria-selected", "true", timeout=60_000)
    page.wait_for_function("location.search.includes('bug=short')")
    card.get_by_role("button", name="The last step adds noise").click()
    page.locator("#experiment-result img").first.wait_for()
    assert len(loaded) == 2  # the bare link, which sets up the card, and the answer
    expect(card).to_contain_text("differ in that alone", timeout=60_000)
    page.evaluate("localStorage.clear()")
    page.close()
