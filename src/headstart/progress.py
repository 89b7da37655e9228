"""How long work tells its caller how far it is. The library never prints; the command line draws the bar."""

from __future__ import annotations

import time
from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as ``progress(step, done, total)``; ``step`` is a short phrase such as "Computing features"."""


def silent(step: str, done: int, total: int) -> None:
    """Say nothing: the default everywhere."""


class TimeIsUpError(Exception):
    """Raised out of a progress report to stop work for which there is no more time; whoever set the time catches it."""


class Budget:
    """The time that work may take."""

    def __init__(self, end: float | None) -> None:
        """Take when it has to be over, on the clock of `time.perf_counter`; None is never."""
        self._end = float("inf") if end is None else end

    def left(self) -> float:
        """Seconds."""
        return self._end - time.perf_counter()

    def over(self, progress: Progress) -> Progress:
        """The same progress, which stops the work when the time is up.

        What it tells raises `TimeIsUpError` then.
        """

        def tell(step: str, done: int, total: int) -> None:
            progress(step, done, total)
            if self.left() < 0:
                raise TimeIsUpError

        return tell
