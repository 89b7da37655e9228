"""Ways to look at a picture: as it is, flipped, or a random part of it. Each is decided by its name alone.

A crop is random but settled: its name holds a seed and a number, and with the picture's own hash they give the part. So
the features of crops can be computed once and kept, like any others.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from headstart.errors import DataError

Pixels = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]
"""Left, top, right and bottom as parts of the width and height."""

VIEWS: Mapping[str, Callable[[Pixels], Pixels]] = {
    "as_is": lambda pixels: pixels,
    "mirrored": lambda pixels: pixels[:, :, ::-1],
    "upside_down": lambda pixels: pixels[:, ::-1],
    "turned": lambda pixels: pixels[:, ::-1, ::-1],
}
"""Views that come from the whole picture: functions of pixels (n, h, w, 3)."""

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)

_CROP = re.compile(r"crop(\d{1,4})-seed(\d{1,10})")
_SMALLEST_AREA = (
    0.35  # Of the picture. Far smaller ones, as in training from scratch, may not show what it is a picture of.
)
_LOG_ASPECT = math.log(4 / 3)

_FARTHEST = 1 / 20  # Of the side, that a varied picture is moved.
_BRIGHTER, _HARDER = 0.15, 0.15  # Up to so much, or so much less.


def crop_views(number: int, seed: int) -> tuple[str, ...]:
    """The names of so many random crops."""
    return tuple(f"crop{each}-seed{seed}" for each in range(number))


def check_views(views: tuple[str, ...]) -> None:
    """Refuse names of no view.

    Raises:
        DataError: there is no such view.
    """
    for view in views:
        if view not in VIEWS and not _CROP.fullmatch(view):
            raise DataError(f"There is no view '{view}'. Known: {', '.join(VIEWS)}, and crops such as 'crop0-seed0'.")


def box_of(view: str, sha256: str) -> Box:
    """The part of a picture that a view shows.

    Args:
        view: its name.
        sha256: the picture's.
    """
    if not _CROP.fullmatch(view):
        return WHOLE
    digest = hashlib.sha256(f"{view} {sha256}".encode()).digest()
    area, aspect, left, top = (int.from_bytes(digest[8 * part : 8 * part + 8]) / 2**64 for part in range(4))
    area = _SMALLEST_AREA + (1 - _SMALLEST_AREA) * area
    root = math.exp(_LOG_ASPECT * (aspect - 0.5))  # The square root of the aspect ratio, from sqrt(3/4) to sqrt(4/3).
    width, height = min(1.0, math.sqrt(area) * root), min(1.0, math.sqrt(area) / root)
    left, top = left * (1 - width), top * (1 - height)
    return left, top, left + width, top + height


def seen(view: str, pixels: Pixels) -> Pixels:
    """Pixels (h, w, 3) of the part that a view shows, as it shows them."""
    turn = VIEWS.get(view)
    return np.ascontiguousarray(turn(pixels[None])[0]) if turn else pixels


def varied(pixels: Pixels, random: np.random.Generator) -> npt.NDArray[np.float32]:
    """Pixels (h, w, 3) moved a little, and a little brighter or darker, harder or softer: no label hangs on that.

    What comes in at an edge is what lies beside it, mirrored.
    """
    height, width = pixels.shape[:2]
    far = max(1, round(min(height, width) * _FARTHEST))
    down, right = random.integers(0, 2 * far + 1, 2)
    moved = np.pad(pixels, ((far, far), (far, far), (0, 0)), mode="reflect")[
        down : down + height, right : right + width
    ]
    mean = float(moved.mean())
    contrast, brightness = random.uniform(1 - _HARDER, 1 + _HARDER), random.uniform(1 - _BRIGHTER, 1 + _BRIGHTER)
    shown: npt.NDArray[np.float32] = np.clip((moved.astype(np.float32) - mean) * contrast + mean * brightness, 0, 255)
    return shown
