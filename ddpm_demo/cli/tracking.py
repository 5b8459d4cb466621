"""Logs training runs to Trackio, Hugging Face's experiment tracker, for `--track`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddpm_demo.training.train import Progress

LOG_EVERY = 1.0  # seconds between two entries; reports are always logged


def tracker() -> Any:
    """Import the module trackio.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import trackio
    except ImportError:
        raise ValueError(
            "--track needs Trackio, which is not installed: pip install trackio"
        ) from None
    return trackio


def tracked(
    run: Iterator[Progress], trackio: Any, project: str, name: str, config: Mapping[str, Any]
) -> Iterator[Progress]:
    """Yield the steps of a run, and log them to Trackio.

    About once a second, it logs loss, learning rate and images/s. With each report, it logs the
    held-out loss, the loss by t and a grid of samples. A resumed run continues the same curves.
    """
    from ddpm_demo.media import convert

    trackio.init(project=project, name=name, config=dict(config), resume="allow")
    logged = 0.0
    try:
        for p in run:
            r, now = p.report, time.monotonic()
            if r or now - logged >= LOG_EVERY:
                values = {"loss": p.loss, "lr": p.lr, "images": p.images, "images/s": p.rate}
                if r:
                    sheet = convert.grid(convert.to_uint8(r.preview), scale=4)
                    values |= {
                        "train loss": r.train_loss,
                        "samples": trackio.Image(sheet, caption=f"{p.images:,} pictures seen"),
                    }
                    values |= {} if r.held_out is None else {"held-out loss": r.held_out}
                    tenths = {f"loss by t/{i}": loss for i, loss in enumerate(r.loss_by_t)}
                    values |= {k: v for k, v in tenths.items() if v is not None}
                trackio.log(values, step=p.step)
                logged = now
            yield p
    finally:
        trackio.finish()
