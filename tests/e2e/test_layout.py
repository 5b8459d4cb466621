"""Pictures, timeline, Play, t and the main button are on one screen, whatever its size; the stage
can have all of it; targets are large and show their focus; and axe-core finds nothing that keeps
somebody out."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ddpm_demo.config import SampleConfig
from ddpm_demo.inference.generate import generate
from ddpm_demo.inference.updates import updates
from ddpm_demo.ui.components import player
from ddpm_demo.ui.generate import first_run

pytestmark = pytest.mark.e2e

AXE = "axe-core@4.11.0"
FOUND = """async () => {
  const { violations } = await axe.run({ exclude: [["footer"]] }); // which is Gradio's own
  return violations.map(({ id, nodes }) => [id, ...nodes.map(({ html }) => html.slice(0, 200))]);
}"""
SIZES = [(1366, 625), (1280, 800), (1920, 1080), (390, 844), (844, 390)]
TABS = {
    "Generate": ("#player", "[data-part=slider]", "[data-part=play]", "[data-part=status]", "#go"),
    "Forward noising": ("#noiser", ".t", ".play", ".now", ".own"),
    "Fine-tune": (
        "#tuner",
        "[data-part=slider]",
        "[data-part=play]",
        "[data-part=status]",
        "#tune",
    ),
}
TARGETS = """() => [...document.querySelectorAll(
    "button, input, select, textarea, a[href], summary, [tabindex='0']")]
  .filter((e) => !e.disabled && e.checkVisibility({ visibilityProperty: true }))"""
# A box that is checked, and what else has a label around it, is hit by its label, too.
SMALL = f"""() => ({TARGETS})().map((e) => [e, (e.closest("label") ?? e).getBoundingClientRect()])
  .filter(([, {{ width, height }}]) => width > 1 && Math.min(width, height) < 23.9)
  .map(([e, {{ width, height }}]) => [width, height, e.outerHTML.slice(0, 150)])"""
UNMARKED = f"""() => ({TARGETS})().filter((e) => {{
    e.focus();
    const {{ outlineStyle, outlineWidth }} = getComputedStyle(e);
    const marked = outlineStyle !== "none" && parseFloat(outlineWidth) >= 2;
    return document.activeElement === e && !marked;
  }}).map((e) => e.outerHTML.slice(0, 150))"""
SETTLED = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
BOXES = """([stage, names]) => {
  const root = document.querySelector(stage);
  const pictures = [...root.querySelectorAll("figure:not([hidden]) canvas")];
  const parts = names.map((n) => root.querySelector(n) ?? document.querySelector(n));
  return [...pictures, ...parts].map((part) => {
    const { x, y, right, bottom } = part.getBoundingClientRect();
    return [Math.round(x), Math.round(y), Math.round(right), Math.round(bottom)];
  });
}"""


@pytest.fixture
def told(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The app's first run is there, here of a tiny network."""
    checkpoint, config = tiny(), SampleConfig(steps=8, labels=None)
    steps = generate(checkpoint, config)
    said = updates(checkpoint, config)
    messages = player.stream(steps, panels=player.STEP_PANELS, title="A run", updates=said)
    monkeypatch.setattr(first_run, "_told", first_run.told(messages))


@pytest.fixture
def opened(page: Any, app_url: str, told: None) -> Any:
    """A page that shows the app's first run."""
    page.goto(app_url)
    page.locator("#player [data-run=over]").wait_for(state="attached")
    yield page
    page.set_viewport_size({"width": 1280, "height": 800})


def test_all_is_on_one_screen(opened: Any) -> None:
    page = opened
    for tab, (stage, *names) in TABS.items():
        page.set_viewport_size({"width": 1366, "height": 625})
        page.get_by_role("tab", name=tab).click()
        page.locator(f"{stage} canvas").first.wait_for()
        page.wait_for_function(f"() => document.querySelector('{stage} canvas').height !== 150")
        for width, height in SIZES:
            page.set_viewport_size({"width": width, "height": height})
            page.evaluate(
                "new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))"
            )
            boxes = page.evaluate(BOXES, [stage, names])
            where = f"{tab} at {width} x {height}: {boxes}"
            assert min(y for _, y, _, _ in boxes) >= 0, where
            assert max(bottom for *_, bottom in boxes) <= height, where
            assert max(right for _, _, right, _ in boxes) <= width, where
            assert boxes[0][1] == boxes[1][1], where  # side by side
            assert boxes[0][2] - boxes[0][0] > 110, where
    page.set_viewport_size({"width": 1920, "height": 1080})
    box = page.locator(".gradio-container").bounding_box()
    assert abs(2 * box["x"] + box["width"] - 1920) < 20  # centred


def test_the_stage_alone(opened: Any) -> None:
    page, root = opened, opened.locator("#player .ddpm-player")
    page.evaluate("ddpmLinks.address = () => new URL('https://lecture.example/?seed=7')")
    keys = page.locator("#player [data-part=keys]")
    keys.evaluate(  # for three seconds only, which a busy machine may miss
        "keys => new MutationObserver(() => { if (!keys.hidden) keys.dataset.seen = true; })"
        ".observe(keys, { attributes: true, attributeFilter: ['hidden'] })"
    )
    page.keyboard.press("p")
    page.locator("#player [data-part=keys][data-seen=true]").wait_for(state="attached")
    page.locator("#player [data-part=qr]").wait_for()
    box = root.bounding_box()
    size = page.evaluate("[innerWidth, innerHeight]")
    assert [box["x"], box["y"], box["width"], box["height"]] == [0, 0, *size]
    assert not page.locator("#player [data-save=gif]").is_visible()
    small = root.evaluate(
        """root => [...root.querySelectorAll("*")].filter((e) => e.checkVisibility() &&
        [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) &&
        parseFloat(getComputedStyle(e).fontSize) < 20 && !e.closest("sub, msub")).map((e) =>
        e.outerHTML)"""
    )
    assert small == []
    page.keyboard.press("Home")
    page.locator("#player [data-step='0']").wait_for(state="attached")
    page.locator("#player [data-part=keys]").wait_for(state="hidden")
    page.keyboard.press("Escape")
    page.locator("#go").wait_for()
    assert root.bounding_box()["width"] < size[0]
    assert not page.locator("#player [data-part=qr]").is_visible()

    page.get_by_role("tab", name="Forward noising").click()
    page.locator("#noiser [data-shown='400']").wait_for()
    page.get_by_role("button", name="Present").click()
    page.locator("#noiser [data-part=qr]").wait_for()
    stage = page.locator("#noiser .stage").bounding_box()
    assert [stage["x"], stage["y"], stage["width"], stage["height"]] == [0, 0, *size]
    page.keyboard.press("ArrowRight")
    page.locator("#noiser [data-shown='401']").wait_for()
    page.keyboard.press("p")
    page.locator("#noiser [data-part=qr]").wait_for(state="hidden")


@pytest.mark.usefixtures("told")
def test_a_phone_that_opens_the_page_has_all_on_one_screen(page: Any, app_url: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(app_url)
    page.locator("#player [data-run=over]").wait_for(state="attached")
    page.wait_for_function("() => document.querySelector('#player canvas').height !== 150")
    page.evaluate(SETTLED)
    stage, *names = TABS["Generate"]
    *_, slider, play, status, go = page.evaluate(BOXES, [stage, names])
    for part in (slider, play, status):
        assert part[3] <= go[1]  # above the button, which stays at the bottom of the screen
    assert go[3] <= 844


def test_three_enlarged_panes_leave_room_for_the_timeline(opened: Any) -> None:
    page = opened
    for box in page.locator("#player [data-part=choice] input").all():
        box.check()
    page.locator("#player [data-part=one]").click()
    page.locator("#player [data-part=back]").click()
    page.locator("#player [data-part=probe] table").wait_for()
    stage, *names = TABS["Generate"]
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")
        *panes, slider, play, status, _ = page.evaluate(
            BOXES, [f"{stage} [data-part=stage]", names]
        )
        where = f"{width} x {height}: {panes}, {slider}, {play}"
        assert len(panes) >= 3, where
        assert {(pane[1], pane[3]) for pane in panes} == {(panes[0][1], panes[0][3])}, where
        assert min(pane[2] - pane[0] for pane in panes) > 100, where
        assert max(part[3] for part in (slider, play, status)) <= height, where


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core, which npm fetches."""
    npm, folder = shutil.which("npm"), tmp_path_factory.mktemp("axe")
    if npm is None:
        if os.environ.get("REQUIRE_NODE"):
            pytest.fail("REQUIRE_NODE is set, but npm is not installed.", pytrace=False)
        pytest.skip("NO CHECK OF ACCESSIBILITY: npm not found; install Node.js and npm")
    subprocess.run([npm, "install", "--no-save", "--silent", AXE], cwd=folder, check=True)
    return Path(folder, "node_modules", "axe-core", "axe.min.js").read_text(encoding="utf-8")


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nobody_is_kept_out(page: Any, app_url: str, axe: str, theme: str) -> None:
    page.goto(f"{app_url}?__theme={theme}&model=mnist&steps=900")
    page.locator("html[data-link]").wait_for(state="attached")
    page.evaluate(axe)
    found = {"before": page.evaluate(FOUND)}
    page.locator("#player [data-run=over]").wait_for(state="attached")
    page.locator("#go").click()
    page.locator("#stop").wait_for()
    page.locator("#player [data-run=running]").wait_for(state="attached")
    found["during"] = page.evaluate(FOUND)
    page.locator("#stop").click()
    page.locator("#go").wait_for()
    for tab in page.get_by_role("tab").all():
        tab.click()
        page.evaluate(SETTLED)
        found[tab.inner_text()] = page.evaluate(FOUND)
        found[f"small in {tab.inner_text()}"] = page.evaluate(SMALL)
        page.keyboard.press("Tab")  # from now on, a focus is one of the keyboard
        found[f"unmarked in {tab.inner_text()}"] = page.evaluate(UNMARKED)
    assert {where: what for where, what in found.items() if what} == {}
