"""MobileNetV2's trunk in PyTorch, restated from the paper with torchvision's padding: what the converter must equal.

https://arxiv.org/abs/1801.04381; https://github.com/pytorch/vision/blob/v0.24.0/torchvision/models/mobilenetv2.py
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from tiny import MOBILENET_V2

_MEAN = np.array([0.485, 0.456, 0.406])
_STD = np.array([0.229, 0.224, 0.225])


def _three(ins, outs, side, stride=1, groups=1):
    return [
        nn.Conv2d(ins, outs, side, stride, padding=side // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outs),
        nn.ReLU6(),
    ]


class Block(nn.Module):
    """An inverted residual; ``flat`` only changes what its tensors are called."""

    def __init__(self, ins, outs, stride, expansion, *, flat):
        super().__init__()
        wide = ins * expansion
        threes = [_three(ins, wide, 1)] if expansion != 1 else []
        threes.append(_three(wide, wide, 3, stride, groups=wide))
        layers = [layer for three in threes for layer in three] if flat else [nn.Sequential(*three) for three in threes]
        self.conv = nn.Sequential(*layers, nn.Conv2d(wide, outs, 1, bias=False), nn.BatchNorm2d(outs))
        self.adds = stride == 1 and ins == outs

    def forward(self, tensor):
        return tensor + self.conv(tensor) if self.adds else self.conv(tensor)


class Trunk(nn.Module):
    """Prepared pixels (n, 3, h, w) -> activations (n, 1280, h / 32, w / 32)."""

    def __init__(self, *, flat=False):
        super().__init__()
        blocks, channels = [nn.Sequential(*_three(3, 32, 3, 2))], 32
        for expansion, outs, repeats, stride in MOBILENET_V2:
            for repeat in range(repeats):
                blocks.append(Block(channels, outs, 1 if repeat else stride, expansion, flat=flat))
                channels = outs
        self.features = nn.Sequential(*blocks, nn.Sequential(*_three(channels, 1280, 1)))

    def forward(self, tensor):
        return self.features(tensor)


def run_trunk(trunk, tensors, pixels, dtype):
    """What a trunk with these tensors (by name) says of pixels (n, h, w, 3) uint8, prepared: (n, h / 32, w / 32, c)."""
    trunk.load_state_dict({name: torch.as_tensor(np.array(values)) for name, values in tensors.items()})
    prepared = ((pixels / 255 - _MEAN) / _STD).transpose(0, 3, 1, 2)
    with torch.no_grad():
        said = trunk.to(dtype).eval()(torch.from_numpy(np.ascontiguousarray(prepared)).to(dtype))
    return said.numpy().transpose(0, 2, 3, 1)


def activations(tensors, pixels, *, flat=False, dtype=torch.float32):
    """What the trunk with these tensors says of pixels (n, h, w, 3) uint8: (n, h / 32, w / 32, 1280)."""
    return run_trunk(Trunk(flat=flat), tensors, pixels, dtype)
