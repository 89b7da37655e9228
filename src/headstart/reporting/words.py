"""Numbers and names as a page or a terminal shows them."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Control characters, line and paragraph separators, marks that reorder text, lone surrogates (undecodable file names).
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def points(share: float) -> str:
    """Write a share as a number out of 100; what is not perfect is never rounded up to 100."""
    if share >= 1:
        return "100"
    return f"{min(100 * share, 99.9):.1f}"


def duration(seconds: float) -> str:
    """Write a duration as a person would."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def names_in_words(names: Iterable[str]) -> str:
    """Write the names of a picture that may have several, or none."""
    return ", ".join(names) or "none of the names"


def clean(text: str) -> str:
    """Make a name harmless to show: line breaks become ⏎, what cannot be shown or reorders text becomes �."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", re.sub("\r\n|[\n\r]", " ⏎ ", text).replace("\t", " "))
