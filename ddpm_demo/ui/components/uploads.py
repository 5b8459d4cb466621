"""Files that visitors have uploaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder

from ddpm_demo.media.open import ImageError


def uploaded(payload: Any) -> str | None:
    """The path of an upload, if there is one.

    Gradio looks where a file lies only if the payload says that it is a file, which a forged one
    need not say; so we look again.

    Raises:
        ImageError: a file that nobody uploaded.
    """
    path = payload.get("path") if isinstance(payload, dict) else None
    if not path:
        return None
    if not Path(str(path)).resolve().is_relative_to(Path(get_upload_folder()).resolve()):
        raise ImageError("the picture is not among the uploads")
    return str(path)
