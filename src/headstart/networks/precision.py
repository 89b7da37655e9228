"""In which numbers a frozen network is computed.

The head is fitted on, and scored with, what the shipped model computes, which is float32 (docs/decisions.md); the
others are for looking at many networks or sizes quickly.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

PRECISIONS = ("fp32", "bf16", "int8")

Samples = Sequence[npt.NDArray[np.uint8]]


def _no_samples() -> Samples:
    return ()


@dataclasses.dataclass(frozen=True)
class Precision:
    """In which numbers a network is computed.

    Attributes:
        name: "fp32"; "bf16", half precision where the processor has it; or "int8", 8 bits.
        calibrated_on: the content hashes of the images from which the ranges of 8 bits are taken.
        samples: their pixels (h, w, 3), read when they are needed.
        half_range: for 8 bits, weights take half of them, for processors that would clip the sums of whole ones.
    """

    name: str = "fp32"
    calibrated_on: tuple[str, ...] = ()
    samples: Callable[[], Samples] = _no_samples
    half_range: bool = False

    def __str__(self) -> str:
        """What distinguishes its results from others."""
        if not self.calibrated_on:
            return self.name
        digest = hashlib.sha256("\n".join(self.calibrated_on).encode()).hexdigest()
        half = ", half range" if self.half_range else ""
        return f"{self.name} of {len(self.calibrated_on)} images {digest[:16]}{half}"


FP32 = Precision()
BF16 = Precision("bf16")
