"""The QR code of a link, for phones."""

from __future__ import annotations

from typing import Any

LONGEST = 1500  # characters; a longer code can't be read from the back row


def qr_code(address: Any) -> dict[str, str]:
    """The code for the address of a page that is presented.

    Returns:
        `data`: the picture, as a data: address of an SVG. Empty if there is no such code.
    """
    import segno

    if not isinstance(address, str) or not 0 < len(address) <= LONGEST:
        return {}
    code = segno.make_qr(address, error="m")
    return {"data": code.svg_data_uri(scale=4, border=3, dark="#000", light="#fff")}
