"""A line of words with a progress bar below."""

from __future__ import annotations


def bar(words: str, done: float) -> str:
    """Make the HTML. `words` are HTML, too, and `done` is from 0 to 1."""
    return f'{words}<progress max="1" value="{done:.3f}" aria-label="Progress"></progress>'
