"""The page, made of its tabs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr
from starlette.middleware import Middleware

from ddpm_demo.ui.components.links import HEAD, Links, link_line
from ddpm_demo.ui.endpoints import add_endpoints
from ddpm_demo.ui.experiments.tab import build_experiments_tab
from ddpm_demo.ui.finetune.tab import build_finetune_tab
from ddpm_demo.ui.forward.tab import build_forward_tab
from ddpm_demo.ui.generate.tab import build_generate_tab
from ddpm_demo.ui.lessons.panel import build_lessons
from ddpm_demo.ui.look import CSS, SCREENS, THEME
from ddpm_demo.ui.measure.tab import build_measure_tab
from ddpm_demo.ui.rooms.phones import PHONES
from ddpm_demo.ui.server import settings
from ddpm_demo.ui.server.guard import Guard, Page

if TYPE_CHECKING:
    from ddpm_demo.ui.components.controls import ModelChoice

TITLE = "DDPM, live"
INTRO = """# DDPM, live
A real diffusion model, running now. Watch it turn noise into pictures, or dissolve your own photo
into noise (Ho, Jain & Abbeel 2020)."""

LAUNCH: dict[str, Any] = {
    "theme": THEME,
    "css": CSS,
    "head": f"{HEAD}<style>{SCREENS}</style>",
    # Larger uploads are refused before any of our code; the paper's network, tuned, has 72 MB.
    "max_file_size": "80mb",
    "show_error": False,
    "enable_monitoring": False,
    "run_history": False,  # or each run's last frame stays in the visitor's browser
    "state_session_capacity": 200,
    "ssr_mode": False,
    "footer_links": ["api", "gradio", "settings"],
    "app_kwargs": {"middleware": [Middleware(Guard)], "routes": PHONES.routes()},
}


@dataclass
class Shared:
    """What tabs share while the page is built.

    Attributes:
        local: the app is for the owner of this machine alone, who may load any repo of the Hub and
            any folder of this disk, train on such folders, and push to the Hub with its login.
        tab: the tab that is being built.
        choice: the list of models. The first tab makes it.
        links: each tab adds its own part of a link.
    """

    local: bool
    links: Links
    tab: gr.Tab | None = None
    choice: ModelChoice | None = None


@dataclass(frozen=True)
class TabRow:
    """One tab of the page.

    Attributes:
        id: names it in addresses and tests.
        title: what visitors read.
        build: lays it out; called inside `with gr.Tab(...)`.
        needs_model: without any model, the page leaves the tab out.
    """

    id: str
    title: str
    build: Callable[[Shared], None]
    needs_model: bool = False


def _generate(shared: Shared) -> None:
    shared.choice = build_generate_tab(shared.local, shared.links)


def _forward(shared: Shared) -> None:
    build_forward_tab(shared.links, shared.choice)


def _finetune(shared: Shared) -> None:
    assert shared.choice
    assert shared.tab
    build_finetune_tab(shared.choice, shared.tab, shared.local, shared.links)


def _measure(shared: Shared) -> None:
    assert shared.choice
    assert shared.tab
    build_measure_tab(shared.choice, shared.tab, shared.local, shared.links)


def _experiments(shared: Shared) -> None:
    assert shared.choice
    assert shared.tab
    build_experiments_tab(shared.choice, shared.tab, shared.links)


TABS = (
    TabRow("generate", "Generate", _generate),
    TabRow("forward", "Forward noising", _forward),
    TabRow("finetune", "Fine-tune", _finetune, needs_model=True),
    TabRow("measure", "Measure", _measure, needs_model=True),
    TabRow("experiments", "Experiments", _experiments, needs_model=True),
)


def build_app(tabs: Sequence[TabRow] = TABS) -> gr.Blocks:
    """The page, ready for `launch(**LAUNCH)`."""
    shared = Shared(local=not settings.strangers, links=Links())
    with Page(title=TITLE, delete_cache=(600, 3600)) as page:
        gr.Markdown(INTRO, elem_id="intro")
        build_lessons(shared.links)
        line = link_line()
        with gr.Tabs(overflow_behavior="wrap") as all_tabs:
            for row in tabs:
                if row.needs_model and shared.choice is None:
                    continue
                with gr.Tab(row.title, id=row.id) as shared.tab:
                    shared.links.tabs[row.id] = shared.tab
                    row.build(shared)
        shared.links.connect(all_tabs, line)
        if shared.choice:
            add_endpoints()
    # `page.queue` would make all routes once more. ZeroGPU would allow only one waiting visitor
    # without a `max_size`. By default the queue looks a thousand times a second whether somebody
    # has come, each time at the expense of a network.
    page.api_open, page._queue.max_size = False, settings.WAITING
    page._queue.sleep_when_free = 0.01
    return page
