"""The forward tab in a browser: a picture goes in, and the pixels that come out are eq. 4."""

import base64
import io
import json

import gradio as gr
import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from ddpm_demo.ui.app import TABS, TabRow, build_app

pytestmark = pytest.mark.e2e

SIZE = 128  # the tab's default resolution
ALPHA_BAR = {
    "linear": np.concatenate([[1], np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))]),
    "cosine": np.cos((np.arange(1000) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    / np.cos(0.008 / 1.008 * np.pi / 2) ** 2,
}


@pytest.fixture(scope="module")
def url(browser, serve):
    def another(_shared):
        gr.Markdown("Seen first, so that ours begins unseen.")

    forward = next(row for row in TABS if row.id == "forward")
    return serve(build_app([TabRow("another", "Another", another), forward]))


@pytest.fixture
def tab(page, url):
    page.goto(url)
    page.get_by_role("tab", name="Forward noising").click()
    page.locator("#noiser [data-ready]").wait_for()
    return page


def photo(kind="JPEG", **options):
    """A picture without symmetries, 300 x 200."""
    y, x = np.mgrid[0:200, 0:300]
    rgb = np.stack([255 * x / 300, 255 * y / 200, 128 + 100 * np.sin(x / 20)], -1)
    file = io.BytesIO()
    Image.fromarray(rgb.astype(np.uint8)).save(file, kind, **options)
    return file.getvalue()


def ready(page):
    return int(page.locator("#noiser [data-ready]").get_attribute("data-ready"))


def after(page, act):
    """Acts, and waits until the page has shown one more message from the server."""
    before = ready(page)
    act()
    page.wait_for_function(
        "n => +document.querySelector('#noiser [data-ready]').dataset.ready > n", arg=before
    )


def upload(page, name, data, kind="image/jpeg"):
    page.locator("#forward-picture input[type=file]").set_input_files(
        {"name": name, "mimeType": kind, "buffer": data}
    )


def move(page, t):
    page.locator("#noiser input[type=range]").fill(str(t))
    page.locator(f"#noiser [data-shown='{t}']").wait_for()


def pixels(page, view):
    """What the canvas of a schedule shows, (H, W, 3)."""
    png = page.locator(f"#noiser figure.{view} canvas").evaluate("c => c.toDataURL()")
    with Image.open(io.BytesIO(base64.b64decode(png.split(",")[1]))) as image:
        return np.asarray(image.convert("RGB"), float)


def test_it_opens_with_a_picture_and_both_schedules(tab):
    move(tab, 0)
    linear, cosine = pixels(tab, "linear"), pixels(tab, "cosine")
    assert linear.std() > 20
    assert (linear == cosine).all()


def test_an_upright_photo_is_noised_by_equation_4(tab):
    exif = Image.Exif()
    exif[0x0112] = 6  # held sideways
    data = photo(exif=exif, quality=95)
    after(tab, lambda: upload(tab, "photo.jpg", data))

    move(tab, 0)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    x_0 = np.asarray(ImageOps.fit(upright, (SIZE, SIZE), Image.Resampling.LANCZOS)) / 127.5 - 1
    assert np.abs(pixels(tab, "linear") - (x_0 + 1) * 127.5).max() <= 1

    draw = torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    eps = draw.permute(1, 2, 0).numpy()
    for t in (1, 250, 999):
        move(tab, t)
        for view, alpha_bar in ALPHA_BAR.items():
            x_t = np.sqrt(alpha_bar[t]) * x_0 + np.sqrt(1 - alpha_bar[t]) * eps
            expected = ((x_t + 1) * 127.5).clip(0, 255)
            assert np.abs(pixels(tab, view) - expected).max() <= 0.6, (t, view)
            assert f"{np.sqrt(alpha_bar[t]):.3f}" in tab.inner_text(f"#noiser .{view} .formula")


def test_the_slider_needs_no_server_and_follows_keys_and_plots(tab):
    asked = []
    tab.on("request", lambda request: asked.append(request.url))
    for t in (10, 500, 990):
        move(tab, t)
    slider = tab.locator("#noiser input[type=range]")
    slider.focus()
    tab.keyboard.press("ArrowLeft")
    tab.locator("#noiser [data-shown='989']").wait_for()
    assert "t = 989 of 1000; linear: alpha-bar" in slider.get_attribute("aria-valuetext")

    plot = tab.locator("#noiser .kept svg")
    plot.click(position={"x": plot.bounding_box()["width"] / 4, "y": 20})  # once it stands still
    tab.wait_for_function(
        "() => Math.abs(document.querySelector('#noiser input[type=range]').value - 250) < 10"
    )
    tab.locator("#noiser .strips .cosine button", has_text="300").click()
    tab.locator("#noiser [data-shown='300']").wait_for()

    slider.focus()
    tab.keyboard.press(" ")
    tab.wait_for_function(
        "() => +document.querySelector('#noiser [data-shown]').dataset.shown > 320"
    )
    tab.keyboard.press(" ")
    assert tab.inner_text("#noiser .play") == "Play"
    assert not [address for address in asked if "queue" in address or "server" in address]


def test_one_schedule_alone_another_length_and_laplace_noise(tab):
    after(tab, lambda: tab.locator("#forward-view").get_by_text("Cosine").last.click())
    assert not tab.locator("#noiser figure.linear").is_visible()
    assert tab.locator("#noiser figure.cosine").is_visible()

    length = tab.locator("#forward-T input[type=number]")
    after(tab, lambda: (length.fill("200"), length.blur()))
    assert tab.locator("#noiser [data-shown]").get_attribute("data-shown") == "80"  # still 40 %
    listed = tab.locator("#forward-timesteps").locator("input, textarea")
    assert listed.input_value() == "20,40,60,80,100,120,140,160,180,200"

    move(tab, 200)
    before = pixels(tab, "cosine")
    after(tab, lambda: tab.get_by_label("Laplace").click())
    assert (pixels(tab, "cosine") != before).any()
    assert tab.locator("#noiser .laplace").is_visible()


def test_a_bad_list_of_timesteps_is_named_and_changes_nothing(tab):
    listed = tab.locator("#forward-timesteps").locator("input, textarea")
    listed.fill("100, soup, 300")
    listed.press("Enter")
    tab.get_by_text("'soup' is not a timestep; each is a whole number from 1 to").wait_for()
    assert tab.locator("#noiser .strips .linear button").count() == 10

    listed.fill("5, 50")
    after(tab, lambda: listed.press("Enter"))
    assert tab.locator("#noiser .strips .linear button").all_inner_texts() == ["5", "50"]


def test_what_is_no_picture_is_refused_and_the_old_one_stays(tab):
    shown = tab.locator("#forward-picture img")
    before, kept = shown.get_attribute("src"), pixels(tab, "linear")
    for name, data, sentence in (
        ("notes.png", b"not a picture at all", "'notes.png' is not a picture"),
        ("empty.png", b"", "'empty.png' is empty"),
        ("half.jpg", photo()[:2000], "'half.jpg' is damaged"),
    ):
        upload(tab, name, data, "image/png")
        tab.get_by_text(sentence).wait_for()
        tab.wait_for_function(
            "src => document.querySelector('#forward-picture img')?.getAttribute('src') === src",
            arg=before,
        )
    said = "".join(tab.locator(".toast-body").all_inner_texts())
    assert said.count("use a PNG") == 3  # one sentence each
    assert (pixels(tab, "linear") == kept).all()
    after(tab, lambda: upload(tab, "good.gif", photo("GIF"), "image/gif"))  # and work goes on
    assert (pixels(tab, "linear") != kept).any()


def test_strip_and_films_are_saved_with_what_made_them(tab, tmp_path):
    def save(kind):
        with tab.expect_download(timeout=90_000) as download:
            tab.locator(f"#noiser [data-save={kind}]").click()
        name = download.value.suggested_filename
        download.value.save_as(tmp_path / name)
        tab.locator("#noiser .said", has_text="Saved.").wait_for()
        return tmp_path / name

    with Image.open(save("strip")) as strip:
        assert strip.format == "PNG"
        assert strip.width >= 10 * 100
        assert strip.text["T"] == "1000"
        assert "cosine" in strip.text["schedule"]

    with Image.open(save("gif")) as gif:
        assert gif.n_frames == 100
        assert gif.width >= 2 * SIZE
        assert json.loads(gif.info["comment"])["noise"] == "gaussian"

    film = iio.imread(save("mp4"), plugin="pyav")
    assert len(film) >= 100


def test_a_telephone_sees_the_pictures_and_the_slider_at_once(tab):
    tab.set_viewport_size({"width": 390, "height": 844})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    box = tab.locator("#noiser input[type=range]").bounding_box()
    assert box["y"] + box["height"] < 844
