"""Writes ``torch_trunks.npz``: what PyTorch's VGG and ResNet say in float64, for tests that run without it.

    .venv-torch/bin/python tests/golden/make_torch_trunks.py

The weights are drawn with NumPy from a seed, so that a test can draw them again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import torch_resnet  # noqa: E402
import torch_vgg  # noqa: E402
from tiny import drawn_pixels  # noqa: E402
from torch_tensors import draw_tensors, resnet_shapes, vgg_shapes  # noqa: E402


def main() -> None:
    pixels = drawn_pixels(33, 1)
    means = {}
    for restated, network, depths, shapes in (
        (torch_vgg, "VGG", (16, 19), vgg_shapes),
        (torch_resnet, "ResNet", (50, 101), resnet_shapes),
    ):
        for depth in depths:
            said = restated.activations(depth, draw_tensors(shapes(depth), 7), pixels, dtype=torch.float64)
            means[f"{network}{depth}"] = said.mean(axis=(0, 1, 2)).astype(np.float32)
    np.savez_compressed(HERE / "torch_trunks.npz", **means)


if __name__ == "__main__":
    main()
