"""Files that visitors have uploaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder

from ddpm_demo.media.open import ImageError


def uploaded(payload: Any) -> str | None:
    """The path of an upload, if there is one.

    Gradio checks where a file lies only if the payload says that it is a file. A forged payload
    need not say so, and we check it here.

    Raises:
        ImageError: nobody uploaded this file.
    """
    path = payload.get("path") if isinstance(payload, dict) else None
    if not path:
        return None
    if not Path(str(path)).resolve().is_relative_to(Path(get_upload_folder()).resolve()):
        raise ImageError("the picture is not among the uploads")
    return str(path)
