"""How long work tells its caller how far it is. The library never prints; the command line draws the bar."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as ``progress(step, done, total)``; ``step`` is a short phrase such as "Computing features"."""


def silent(step: str, done: int, total: int) -> None:
    """Say nothing: the default everywhere."""
