"""What of this machine headstart may use."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def sums_bytes_in_full() -> bool:
    """Whether the processor is known to add products of bytes in 32 bits at once: VNNI, or ARM's dot products.

    Older ones add pairs of them in 16 bits, and clip what does not fit.
    """
    with contextlib.suppress(OSError, ValueError):
        words = set(_CPUINFO.read_text().split())
        return not words.isdisjoint({"avx512_vnni", "avx_vnni", "asimddp"})
    return False
