"""Settings of the whole server: who uses it, and the limits of its visitors."""

from __future__ import annotations

import math
import os
import threading
from pathlib import Path
from typing import Any

from ddpm_demo.config import require

try:  # ZeroGPU: a GPU for as long as a decorated handler runs
    from spaces import GPU as GPU
except ImportError:

    def GPU(fn: Any = None, **_options: Any) -> Any:
        """A decorator that does nothing, for machines other than ZeroGPU."""
        return fn if callable(fn) else lambda f: f


ZERO = bool(os.environ.get("SPACES_ZERO_GPU"))
strangers = "SPACE_ID" in os.environ  # True if strangers use the app; `ui.serve` may set it
lessons: list[Path] = []  # folders of lessons besides the shipped ones; `ui.serve` may add one
host = "127.0.0.1"  # the host that the server listens on; `ui.serve` sets it
shared = ""  # the public address of --share; `ui.serve` sets it
closing = threading.Event()  # set when the server is being stopped
RUN_MINUTES = "DDPM_DEMO_RUN_MINUTES"  # a variable with the time limit of a run in Generate
LANE_MINUTES = "DDPM_DEMO_LANE_MINUTES"  # a variable with the limit of fine-tuning and measuring
AUTH = "DDPM_DEMO_AUTH"  # a variable, because an option could be seen in the list of processes
RUNS = 8  # the most runs of visitors at the same time; others wait in Gradio's queue
WAITING = 32  # the most visitors in the queue; others are told that it is full


def most_seconds(variable: str, minutes: float) -> float:
    """The most seconds of a run, from the minutes in an environment variable or by default.

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
    """The name and password that visitors need, from the environment.

    Raises:
        ValueError: the variable is not USER:PASSWORD. The message doesn't repeat it.
    """
    words = os.environ.get(AUTH)
    if words is None:
        return None
    user, _, secret = words.partition(":")
    require(bool(user.strip() and secret), AUTH, "…", "USER:PASSWORD")
    return user.strip(), secret
