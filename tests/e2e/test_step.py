"""The step beside the player, in a real browser: the numbers that it shows are the sampler's."""

import re

import gradio as gr
import pytest
from faults_server import Server

from ddpm_demo.config import SampleConfig
from ddpm_demo.inference.generate import generate
from ddpm_demo.inference.updates import updates
from ddpm_demo.ui.components import player

pytestmark = pytest.mark.e2e

CONFIG = SampleConfig(sampler="ddpm", steps=5, n=4, labels=None)
ROOT = "#player .ddpm-player"


@pytest.fixture
def page(browser):
    """As another visitor has it: what other tests have left in the browser doesn't count."""
    page, wrong = browser.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield page
    page.evaluate("localStorage.clear()")
    page.close()
    assert not wrong


@pytest.fixture
def said(page, serve, tiny):
    """The updates of a run that the page has shown to its end."""
    checkpoint = tiny()
    said = updates(checkpoint, CONFIG)

    def run():
        steps = generate(checkpoint, CONFIG)
        yield from player.stream(steps, panels=player.STEP_PANELS, updates=said)

    with gr.Blocks() as demo:
        go = gr.Button("Generate", elem_id="go")
        shown = player.Player(elem_id="player", step=True)
        go.click(run, None, shown, **player.progress(shown))
    page.goto(serve(demo))
    page.locator("#go").click()
    page.wait_for_selector("#player [data-run=over]", state="attached")
    return said


def test_a_step_says_what_it_computes(page, said):
    page.locator(f"{ROOT} [data-part=slider]").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#player [data-step='1']", state="attached")

    maths = page.locator(f"{ROOT} [data-part=maths] math > mrow")
    numbers = [float(n) for n in maths.locator("> mn").all_text_contents()]
    assert numbers == pytest.approx([c for _, c in said["lines"][1]], abs=5e-4)
    shares = page.locator(f"{ROOT} [data-part=snr]").inner_text()
    ab = said["alpha_bar"][1]
    assert [float(n) for n in re.findall(r"[\d.]+", shares)] == pytest.approx(
        [ab, ab / (1 - ab)], abs=2e-3
    )
    assert page.locator(f"{ROOT} [data-part=curve] circle").count() == 6

    page.get_by_role("button", name="code").click()
    page.wait_for_selector(f"{ROOT} dialog[open]")
    assert "def ddpm(" in page.locator(f"{ROOT} dialog pre").inner_text()
    page.keyboard.press("Escape")
    assert page.locator(f"{ROOT} dialog[open]").count() == 0


@pytest.mark.usefixtures("said")
def test_panes_are_chosen_by_the_keyboard(page):
    page.locator(f"{ROOT} [data-part=first]").click()
    figures = page.get_by_role("figure")
    assert figures.count() == 2
    for name in ("Predicted noise ε̂", "Fresh noise σ z"):
        page.get_by_role("checkbox", name=name).focus()
        page.keyboard.press("Space")
    assert figures.count() == 4
    drawn = "c => c.getContext('2d').getImageData(0, 0, 1, 1).data[3]"
    z = page.locator(f"{ROOT} figure[data-pane=z] canvas")
    page.wait_for_function(f"c => ({drawn})(c) === 255", arg=z.element_handle())
    page.locator(f"{ROOT} [data-part=last]").click()
    page.wait_for_function(f"c => ({drawn})(c) === 0", arg=z.element_handle())  # none at the end


# --- the whole app: a pixel, a drawing, branches


@pytest.fixture(scope="module")
def server(browser, tmp_path_factory):
    found = Server(tmp_path_factory.mktemp("step"), models=("tiny",))
    yield found
    found.stop()


def sums(page):
    """What each line of the table says is the next value, and what its terms sum to."""
    found = []
    for row in page.locator(f"{ROOT} [data-part=probe] tr").all_inner_texts():
        text = re.sub(r"[^\d.e+=·()-]", "", row.replace("−", "-").partition("grey")[2])
        left, right = text.split("=")
        found.append((float(left), eval(right.replace("·", "*").replace("e-", "E-"))))
    return found


def over(page, words):
    page.locator(f"{ROOT} [data-part=title]", has_text=words).wait_for()
    page.wait_for_selector("#player [data-run=over]", state="attached")
    page.locator("#go").wait_for()


def draw_across(page, canvas, height):
    """With the mouse, from the left to the right."""
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    y = box["y"] + height * box["height"]
    page.mouse.move(box["x"] + 0.1 * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.9 * box["width"], y, steps=5)
    page.mouse.up()


# The link's run begins only when the server's own is there.
LATE = """
const soon = window.requestAnimationFrame.bind(window);
const there = () => document.querySelector('#player [data-run=over]');
window.requestAnimationFrame = (f) =>
  soon((t) => (`${f}`.includes('press') && !there() ? window.requestAnimationFrame(f) : f(t)));
"""


def test_a_link_shows_its_t_of_the_run_that_it_makes(page, server):
    page.add_init_script(LATE)
    page.goto(f"{server.url}?sampler=ddpm&steps=4&n=1&seed=9&t=750&run=1")
    page.locator(f"{ROOT} [data-part=title]", has_text="seed 9").wait_for()
    page.wait_for_selector("#player [data-run=over]", state="attached")
    page.locator(f"{ROOT} [data-part=status]", has_text="t = 750").wait_for()


@pytest.fixture
def enlarged(page, server):
    """The page at step 2 of a changed run, with the first picture enlarged, all by keyboard."""
    page.goto(f"{server.url}?sampler=ddpm&steps=6&n=4&seed=3&with=z=0:200&run=1")
    over(page, "z left out from t = 200")
    page.locator(f"{ROOT} [data-part=slider]").focus()
    for key in ("Home", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    page.wait_for_selector("#player [data-step='2']", state="attached")
    page.get_by_role("button", name="Enlarge").press("Enter")
    return page.locator(f"{ROOT} figure canvas").first


def test_a_pixel_is_read_by_keys_and_by_pointing(page, enlarged):
    """With all decimals, the terms sum to the next picture."""
    from playwright.sync_api import expect

    enlarged.focus()
    probe = page.locator(f"{ROOT} [data-part=probe]")
    expect(probe).to_contain_text("row 5, column 5", timeout=60_000)
    page.keyboard.press("ArrowRight")
    expect(probe).to_contain_text("row 5, column 6", timeout=60_000)
    probe.get_by_role("button").press("Enter")
    box = enlarged.bounding_box()
    for x, y in ((0.06, 0.06), (0.94, 0.3)):
        enlarged.hover(position={"x": x * box["width"], "y": y * box["height"]})
        probe.get_by_text(f"row {int(8 * y) + 1}, column {int(8 * x) + 1}").wait_for()
        ((shown, total),) = sums(page)
        assert total == pytest.approx(shown, abs=1e-5)


def test_a_drawing_is_branched_and_compared(page, enlarged):
    page.locator("#pausing button").first.press("Enter")
    page.locator("#change input").click()
    page.get_by_role("option", name="Paint bright").click()
    enlarged.focus()
    for key in ("ArrowUp", "ArrowUp", "ArrowUp", "Space"):  # a dot, in row 2
        page.keyboard.press(key)
    page.locator(f"{ROOT} .ddpm-drawn:visible").nth(1).wait_for()
    draw_across(page, enlarged, 0.15)
    assert page.locator(f"{ROOT} .ddpm-drawn:visible").count() == 2
    count = page.locator("#branches input[type=number]")
    count.fill("4")
    count.press("Tab")
    page.locator("#branch").press("Enter")
    over(page, "painted bright at t = 667 · 4 continuations of picture 1")

    page.locator(f"{ROOT} [data-part=first]").click()
    page.wait_for_selector("#player [data-step='2']", state="attached")
    tree = page.locator(f"{ROOT} [data-part=tree]")
    tree.locator("g").nth(1).wait_for(state="attached")
    assert tree.locator("g").count() == 2
    start, wide = (tree.locator("g path:not(.wide)").nth(k).get_attribute("d") for k in (0, 1))
    assert start == "M0.0 7V7H1000.0"
    assert wide == "M333.3 7V21H1000.0"  # it leaves the first run at step 2 of 6
    beside = page.get_by_label("Run beside it")
    beside.select_option(index=1)
    apart = page.locator(f"{ROOT} [data-part=branches] canvas").nth(1)
    apart.wait_for()
    grey = apart.evaluate(
        """c => [0, c.height - 1].map((y) => {
          const d = c.getContext('2d').getImageData(0, y, c.width, 1).data;
          return Math.max(...d.map((v, k) => (k % 4 === 3 ? 0 : Math.abs(v - 127))));
        })"""
    )
    assert grey[0] > 10  # the drawing was at the top of the picture,
    assert grey[1] <= 1  # and not at its bottom
    page.locator(f"{ROOT} [data-part=last]").click()
    page.wait_for_selector("#player [data-step='6']", state="attached")
    far = page.locator(f"{ROOT} [data-part=branches] output", has_text="distance 0")
    assert float(far.inner_text().split()[1]) > 0.01


def test_a_drawing_begins_a_run(page, server):
    """Drawn by keyboard; from t = 1 it stays as it was drawn."""
    page.goto(f"{server.url}?sampler=ddpm&steps=6&seed=3")
    page.locator("html[data-link]").wait_for(state="attached")
    page.get_by_role("button", name="From a picture").click()
    page.get_by_role("slider", name="Width of the brush").fill("80")
    page.locator("#pad canvas").focus()
    for _ in range(16):
        page.keyboard.press("Shift+ArrowRight")
    page.get_by_role("textbox", name="Timesteps to begin at").fill("900, 1")
    page.locator("#denoise").click()
    over(page, "a picture, noised to t = 900, 1")
    rows = page.locator(f"{ROOT} figure[data-pane=x_t] canvas").evaluate(
        """c => [0, 4].map((y) => {
          const d = c.getContext('2d').getImageData(c.width - 3, y, 3, 1).data;
          return [d[0], d[4], d[8]].sort((a, b) => a - b);
        })"""
    )
    assert rows[0][2] < 60  # black above,
    assert rows[1][0] > 190  # and white at the end of the stroke


def test_the_picture_of_forward_noising_is_denoised(page, server):
    """By one call of a model there, and step by step in Generate, from the same t."""
    page.goto(f"{server.url}?tab=forward&t=300")
    page.locator("#noiser [data-shown='300']").wait_for()
    page.get_by_role("button", name="What does a model see in it?").click()
    page.get_by_role("button", name="Denoise in one shot").click()
    said = page.locator("#shot-result")
    said.get_by_text("The network was asked once, at t = 300.").wait_for()
    assert said.locator("figure img").count() == 5
    page.get_by_role("button", name="Denoise from here").click()
    over(page, "a picture, noised to t = 300")
    assert page.get_by_role("textbox", name="Timesteps to begin at").input_value() == "300"
