"""The code of a link, which a phone reads from the screen."""

from __future__ import annotations

from typing import Any

LONGEST = 1500  # characters: with more, a code can't be read from the back row


def qr_code(address: Any) -> dict[str, str]:
    """For a page that is presented.

    Returns:
        `data`: the picture, as an address that holds an SVG; nothing, if there is no such code.
    """
    import segno

    if not isinstance(address, str) or not 0 < len(address) <= LONGEST:
        return {}
    code = segno.make_qr(address, error="m")
    return {"data": code.svg_data_uri(scale=4, border=3, dark="#000", light="#fff")}
