"""Films today's app for the README: `.venv/bin/python docs/film.py docs/film.gif`.

It starts the app, opens it in Chromium as a visitor would, waits for the first run and takes a
picture of the page at each of its steps. Needs Chromium and what requirements-dev.txt has.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

APP, URL = Path(__file__).parent.parent / "app.py", "http://127.0.0.1:7871"
SIZE, WIDTH = {"width": 1280, "height": 800}, 800  # of the page, and of the film
COLOURS, SECONDS = 96, (0.3, 2.5)  # of a frame, and of the last
PATIENCE = 300_000  # ms


def pictures(page: Page) -> Iterator[Image.Image]:
    """The page at each step of the run that the app made when it started."""
    page.goto(URL)
    there = "() => document.querySelector('#player [data-frames]')?.dataset.frames > 1"
    page.wait_for_function(there, timeout=PATIENCE)
    player = page.locator("#player .ddpm-player")
    player.press("Home")
    steps = int(page.locator("#player [data-part=slider]").get_attribute("max") or 0)
    for step in range(steps + 1):
        page.locator(f"#player [data-step='{step}']").wait_for()
        page.wait_for_timeout(150)  # it is painted
        yield Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        player.press("ArrowRight")


def wait_for_page() -> None:
    until = time.monotonic() + PATIENCE / 1000
    while True:
        try:
            urllib.request.urlopen(URL).close()
            return
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.2)


def film(shots: list[Image.Image]) -> list[np.ndarray[Any, Any]]:
    """Smaller, and all in the colours of the last, so that what stays the same takes no room."""
    height = WIDTH * SIZE["height"] // SIZE["width"]
    small = [shot.resize((WIDTH, height), Image.Resampling.LANCZOS) for shot in shots]
    palette = small[-1].quantize(COLOURS)
    return [
        np.asarray(s.quantize(palette=palette, dither=Image.Dither.NONE).convert("RGB"))
        for s in small
    ]


def main(out: str) -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    app = subprocess.Popen([sys.executable, str(APP), "--port", URL.rpartition(":")[2]])
    try:
        wait_for_page()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            frames = film(list(pictures(browser.new_page(viewport=SIZE))))
            browser.close()
    finally:
        app.terminate()
        app.wait()
    seconds = [SECONDS[0]] * (len(frames) - 1) + [SECONDS[1]]
    iio.imwrite(out, frames, extension=".gif", duration=[1000 * s for s in seconds], loop=0)
    print(f"{out}: {len(frames)} frames, {Path(out).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
