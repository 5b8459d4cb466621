"""What holds for the whole server from its start on: who uses it, and the limits that they have."""

from __future__ import annotations

import math
import os
import threading
from pathlib import Path
from typing import Any

from ddpm_demo.config.setting import require

try:  # ZeroGPU: a GPU for as long as a decorated handler runs
    from spaces import GPU as GPU
except ImportError:

    def GPU(fn: Any = None, **_options: Any) -> Any:
        """Elsewhere the decorator does nothing."""
        return fn if callable(fn) else lambda f: f


ZERO = bool(os.environ.get("SPACES_ZERO_GPU"))
strangers = "SPACE_ID" in os.environ  # use the app, not only its host; `ui.serve` may set it
lessons: list[Path] = []  # folders of lessons besides the shipped ones; `ui.serve` may add one
host = "127.0.0.1"  # what the server listens at; `ui.serve` sets it,
shared = ""  # and the public address of --share
closing = threading.Event()  # the server is being stopped
RUN_MINUTES = "DDPM_DEMO_RUN_MINUTES"  # of the environment: limit of a run in Generate,
LANE_MINUTES = "DDPM_DEMO_LANE_MINUTES"  # and of fine-tuning and measuring
AUTH = "DDPM_DEMO_AUTH"  # of the environment; an option would be seen in the list of processes
RUNS = 8  # of visitors at the same time; the next ones wait in Gradio's queue
WAITING = 32  # visitors in the queue; the next ones are told that it is full


def most_seconds(variable: str, minutes: float) -> float:
    """How long a run may take: the minutes in the environment's variable, or else those given.

    Raises:
        ValueError: the variable is not a number of minutes.
    """
    words = os.environ.get(variable)
    try:
        number = minutes if words is None else float(words)
    except ValueError:
        number = math.nan
    require(number >= 0, variable, words, "a number of minutes")
    return 60 * number


def password() -> tuple[str, str] | None:
    """Name and password that visitors need, from the environment.

    Raises:
        ValueError: the variable is not USER:PASSWORD. The message doesn't repeat it.
    """
    words = os.environ.get(AUTH)
    if words is None:
        return None
    user, _, secret = words.partition(":")
    require(bool(user.strip() and secret), AUTH, "…", "USER:PASSWORD")
    return user.strip(), secret
