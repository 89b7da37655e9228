"""Every error that headstart shows a user, as one tree.

    HeadstartError            caught by the command line: one message, exit code 1
    ├── DataError             the pictures or labels: nothing to learn from, a manifest that cannot be read
    │   └── ImageError        one file that cannot be decoded; the run goes on without it
    ├── WeightsError          weights that cannot be had, do not fit, or are not what they should be
    ├── UnknownNameError      a name (backbone, head, ...) that does not exist, with the nearest ones
    ├── CacheError            stored features that went while they were in use, or a cache that cannot be kept
    ├── GuardError            training moved what was frozen, or did not move what was to learn; an engine that is wrong
    ├── RunError              a run folder that is missing, unfinished, damaged or in the way
    ├── MissingExtraError     a library that is an extra: pip install 'headstart[extra]'
    └── StoppedError          Ctrl-C where not everything is kept: the message says what is; exit code 130

A message says what happened, what was expected and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HeadstartError(Exception):
    """The root: a problem that the user can do something about."""


class DataError(HeadstartError):
    """The pictures or the labels cannot be used as they are."""


class ImageError(DataError):
    """One file cannot be decoded; the message is the reason."""


class WeightsError(HeadstartError):
    """The weights cannot be had, do not fit the network, or have the wrong hash."""


_NUM_NAMED = 8


class UnknownNameError(HeadstartError):
    """A name that is not among the known ones.

    Args:
        kind: what the name stands for, such as "backbone".
        name: what the user wrote.
        known: every name that would have been right.
        listed_by: the command that lists them, where they are many.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], listed_by: str = "") -> None:
        """Word the message."""
        known = list(known)
        by_lower = {each.lower(): each for each in known}
        close = [by_lower[low] for low in _nearest(name.lower(), by_lower)]
        rest = f" and {len(known) - _NUM_NAMED} more, which '{listed_by}' lists" if listed_by else ""
        hint = f"Known: {', '.join(known[:_NUM_NAMED] if rest else known)}{rest}."
        if close:
            hint = f"Did you mean {' or '.join(close)}?"
        super().__init__(f"There is no {kind} '{name}'. {hint}")


def _nearest(name: str, known: Iterable[str]) -> list[str]:
    """Up to three known names that look like it, none much less than the first."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    alike = [difflib.SequenceMatcher(None, each, name).ratio() for each in near]
    return [each for each, likeness in zip(near, alike, strict=True) if likeness > alike[0] - 0.25]


class CacheError(HeadstartError):
    """Stored features that went while they were in use, or a cache that cannot be written."""


class GuardError(HeadstartError):
    """Training did something else than was announced, or OpenVINO than Keras; nothing of it is kept."""


class RunError(HeadstartError):
    """A run folder that is missing, unfinished, damaged or in the way."""


class MissingExtraError(HeadstartError):
    """A library that headstart needs for this is not installed.

    Args:
        need: what it is needed for, such as "Training".
        library: the library's name.
        extra: the extra of headstart that brings it.
    """

    def __init__(self, need: str, library: str, extra: str) -> None:
        """Word the message."""
        super().__init__(f"{need} needs {library}, which is not installed. Run: pip install 'headstart[{extra}]'")


class StoppedError(HeadstartError):
    """The user stopped work of which only a part was done, and shown."""
