"""The code of a sampler, for the page."""

from __future__ import annotations

from typing import Any


def sampler_code(name: Any) -> dict[str, str]:
    """Reachable by anyone who can reach the page: gives the source of a sampler, by its name.

    Returns:
        {"text", "file"}, or {"error": a sentence}.
    """
    from ddpm_demo.inference import updates  # brings torch

    try:
        text, file = updates.code(name)
    except ValueError as problem:
        return {"error": str(problem)}
    return {"text": text, "file": file}
