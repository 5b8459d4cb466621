"""The real app in a real browser: what a visitor does, and what they see."""

import io
import json
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.e2e

PIXELS = "() => document.querySelector('#player canvas').toDataURL()"
FRAMES = "+(document.querySelector('#player [data-frames]')?.dataset.frames || 0)"


def set_number(page: Any, elem_id: str, value: int) -> None:
    box = page.locator(f"#{elem_id} input[type=number]")
    box.fill(str(value))
    box.press("Tab")


def generate(page: Any, steps: int, n: int = 4) -> None:
    set_number(page, "steps", steps)
    set_number(page, "n", n)
    page.locator("#go").click()


def saved(page: Any, kind: str) -> bytes:
    with page.expect_download() as download:
        page.locator(f"#player [data-save={kind}]").click()
    return download.value.path().read_bytes()


def test_one_click_denoises_live_and_the_run_can_be_scrubbed_and_saved(
    page: Any, app_url: str
) -> None:
    page.goto(app_url)
    page.locator("#go").click()  # nothing but the defaults
    page.wait_for_function(f"() => {FRAMES} > 0")
    first = page.evaluate(PIXELS)
    page.wait_for_function(f"first => {FRAMES} > 1 && ({PIXELS})() !== first", arg=first)
    page.locator("#stop").click()
    page.locator("#go").wait_for()

    generate(page, steps=20, n=1)  # fewer pictures, as machines differ
    page.locator("#player").get_by_text("step 20 / 20").first.wait_for()
    page.wait_for_function(f"() => {FRAMES} === 21")
    last = page.evaluate(PIXELS)
    page.locator("#player [data-part=slider]").fill("0")
    page.locator("#player").get_by_text("t = 1000").first.wait_for()
    page.wait_for_function(f"last => ({PIXELS})() !== last", arg=last)
    noise = page.evaluate(PIXELS)
    page.locator("#player .ddpm-player").press("End")
    page.locator("#player").get_by_text("step 20 / 20").first.wait_for()
    page.wait_for_function(f"noise => ({PIXELS})() !== noise", arg=noise)

    film = iio.imread(saved(page, "gif"), extension=".gif")
    assert len(film) > 15
    assert not np.array_equal(film[0], film[-1])
    grid = Image.open(io.BytesIO(saved(page, "png")))
    assert (grid.text["model"], grid.text["steps"], grid.text["seed"]) == ("cifar10", "20", "0")


def test_the_same_seed_gives_the_same_pictures(page: Any, app_url: str) -> None:
    page.goto(app_url)

    def pictures() -> np.ndarray:
        page.reload()
        generate(page, steps=5)
        page.locator("#player").get_by_text("step 5 / 5").first.wait_for()
        return np.asarray(Image.open(io.BytesIO(saved(page, "png"))))

    assert np.array_equal(pictures(), pictures())


def test_stop_ends_the_run(page: Any, app_url: str) -> None:
    page.goto(app_url)
    generate(page, steps=900)
    page.wait_for_function(f"() => {FRAMES} > 1")
    page.locator("#stop").click()
    page.locator("#player [data-part=status]", has_text="Stopped.").wait_for()
    page.locator("#go").wait_for()  # in the place of Stop
    reached = page.evaluate(FRAMES)
    page.wait_for_timeout(1500)
    assert page.evaluate(FRAMES) == reached < 500
    generate(page, steps=3, n=1)  # the model is free again at once
    page.locator("#player").get_by_text("step 3 / 3").first.wait_for()


def test_one_button_says_whether_a_run_is_on(page: Any, app_url: str) -> None:
    page.goto(app_url)
    assert not page.locator("#stop").is_visible()
    generate(page, steps=500)
    page.locator("#stop").get_by_text("Stop", exact=True).wait_for()
    assert not page.locator("#go").is_visible()
    page.locator("#stop").click()
    page.locator("#go").wait_for()
    assert not page.locator("#stop").is_visible()
    generate(page, steps=2, n=1)
    page.locator("#player").get_by_text("step 2 / 2").first.wait_for()
    page.locator("#go").wait_for()  # also after a run that came to its end


def test_several_classes_take_turns_and_any_stands_alone(page: Any, app_url: str) -> None:
    page.goto(app_url)
    chosen = page.locator("#label .token")
    chosen.get_by_text("each in turn").first.wait_for()
    for name in ("ship", "frog"):
        page.locator("#label input").click()
        page.get_by_role("option", name=name).click()
    page.wait_for_function("() => document.querySelectorAll('#label .token').length === 2")
    generate(page, steps=1, n=2)
    page.locator("#player [data-part=title]", has_text="ship, frog").wait_for()
    assert page.locator("#guidance input[type=number]").is_enabled()
    page.locator("#label input").click()
    page.get_by_role("option", name="any (no class)").click()
    page.wait_for_function("() => document.querySelectorAll('#label .token').length === 1")
    page.wait_for_function("() => document.querySelector('#guidance input[type=number]').disabled")


def test_a_wrong_value_is_one_sentence_and_the_app_goes_on(page: Any, app_url: str) -> None:
    page.goto(app_url)
    set_number(page, "seed", -5)
    generate(page, steps=3, n=1)
    page.get_by_text(
        "Seed must be a whole number from 0 to 4,294,967,295, not -5."
    ).first.wait_for()
    set_number(page, "seed", 5)
    page.locator("#go").click()
    page.locator("#player").get_by_text("step 3 / 3").first.wait_for()


def test_a_photo_dissolves(page: Any, app_url: str, tmp_path: Any) -> None:
    photo = tmp_path / "photo.jpg"
    ramp = np.linspace(0, 255, 300 * 200 * 3).reshape(300, 200, 3).astype(np.uint8)
    Image.fromarray(ramp).save(photo)
    page.goto(app_url)
    page.get_by_role("tab", name="Forward noising").click()
    page.locator("#forward-picture input[type=file]").set_input_files(photo)
    canvas = "() => document.querySelector('#noiser figure.linear canvas').toDataURL()"
    slider = page.locator("#noiser input.t")
    slider.fill("0")
    page.locator("#noiser output .now", has_text="0").wait_for()
    clean = page.evaluate(canvas)
    slider.fill("600")
    page.wait_for_function(f"clean => ({canvas})() !== clean", arg=clean)


def test_phone_width_has_no_sideways_scrolling(page: Any, app_url: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(app_url)
    page.locator("#go").wait_for()
    assert page.locator(".overflow-menu:visible").count() == 0  # no tab hides in it
    for tab in ("Generate", "Forward noising"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(300)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, tab


@pytest.mark.parametrize(
    "controls",
    [
        ["mnist", "ddim", 10**9, 4],
        ["mnist", "ddim", "many", 4],
        ["mnist", "ddim", float("1e308"), 4],
        ["mnist", "ddim", 5, 10**6],
        ["mnist", "ddim", 5, -1],
        ["mnist", "../../etc/passwd", 5, 4],
        ["../mnist", "ddim", 5, 4],
        [None, None, None, None],
        [{"a": 1}, ["b"], {}, []],
    ],
)
def test_absurd_raw_calls_get_one_sentence(app_url: str, controls: list[Any]) -> None:
    import httpx

    config = httpx.get(f"{app_url}config").json()
    go = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "go")
    run = next(d["id"] for d in config["dependencies"] if [go, "click"] in d["targets"])
    data = [None, *controls, 0, "trailing", "beta_tilde", 0.0, True, ["any"], 1.0, 1000]
    body = {"data": data, "fn_index": run, "session_hash": "raw", "trigger_id": None}
    joined = httpx.post(f"{app_url}gradio_api/queue/join", json=body)
    assert joined.status_code == 200
    with httpx.stream(
        "GET", f"{app_url}gradio_api/queue/data?session_hash=raw", timeout=30
    ) as lines:
        for line in lines.iter_lines():
            message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
            if message.get("msg") == "process_completed":
                break
    assert not message["success"]
    said = message["output"]["error"] or ""
    assert "Traceback" not in said
    assert "\n" not in said
