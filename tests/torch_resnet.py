"""ResNet's trunk in PyTorch, restated from the paper with torchvision's strides ("v1.5") and padding.

https://arxiv.org/abs/1512.03385; https://github.com/pytorch/vision/blob/v0.24.0/torchvision/models/resnet.py
"""

from __future__ import annotations

import torch
from torch import nn

from torch_mobilenet import run_trunk
from torch_tensors import RESNET


class Block(nn.Module):
    """A bottleneck: 1x1, 3x3 with the stride, 1x1."""

    def __init__(self, ins, narrow, stride):
        super().__init__()
        outs = 4 * narrow
        self.conv1, self.bn1 = nn.Conv2d(ins, narrow, 1, bias=False), nn.BatchNorm2d(narrow)
        self.conv2, self.bn2 = nn.Conv2d(narrow, narrow, 3, stride, padding=1, bias=False), nn.BatchNorm2d(narrow)
        self.conv3, self.bn3 = nn.Conv2d(narrow, outs, 1, bias=False), nn.BatchNorm2d(outs)
        if stride != 1 or ins != outs:
            self.downsample = nn.Sequential(nn.Conv2d(ins, outs, 1, stride, bias=False), nn.BatchNorm2d(outs))

    def forward(self, tensor):
        said = self.bn1(self.conv1(tensor)).relu()
        said = self.bn2(self.conv2(said)).relu()
        said = self.bn3(self.conv3(said))
        return (said + (self.downsample(tensor) if hasattr(self, "downsample") else tensor)).relu()


class Trunk(nn.Module):
    """Prepared pixels (n, 3, h, w) -> activations (n, 2048, h / 32, w / 32)."""

    def __init__(self, depth):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False), nn.BatchNorm2d(64)
        ins = 64
        for stage, number in enumerate(RESNET[depth], 1):
            narrow = 32 * 2**stage
            blocks = []
            for block in range(number):
                blocks.append(Block(ins, narrow, 2 if block == 0 and stage > 1 else 1))
                ins = 4 * narrow
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))

    def forward(self, tensor):
        tensor = nn.functional.max_pool2d(self.bn1(self.conv1(tensor)).relu(), 3, 2, padding=1)
        return self.layer4(self.layer3(self.layer2(self.layer1(tensor))))


def activations(depth, tensors, pixels, *, dtype=torch.float32):
    """What the trunk with these tensors says of pixels (n, h, w, 3) uint8: (n, h / 32, w / 32, 2048)."""
    return run_trunk(
        Trunk(depth), {name: v for name, v in tensors.items() if not name.startswith("fc.")}, pixels, dtype
    )
