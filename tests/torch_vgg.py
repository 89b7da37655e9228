"""VGG's trunk in PyTorch, restated from the paper.

https://arxiv.org/abs/1409.1556; https://github.com/pytorch/vision/blob/v0.24.0/torchvision/models/vgg.py
"""

from __future__ import annotations

import torch
from torch import nn

from torch_mobilenet import run_trunk
from torch_tensors import VGG


class Trunk(nn.Module):
    """Prepared pixels (n, 3, h, w) -> activations (n, 512, h / 32, w / 32)."""

    def __init__(self, depth):
        super().__init__()
        layers, ins = [], 3
        for outs in VGG[depth]:
            if outs == "M":
                layers.append(nn.MaxPool2d(2, 2))
            else:
                layers += [nn.Conv2d(ins, outs, 3, padding=1), nn.ReLU()]
                ins = outs
        self.features = nn.Sequential(*layers)

    def forward(self, tensor):
        return self.features(tensor)


def activations(depth, tensors, pixels, *, dtype=torch.float32):
    """What the trunk with these tensors says of pixels (n, h, w, 3) uint8: (n, h / 32, w / 32, 512)."""
    trunk = {name: values for name, values in tensors.items() if name.startswith("features.")}
    return run_trunk(Trunk(depth), trunk, pixels, dtype)
