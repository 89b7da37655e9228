"""Whether a file of weights fits a network: one report for every kind of file, and numbers that make no sense.

Names and shapes are compared before anything is loaded, so that a network is either as it was or as the file says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.errors import WeightsError

Shapes = tuple[Any, ...]
"""A tensor's shape, or the shapes of a layer's weights."""

_NUM_SHOWN = 5
_MAX_NAME = 80


@dataclasses.dataclass(frozen=True)
class Mismatch:
    """How a file differs from the network; false where it does not.

    Attributes:
        noun: what is counted: "tensor" or "layer".
        missing: names that the network has and the file lacks.
        unexpected: names that only the file has.
        reshaped: name, shapes in the network and shapes in the file, where they differ.
    """

    noun: str
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    reshaped: tuple[tuple[str, Shapes, Shapes], ...] = ()

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return bool(self.missing or self.unexpected or self.reshaped)

    def __str__(self) -> str:
        """Such as "1 tensor is missing ('conv1.weight'), 2 tensors are unexpected ('a', 'b')"."""
        parts = []
        if self.missing:
            parts.append(f"{self._count(self.missing, 'is', 'are')} missing ({_some(map(_quoted, self.missing))})")
        if self.unexpected:
            parts.append(
                f"{self._count(self.unexpected, 'is', 'are')} unexpected ({_some(map(_quoted, self.unexpected))})"
            )
        if self.reshaped:
            changes = _some(f"{_quoted(name)} from {_shape(a)} to {_shape(b)}" for name, a, b in self.reshaped)
            has = self._count(self.reshaped, "has another shape", "have other shapes")
            parts.append(f"{has}, from the network's to the file's ({changes})")
        return ", ".join(parts)

    def _count(self, things: tuple[Any, ...], one: str, several: str) -> str:
        return f"1 {self.noun} {one}" if len(things) == 1 else f"{len(things)} {self.noun}s {several}"


def compare(noun: str, ours: Mapping[str, Shapes], theirs: Mapping[str, Shapes]) -> Mismatch:
    """Hold the shapes that a network expects, by name, against those that a file has."""
    return Mismatch(
        noun,
        tuple(name for name in ours if name not in theirs),
        tuple(name for name in theirs if name not in ours),
        tuple((name, ours[name], theirs[name]) for name in ours if name in theirs and ours[name] != theirs[name]),
    )


def refusal(path: Path, network: str, mismatch: Mismatch, resembled: str = "") -> WeightsError:
    """The error for a file that does not fit.

    Args:
        path: the file.
        network: the backbone's name.
        mismatch: what differs.
        resembled: what the file looks like instead, as a sentence, or "".
    """
    advice = resembled or f"Give weights of {network} without changes to its layers, or another --backbone."
    return WeightsError(f"{path} does not fit {network}: {mismatch}. Nothing was loaded. {advice}")


def check_numbers(path: Path, name: str, values: npt.NDArray[Any], *, variance: bool) -> None:
    """Refuse numbers that no trained network has: they would make every answer NaN, or meaningless.

    Args:
        path: the file they come from.
        name: what the message calls them, such as "tensor 'bn1.running_var'".
        values: any shape.
        variance: whether they are variances, which are never negative.

    Raises:
        WeightsError: some are NaN or infinite, or a variance is negative.
    """
    problem = ""
    if not np.isfinite(values).all():
        problem = "numbers that are NaN or infinite"
    elif variance and values.size and values.min() < 0:
        problem = f"negative variances (the smallest is {values.min():.3g})"
    if problem:
        raise WeightsError(
            f"{path}: {name} has {problem}. Nothing was loaded; the file is damaged, or its training diverged. Give "
            "another one."
        )


def _some(things: Iterable[str]) -> str:
    every = list(things)
    return ", ".join(every[:_NUM_SHOWN]) + (f" and {len(every) - _NUM_SHOWN} more" if len(every) > _NUM_SHOWN else "")


def _quoted(name: str) -> str:
    """A name from a file can be of any length, and hold what moves a terminal's cursor."""
    return repr(name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 3]}...")


def _shape(shapes: Shapes) -> str:
    """One shape as it is; those of a layer joined, and the only one without brackets of its own."""
    if shapes and isinstance(shapes[0], tuple):
        return " + ".join(map(str, shapes))
    return str(shapes)
