"""Lists of timesteps as people type them: "100, 200, 999"."""

from __future__ import annotations

import re

from ddpm_demo.config.fields import require

MOST = 40  # the most timesteps in one list


def parse_timesteps(text: str, T: int) -> list[int]:
    """Read the timesteps in `text`, which commas, semicolons or spaces separate. Keep their order.

    Raises:
        ValueError: `text` is not a string, has no timesteps or more than `MOST`, or one of them is
            not a whole number from 1 to T.
    """
    require(isinstance(text, str), "list of timesteps", text, "text, such as 100, 200, 999")
    items = re.split(r"[\s,;]+", text.strip(" \t\r\n,;"))
    if items == [""]:
        raise ValueError(
            f"The list of timesteps is empty; give whole numbers from 1 to T = {T}, "
            "separated by commas."
        )
    if len(items) > MOST:
        raise ValueError(f"The list has {len(items)} timesteps; at most {MOST} are allowed.")
    for item in items:
        if not re.fullmatch(r"[0-9]{1,9}", item) or not 1 <= int(item) <= T:
            raise ValueError(
                f"{item[:40]!r} is not a timestep; each is a whole number from 1 to T = {T}."
            )
    return [int(item) for item in items]


def default_timesteps(T: int) -> list[int]:
    """Ten timesteps spread evenly over 1..T, such as 100, 200, ..., 1000 for T = 1000."""
    return sorted({round(T * k / 10) for k in range(1, 11)})
