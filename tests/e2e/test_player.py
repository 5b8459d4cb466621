"""The player in a real browser, fed with pictures whose every pixel is known."""

import io
import json
import threading
import time
import urllib.request
from types import SimpleNamespace

import gradio as gr
import pytest
import torch
from PIL import Image

from ddpm_demo.ui.components import player
from ddpm_demo.ui.components.player import export

pytestmark = pytest.mark.e2e

N, SIZE, TOTAL = 4, 8, 20
HEAD = 2 * 2 * 12  # pixels: the two lines above the pictures of a film
ROOT = "#player .ddpm-player"
STAGE = f"{ROOT} [data-part=stage]"


class Plan:
    """What the next run does. It waits at step `hold_at` until `go_on` is set."""

    def __init__(self):
        self.hold_at, self.fail_at, self.pause, self.channels = None, None, 0.002, 1
        self.go_on, self.closed, self.pulled = threading.Event(), threading.Event(), 0


plan = Plan()


def level(step, picture):
    """The grey of a whole picture of x_t; x0_hat is its negative."""
    return 2 * step + 40 * picture


def steps(plan):
    for k in range(TOTAL + 1):
        while k == plan.hold_at and not plan.go_on.wait(0.02):
            yield k - 1  # pulled again: a handler stops only where it yields
        if k == plan.fail_at:
            raise gr.Error("Not a number.", print_exception=False)
        plan.pulled = k
        time.sleep(plan.pause)
        yield k


def run():
    mine = plan

    def walk():
        for k in steps(mine):
            levels = torch.tensor([float(level(k, j)) for j in range(N)]) / 127.5 - 1
            x = levels.reshape(N, 1, 1, 1).expand(N, mine.channels, SIZE, SIZE)
            yield SimpleNamespace(index=k, total=TOTAL, t=1000 - 50 * k, x_t=x, x0_hat=-x)

    try:
        meta = {"model": "test", "sampler": "ddim", "steps": TOTAL, "seed": 0}
        yield from player.stream(walk(), fps=1000, title="four greys", meta=meta)
    finally:
        mine.closed.set()


@pytest.fixture(scope="module")
def url(serve):
    with gr.Blocks() as demo:
        gr.Textbox(elem_id="text")
        go = gr.Button("Generate", elem_id="go")
        stop = gr.Button("Stop", elem_id="stop")
        shown = player.Player(elem_id="player", empty="Nothing yet.")
        event = go.click(run, None, shown, **player.progress(shown))
        stop.click(lambda: player.note("Stopped."), None, shown, cancels=[event], queue=False)
    return serve(demo)


@pytest.fixture
def view(page, url):
    global plan
    plan = Plan()
    page.goto(url)
    page.wait_for_selector("#player [data-state=empty]")
    yield page
    plan.go_on.set()


def part(view, name):
    return view.locator(f"{ROOT} [data-part={name}]")


def wait(view, **data):
    """Until the player's data-* are these."""
    tests = "".join(f'[data-{key}="{value}"]' for key, value in data.items())
    view.wait_for_selector(f"#player {tests}", state="attached")


def generate(view, **data):
    view.locator("#go").click()
    wait(view, **(data or {"step": TOTAL, "state": "paused", "frames": TOTAL + 1}))


def pixel(view, panel, x, y):
    script = "(c, [x, y]) => [...c.getContext('2d').getImageData(x, y, 1, 1).data]"
    return view.locator(f"{STAGE} canvas").nth(panel).evaluate(script, [x, y])


def shows(view, step):
    """Whether both panels hold all the right pixels for a step."""
    wait(view, step=step)
    places = [(0, 0), (SIZE + 1, SIZE - 1), (SIZE - 1, SIZE + 1), (2 * SIZE, 2 * SIZE)]
    for j, place in enumerate(places):
        grey = level(step, j)
        assert pixel(view, 0, *place) == [grey, grey, grey, 255]
        assert pixel(view, 1, *place) == [255 - grey] * 3 + [255]


def test_a_run_is_shown_to_the_end(view):
    empty = part(view, "empty")
    assert empty.inner_text() == "Nothing yet."
    assert part(view, "play").is_disabled()
    before = view.locator(ROOT).bounding_box()
    generate(view)
    shows(view, TOTAL)
    assert not empty.is_visible()
    assert view.locator(ROOT).bounding_box() == before  # nothing jumps
    assert part(view, "status").inner_text().startswith("step 20 / 20 · t = 0 · ")
    assert part(view, "title").inner_text() == "four greys"
    captions = view.locator(f"{STAGE} figcaption").all_inner_texts()
    assert captions == ["Current picture xt", "Predicted picture x̂0"]  # t and 0 stand lower
    label = view.get_by_role("img", name="Current picture xₜ").get_attribute("aria-label")
    assert label == "Current picture xₜ: 4 pictures at step 20 / 20 · t = 0"

    # Large and crisp: blurring would make more greys than these.
    canvas = view.locator(f"{STAGE} canvas").first
    shot = Image.open(io.BytesIO(canvas.screenshot())).convert("L")
    assert shot.width > 450
    greys = {level(TOTAL, j) for j in range(N)}
    gap = shot.getpixel((shot.width // 2, 5))
    assert {grey for _, grey in shot.getcolors()} == greys | {gap}


def test_scrubbing_leaves_live_and_the_end_takes_it_up_again(view):
    plan.hold_at = 10
    generate(view, step=9, state="live")
    assert "left" in part(view, "status").inner_text()
    part(view, "slider").fill("3")
    shows(view, 3)
    wait(view, state="paused")
    plan.hold_at = None
    plan.go_on.set()
    wait(view, frames=TOTAL + 1)
    shows(view, 3)  # frames came, the view stayed
    assert part(view, "slider").input_value() == "3"

    globals()["plan"] = Plan()
    plan.hold_at = 10
    generate(view, step=9, state="live")
    part(view, "back").click()
    wait(view, step=8, state="paused")
    part(view, "live").click()
    wait(view, step=9, state="live")
    view.keyboard.press("Home")
    wait(view, step=0, state="paused")
    part(view, "slider").fill("20")  # past what has come
    wait(view, step=9, state="live")
    plan.go_on.set()
    shows(view, TOTAL)
    assert part(view, "live").is_disabled()


def test_keys_work_in_the_player_and_nowhere_else(view):
    generate(view)
    text = view.locator("#text textarea, #text input")
    text.fill("ab")
    text.press("ArrowLeft")
    text.press("Space")
    text.press("Home")
    text.press("x")
    assert text.input_value() == "xa b"
    wait(view, step=TOTAL, state="paused")

    view.locator(ROOT).focus()
    for key, step in [("ArrowLeft", 19), ("Home", 0), ("ArrowRight", 1), ("End", TOTAL)]:
        view.keyboard.press(key)
        wait(view, step=step)
    view.keyboard.press("Home")
    view.keyboard.press("Space")
    wait(view, state="playing")
    view.keyboard.press("Space")
    wait(view, state="paused")
    part(view, "speed").focus()  # a list has its own use for arrows
    stopped = view.locator("#player [data-step]").get_attribute("data-step")
    view.keyboard.press("ArrowRight")
    assert part(view, "speed").input_value() == "2"
    wait(view, step=stopped)
    part(view, "first").focus()  # and a button for space
    view.keyboard.press("Space")
    wait(view, step=0, state="paused")


def test_playing_ends_at_the_end_and_a_new_run_ends_playing(view):
    generate(view)
    part(view, "speed").select_option("4")
    part(view, "play").click()
    wait(view, state="playing")
    wait(view, state="paused", step=TOTAL)  # no loop

    part(view, "speed").select_option("0.5")
    part(view, "play").click()
    wait(view, state="playing")
    plan.hold_at = 5
    generate(view, step=4, state="live", frames=5)
    plan.go_on.set()
    shows(view, TOTAL)


def test_stop_ends_a_handler_that_shows_nothing_new(view):
    plan.hold_at = 10
    generate(view, step=9, state="live")
    view.locator("#stop").click()
    assert plan.closed.wait(5)
    assert plan.pulled == 9
    status = part(view, "status").element_handle()
    view.wait_for_function("e => e.textContent === 'Stopped.'", arg=status)
    assert part(view, "live").is_disabled()
    part(view, "first").click()
    shows(view, 0)


def test_a_run_that_fails_is_no_longer_live(view):
    plan.fail_at = 10
    generate(view, step=9, state="paused")
    view.get_by_text("Not a number.").wait_for()
    text = "The run ended early, at step 9 of 20."
    part(view, "status").get_by_text(text, exact=True).wait_for()
    assert part(view, "live").is_disabled()
    plan.fail_at = None
    generate(view)
    part(view, "status").get_by_text("step 20 / 20").wait_for()


def test_a_page_that_is_loaded_anew_keeps_its_run(view):
    view.reload()
    wait(view, state="empty")
    plan.fail_at = 10
    generate(view, step=9, frames=10, state="paused")
    view.reload()
    shows(view, 9)
    status = part(view, "status")
    text = "Reloaded. Your last run is still here (stopped at step 9 of 20)."
    assert status.inner_text() == text
    assert part(view, "title").inner_text() == "four greys"
    part(view, "first").click()
    shows(view, 0)
    with view.expect_download() as download:
        view.locator(f"{ROOT} [data-save=gif]").click()
    assert Image.open(io.BytesIO(download.value.path().read_bytes())).n_frames == 10

    plan.fail_at = None
    generate(view)
    view.evaluate(
        "n => { let i = 0; try { while (true) sessionStorage[i++] = 'x'.repeat(1000); }"
        " catch { while (n--) sessionStorage.removeItem(--i); } }",
        5,
    )
    view.reload()  # with room for some of the frames
    wait(view, step=TOTAL)
    assert status.inner_text() == "Reloaded. Your last run is still here."
    frames = int(view.locator("#player [data-frames]").get_attribute("data-frames"))
    assert 2 <= frames < TOTAL
    part(view, "first").click()
    shows(view, 0)
    view.evaluate("sessionStorage.clear()")


def test_one_picture_alone(view):
    generate(view)
    canvas = view.locator(f"{STAGE} canvas").nth(1)
    box = canvas.bounding_box()
    canvas.click(position={"x": box["width"] * 0.8, "y": box["height"] * 0.8})  # the last
    alone = "c => c.width === 8 && c.ariaLabel.includes('picture 4 of 4')"
    view.wait_for_function(alone, arg=canvas.element_handle())
    assert pixel(view, 0, 0, 0)[0] == level(TOTAL, 3)
    assert pixel(view, 1, 7, 7)[0] == 255 - level(TOTAL, 3)
    assert canvas.bounding_box()["width"] == pytest.approx(box["width"], rel=0.1)
    view.locator(ROOT).press("Escape")
    shows(view, TOTAL)
    part(view, "one").press("Enter")
    view.wait_for_function("c => c.width === 8", arg=canvas.element_handle())


def test_files(view, tmp_path, monkeypatch):
    plan.channels = 3
    generate(view)
    for kind, end in [("gif", ".gif"), ("mp4", ".mp4"), ("strip", "-strip.png"), ("png", ".png")]:
        with view.expect_download() as download:
            view.locator(f"{ROOT} [data-save={kind}]").click()
        name = f"ddpm-test-ddim-20-seed0{'-t0' if kind == 'png' else ''}{end}"
        assert download.value.suggested_filename == name
        assert part(view, "status").inner_text() == f"Saved {name}"
        download.value.save_as(tmp_path / name)
        if kind == "mp4":
            check_film(tmp_path / name)
            continue
        image = Image.open(io.BytesIO((tmp_path / name).read_bytes()))
        assert image.width >= 512
        assert getattr(image, "n_frames", 1) == (TOTAL + 1 if kind == "gif" else 1)
        if kind == "gif":
            image.seek(TOTAL)
        grey = level(0 if kind == "strip" else TOTAL, 0)
        head = HEAD if kind == "gif" else 0
        assert abs(image.convert("L").getpixel((37, head + 3)) - grey) < 6

    monkeypatch.setattr(export, "REQUEST_CHARS", 10)
    gif = view.locator(f"{ROOT} [data-save=gif]")
    gif.click()
    status = part(view, "status").element_handle()
    view.wait_for_function("e => e.textContent.includes('too large')", arg=status)
    assert gif.is_enabled()


def check_film(path):
    with pytest.importorskip("av").open(str(path)) as film:
        shown = [frame.to_ndarray(format="gray") for frame in film.decode(video=0)]
    assert len(shown) >= TOTAL + 1
    assert shown[0].shape[1] >= 512
    assert abs(int(shown[-1][HEAD + 3, 37]) - level(TOTAL, 0)) < 12


def test_hostile_posts_are_answered_cleanly(url):
    with urllib.request.urlopen(f"{url}config") as answer:
        components = json.load(answer)["components"]
    (number,) = [c["id"] for c in components if c["props"].get("elem_id") == "player"]
    call = {"component_id": number, "fn_name": "export_film", "session_hash": "x"}
    for data in (None, [], "x", {"kind": "gif", "run": {"n": 10**9}, "frames": [{}]}, [[[]]] * 99):
        request = urllib.request.Request(
            f"{url}gradio_api/component_server/",
            json.dumps({**call, "data": data}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            assert list(json.load(answer)) == ["error"]


def test_a_phone_has_both_panes_side_by_side_and_two_rows_of_buttons(view):
    view.set_viewport_size({"width": 390, "height": 844})
    generate(view)
    left, right = (canvas.bounding_box() for canvas in view.locator(f"{STAGE} canvas").all())
    assert right["y"] == left["y"]
    assert right["x"] >= left["x"] + left["width"]
    assert left["width"] > 130
    assert view.evaluate("document.documentElement.scrollWidth") <= 390
    boxes = []
    for control in view.locator(f"{ROOT} button, {ROOT} select, {ROOT} input").all():
        if control.is_visible():
            boxes.append(control.bounding_box())
            assert min(boxes[-1]["width"], boxes[-1]["height"]) >= 40
    rows = {round(box["y"]) for box in boxes if box["width"] < 300}  # all but the timeline
    assert len(rows) == 2


def test_pictures_and_controls_are_on_one_screen(view):
    generate(view)
    for width, height in ((1366, 625), (1920, 1080), (1280, 800)):
        view.set_viewport_size({"width": width, "height": height})
        view.evaluate("document.querySelector('#player').scrollIntoView()")
        view.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")
        for name in ("slider", "play", "status"):
            box = part(view, name).bounding_box()
            assert 0 <= box["y"] <= height - box["height"]
        for canvas in view.locator(f"{STAGE} canvas").all():
            box = canvas.bounding_box()
            assert box["y"] >= 0
            assert box["width"] >= 190


def test_every_picture_is_reached_by_keyboard(view):
    generate(view)
    part(view, "one").focus()
    view.keyboard.press("Enter")
    status = part(view, "status").element_handle()
    for key, picture in (("ArrowDown", 2), ("ArrowDown", 3), ("ArrowUp", 2), ("ArrowUp", 1)):
        view.keyboard.press(key)
        words = f"e => e.textContent.startsWith('picture {picture} of 4')"
        view.wait_for_function(words, arg=status)
    view.keyboard.press("ArrowUp")  # round to the last
    view.wait_for_function("e => e.textContent.startsWith('picture 4 of 4')", arg=status)
    view.wait_for_function(
        "([c, grey]) => c.getContext('2d').getImageData(0, 0, 1, 1).data[0] === grey",
        arg=[
            view.locator(f"{STAGE} canvas").first.element_handle(),
            level(TOTAL, 3),
        ],
    )


def test_little_motion_for_those_who_ask_for_it(view):
    view.emulate_media(reduced_motion="reduce")
    plan.pause = 0.05
    view.evaluate(
        "e => { window.steps = []; new MutationObserver(() => {"
        "if (window.steps.at(-1) !== e.dataset.step) window.steps.push(e.dataset.step); })"
        ".observe(e, { attributes: true, attributeFilter: ['data-step'] }); }",
        view.locator("#player [data-frames]").element_handle(),
    )
    began = time.monotonic()
    generate(view)
    seconds = time.monotonic() - began
    assert len(view.evaluate("window.steps")) <= min(3 + seconds, TOTAL)  # one a second


def test_saved_is_said_for_a_while(view):
    view.clock.install()
    generate(view)
    status = part(view, "status").element_handle()
    status.evaluate(  # on a busy machine it may be gone before anybody looks
        """e => {
          window.said = [];
          const note = () => window.said.push(e.textContent);
          new MutationObserver(note).observe(e, { childList: true, subtree: true });
        }"""
    )
    with view.expect_download():
        view.locator(f"{ROOT} [data-save=png]").click()
    view.wait_for_function("() => window.said.some((words) => words.startsWith('Saved ddpm'))")
    view.clock.run_for(6000)
    assert part(view, "status").inner_text().startswith("step 20 / 20")


def test_the_state_of_a_run_can_be_read(view):
    plan.hold_at = 5
    assert view.locator("#player [data-run=none]").count()
    generate(view, run="running", step=4)
    plan.go_on.set()
    wait(view, run="over", step=TOTAL)


def test_frames_that_come_to_a_hidden_tab_are_kept(view):
    """A hidden tab paints nothing: requestAnimationFrame waits until it is seen again."""
    view.evaluate(
        "() => { window.waiting = []; window.real = window.requestAnimationFrame;"
        "window.requestAnimationFrame = (f) => window.waiting.push(f); }"
    )
    generate(view, frames=TOTAL + 1)
    view.evaluate(
        "() => { window.requestAnimationFrame = window.real; window.waiting.forEach(real); }"
    )
    shows(view, TOTAL)


def test_screen_readers_are_not_flooded(view):
    view.evaluate(
        "e => { window.spoken = []; new MutationObserver(() => window.spoken.push(e.textContent))"
        ".observe(e, { childList: true, characterData: true, subtree: true }); }",
        part(view, "spoken").element_handle(),
    )
    began = time.monotonic()
    generate(view)
    seconds = time.monotonic() - began
    view.wait_for_function("() => window.spoken.at(-1) === 'Finished'")
    assert len(view.evaluate("window.spoken")) <= 4 + seconds / 5
