"""Links in a real browser: what is opened by one, what is written into the address, and frames."""

import re
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

READ = "html[data-link]"
RUN = "model=mnist&sampler=ddim&steps=3&n=4&seed=7&class=3,5&t=500&panes=x_t,eps_hat"
PARENT = "https://huggingface.co/spaces/you/demo"


def shown(page: Any) -> list[str]:
    """Model, steps, seed and number of pictures, as the controls say."""
    boxes = [page.locator(f"#{name} input").first for name in ("model", "steps", "seed", "n")]
    return [box.input_value() for box in boxes]


def has(page: Any, *parts: str) -> None:
    """Wait until the address has some parts."""
    page.wait_for_function(
        "parts => parts.every((part) => location.search.includes(part))", arg=list(parts)
    )


def test_a_link_makes_its_run_and_a_reload_keeps_it(page: Any, app_url: str) -> None:
    page.goto(f"{app_url}?{RUN}&run=1&seed=-1&x=<img+src=y+onerror=alert(1)>&seed=7&guidance=99")
    page.locator(READ).wait_for(state="attached")
    line = page.locator("#link-line").inner_text()
    assert "Nothing is called 'x'. Guidance must be a number from 0 to 20, not 99.0." in line
    assert page.locator("#link-line img").count() == 0

    status = page.locator("#player [data-part=status]")
    page.locator("#player [data-run=over]").wait_for(state="attached")
    status.get_by_text("t = 333").wait_for()  # the first step that has come down to 500
    page.get_by_role("button", name="Make new ones").wait_for()
    assert shown(page) == ["mnist", "3", "7", "4"]
    has(page, "model=mnist", "steps=3", "seed=7", "n=4", "class=3+-+three,5+-+five", "t=333")
    assert "run=" not in page.url
    figures = page.get_by_role("figure").evaluate_all("all => all.map((f) => f.dataset.pane)")
    assert figures == ["x_t", "eps_hat"]

    page.locator("#seed input").fill("9")
    page.locator("#player [data-part=back]").click()
    has(page, "seed=9", "t=667")
    page.reload()
    page.locator(READ).wait_for(state="attached")
    status.get_by_text("t = 667").wait_for()
    assert shown(page) == ["mnist", "3", "9", "4"]
    assert not page.locator("#link-line").is_visible()

    has(page, "steps=3", "n=4", "class=3+-+three,5+-+five")
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(); }")
    page.get_by_role("button", name="Copy link").click()
    link = page.get_by_role("textbox", name="Link to this page").input_value()
    assert "seed=9" in link
    assert link.endswith("run=1")


def test_a_link_opens_forward_noising(page: Any, app_url: str) -> None:
    page.goto(f"{app_url}?tab=forward&T=500&t=100&schedule=cosine&picture=cat&timesteps=1,50")
    page.locator("#noiser [data-shown='100']").wait_for()
    page.locator(READ).wait_for(state="attached")
    formula = page.locator("#noiser figure.cosine .formula").inner_text()
    assert [float(n) for n in re.findall(r"\d\.\d+", formula)] == pytest.approx([0.948, 0.318])
    assert not page.locator("#noiser figure.linear").is_visible()

    page.locator("#noiser input[type=range]").fill("300")
    page.get_by_role("radio", name="Laplace").check()
    has(page, "t=300", "noise=laplace", "T=500", "schedule=cosine", "picture=cat")
    has(page, "timesteps=1,50")
    page.get_by_role("tab", name="Generate").click()
    page.wait_for_function("() => !location.search.includes('forward')")
    page.reload()
    page.locator(READ).wait_for(state="attached")
    page.get_by_role("tab", name="Forward noising").click()
    has(page, "tab=forward", "t=300", "noise=laplace")  # the other tab was kept, too
    page.locator("#noiser [data-shown='300']").wait_for()
    page.get_by_role("button", name="Cameraman").wait_for()

    page.goto(f"{app_url}?x={30_000 * 'y'}")
    page.locator("#link-line").get_by_text("more than 4,096 characters").wait_for()
    page.wait_for_function("() => !location.search")


OTHERS = {
    "tab=finetune&class=horse&length=3&unit=epochs&batch=8": ("#tune-length input", "3"),
    "tab=measure&model=mnist&n=300&sampler=unipc&steps=7": ("#measure-n input", "300"),
    "tab=experiments&experiment=guidance&w=2.5": ("#experiment-guidance-w input", "2.5"),
    "model=mnist&steps=5&with=z=0:400;eps=1.02:300": ("#steps input", "5"),
}


@pytest.mark.parametrize("link", OTHERS)
def test_a_link_and_a_reload_set_up_each_tab(browser: Any, app_url: str, link: str) -> None:
    page = browser.new_page()  # loading it anew breaks off streams, of which Gradio complains
    page.goto(f"{app_url}?{link}")
    asked = dict(pair.split("=", 1) for pair in link.split("&"))
    box, value = OTHERS[link]
    for again in (False, True):
        if again:
            page.reload()
        page.locator(READ).wait_for(state="attached")
        page.wait_for_function(
            "([box, value]) => document.querySelector(box)?.value === value",
            arg=[box, value],
        )
        page.wait_for_function(
            """asked => Object.entries(asked).every(([name, value]) =>
              new URLSearchParams(location.search).get(name) === value)""",
            arg=asked,
        )
        assert page.locator("#link-line").inner_text().strip() == ""
    page.close()


def test_a_frame_tells_the_page_around_it(browser: Any, app_url: str) -> None:
    """As on a Space, whose own address holds the link."""
    from playwright.sync_api import expect

    page = browser.new_page()
    inside = f'<iframe src="{app_url}?seed=5" width=1200 height=700></iframe>'
    script = "<script>heard = []; onmessage = (event) => heard.push(event.data)</script>"
    page.route(PARENT, lambda route: route.fulfill(body=script + inside, content_type="text/html"))
    page.goto(PARENT)
    frame = page.frame_locator("iframe")
    frame.locator(READ).wait_for(state="attached")
    seed = frame.locator("#seed input")
    expect(seed).to_have_value("5", timeout=60_000)
    seed.fill("6")
    page.wait_for_function("() => heard.some((said) => said.queryString?.includes('seed=6'))")
    page.close()
