"""Torchvision's MobileNetV2 trunk, said again in PyTorch: what the converter is held against."""

from __future__ import annotations

import torch
from torch import nn

from tiny import MOBILENET_V2

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _three(ins, outs, side, stride=1, groups=1):
    return [
        nn.Conv2d(ins, outs, side, stride, (side - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outs),
        nn.ReLU6(),
    ]


class _Block(nn.Module):
    def __init__(self, ins, outs, stride, expansion, wrapped):
        super().__init__()
        wide = ins * expansion
        self.adds = stride == 1 and ins == outs
        parts = [] if expansion == 1 else [_three(ins, wide, 1)]
        parts.append(_three(wide, wide, 3, stride, groups=wide))
        last = [nn.Conv2d(wide, outs, 1, bias=False), nn.BatchNorm2d(outs)]
        layers = [nn.Sequential(*part) for part in parts] if wrapped else [layer for part in parts for layer in part]
        self.conv = nn.Sequential(*layers, *last)

    def forward(self, tensor):
        return tensor + self.conv(tensor) if self.adds else self.conv(tensor)


class MobileNetV2(nn.Module):
    def __init__(self, *, wrapped=True):
        super().__init__()
        layers, channels = [nn.Sequential(*_three(3, 32, 3, 2))], 32
        for expansion, outs, repeats, stride in MOBILENET_V2:
            for repeat in range(repeats):
                layers.append(_Block(channels, outs, 1 if repeat else stride, expansion, wrapped))
                channels = outs
        self.features = nn.Sequential(*layers, nn.Sequential(*_three(channels, 1280, 1)))


def activations(tensors, pixels, *, wrapped=True):
    """What the trunk makes of pixels (n, h, w, 3) uint8 with those tensors: (n, h/32, w/32, 1280)."""
    network = MobileNetV2(wrapped=wrapped).eval()
    network.load_state_dict({name: torch.tensor(values) for name, values in tensors.items()})
    with torch.no_grad():
        floats = torch.tensor(pixels).permute(0, 3, 1, 2) / 255
        mean, std = (torch.tensor(each).reshape(3, 1, 1) for each in (_MEAN, _STD))
        return network.features((floats - mean) / std).permute(0, 2, 3, 1).numpy()
