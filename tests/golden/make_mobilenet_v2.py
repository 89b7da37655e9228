"""Makes the golden numbers of MobileNetV2 with PyTorch: ``python tests/golden/make_mobilenet_v2.py``.

``mobilenet_v2.npz``: for tensors drawn by ``tiny.mobilenet_v2_tensors(SEED)``, every 20th channel of the last stage at
each size. ``mobilenet_v2_real.npz``: the mean over the last stage that the published checkpoint gives at 225 pixels.
Needs PyTorch (CPU), NumPy and Pillow, and for the second pip.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from headstart.networks.catalogue import find_backbone  # noqa: E402
from headstart.networks.weights import find_weights  # noqa: E402
from tiny import drawn_pixels, mobilenet_v2_tensors  # noqa: E402
from torch_mobilenet import activations  # noqa: E402

SEED = 7
SIZES = (33, 65, 97)


def main() -> None:
    tensors = mobilenet_v2_tensors(SEED)
    made = {str(size): activations(tensors, drawn_pixels(size))[..., ::20] for size in SIZES}
    np.savez_compressed(HERE / "mobilenet_v2.npz", **made)
    path = find_weights(find_backbone("MobileNetV2"), "packaged").path
    real = {name: value.numpy() for name, value in torch.load(path, weights_only=True).items()}
    real = {name: value for name, value in real.items() if name.startswith("features.")}
    mean = activations(real, drawn_pixels(225), wrapped=False).mean(axis=(0, 1, 2))
    np.savez_compressed(HERE / "mobilenet_v2_real.npz", mean=mean)
    print({name: float(np.abs(value).max()) for name, value in (*made.items(), ("real", mean))})


if __name__ == "__main__":
    main()
