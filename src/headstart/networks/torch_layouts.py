"""What PyTorch's networks call their tensors, in torchvision and in timm, and which layer of Keras each belongs to.

Sources: torchvision 0.24's ``models/{vgg,resnet,mobilenetv2}.py``; timm 1.0's ``models/{vgg,resnet,efficientnet}.py``.
Both name ResNet's and VGG's trunks alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Part(NamedTuple):
    """One layer with weights.

    Attributes:
        layer: what Keras calls it.
        kind: "conv", "biased_conv", "depthwise" or "norm".
        prefix: what its tensors begin with in the checkpoint.
    """

    layer: str
    kind: str
    prefix: str

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of its tensors, in Keras's order of weights."""
        return tuple(f"{self.prefix}.{suffix}" for suffix in _SUFFIXES[self.kind])


@dataclasses.dataclass(frozen=True)
class Layout:
    """One network.

    Attributes:
        network: its name: Keras's, where Keras has it.
        namings: the same layers under each naming.
        strides_in_3x3: a ResNet block halves in its 3x3 convolution ("v1.5"), where Keras's does in the 1x1 before.
    """

    network: str
    namings: tuple[tuple[Part, ...], ...]
    strides_in_3x3: bool = False


_SUFFIXES = {
    "conv": ("weight",),
    "depthwise": ("weight",),
    "biased_conv": ("weight", "bias"),
    "norm": ("weight", "bias", "running_mean", "running_var"),
}
_TOPS = ("fc.", "classifier.", "head.", "pre_logits.")
_MOBILENET_V2_REPEATS = (1, 2, 3, 4, 3, 3, 1)
_VGG_16, _VGG_19 = (2, 2, 3, 3, 3), (2, 2, 4, 4, 4)


def is_left_aside(name: str) -> bool:
    """Whether a tensor belongs to the classifier, or counts batches: no part of a trunk."""
    return name.startswith(_TOPS) or name.endswith(".num_batches_tracked")


def tensor_names(parts: Iterable[Part]) -> set[str]:
    """Every tensor of those layers."""
    return {name for part in parts for name in part.tensors}


def find_layout(names: Iterable[str]) -> Layout | None:
    """The network whose trunk has exactly these tensors, among those that are known; None if there is no such."""
    wanted = {name for name in names if not is_left_aside(name)}
    for layout in (*LAYOUTS.values(), *_OTHERS):
        if any(tensor_names(parts) == wanted for parts in layout.namings):
            return layout
    return None


def _vgg(convolutions: tuple[int, ...], *, norms: bool = False) -> Iterator[Part]:
    """``features`` counts convolutions, norms, activations and pools alike."""
    place = 0
    for block, number in enumerate(convolutions, 1):
        for convolution in range(1, number + 1):
            layer = f"block{block}_conv{convolution}"
            yield Part(layer, "biased_conv", f"features.{place}")
            if norms:
                yield Part(f"{layer}_norm", "norm", f"features.{place + 1}")
            place += 3 if norms else 2
        place += 1


def _resnet(blocks: tuple[int, ...]) -> Iterator[Part]:
    yield from (Part("conv1_conv", "conv", "conv1"), Part("conv1_bn", "norm", "bn1"))
    for stage, number in enumerate(blocks, 1):
        for block in range(number):
            layer, prefix = f"conv{stage + 1}_block{block + 1}", f"layer{stage}.{block}"
            for each in (1, 2, 3):
                yield Part(f"{layer}_{each}_conv", "conv", f"{prefix}.conv{each}")
                yield Part(f"{layer}_{each}_bn", "norm", f"{prefix}.bn{each}")
            if block == 0:
                yield Part(f"{layer}_0_conv", "conv", f"{prefix}.downsample.0")
                yield Part(f"{layer}_0_bn", "norm", f"{prefix}.downsample.1")


def _mobilenet_v2(*, nested: bool) -> Iterator[Part]:
    """torchvision's names: nested, or flat as in its first versions."""
    yield from (Part("Conv1", "conv", "features.0.0"), Part("bn_Conv1", "norm", "features.0.1"))
    for number in range(sum(_MOBILENET_V2_REPEATS)):
        block, prefix = f"block_{number}" if number else "expanded_conv", f"features.{number + 1}.conv"
        # The first block does not expand.
        triples = [("expand", "conv"), ("depthwise", "depthwise")] if number else [("depthwise", "depthwise")]
        for group, (part, kind) in enumerate(triples):  # Convolution, normalisation and an activation without weights.
            first, second = (f"{group}.0", f"{group}.1") if nested else (str(3 * group), str(3 * group + 1))
            yield Part(f"{block}_{part}", kind, f"{prefix}.{first}")
            yield Part(f"{block}_{part}_BN", "norm", f"{prefix}.{second}")
        last = len(triples) if nested else 3 * len(triples)
        yield Part(f"{block}_project", "conv", f"{prefix}.{last}")
        yield Part(f"{block}_project_BN", "norm", f"{prefix}.{last + 1}")
    yield from (Part("Conv_1", "conv", "features.18.0"), Part("Conv_1_bn", "norm", "features.18.1"))


def _timm_mobilenet_v2() -> Iterator[Part]:
    yield from (Part("Conv1", "conv", "conv_stem"), Part("bn_Conv1", "norm", "bn1"))
    number = 0
    for stage, repeats in enumerate(_MOBILENET_V2_REPEATS):
        for repeat in range(repeats):
            block, prefix = f"block_{number}" if number else "expanded_conv", f"blocks.{stage}.{repeat}"
            names = ("conv_pw", "conv_dw", "conv_pwl") if number else ("conv_dw", "conv_pw")
            parts = ("expand", "depthwise", "project")[-len(names) :]
            for place, (part, name) in enumerate(zip(parts, names, strict=True), 1):
                kind = "depthwise" if part == "depthwise" else "conv"
                yield Part(f"{block}_{part}", kind, f"{prefix}.{name}")
                yield Part(f"{block}_{part}_BN", "norm", f"{prefix}.bn{place}")
            number += 1
    yield from (Part("Conv_1", "conv", "conv_head"), Part("Conv_1_bn", "norm", "bn2"))


_RESNET_152 = Layout("ResNet152", (tuple(_resnet((3, 8, 36, 3))),), strides_in_3x3=True)

LAYOUTS = {
    "vgg16": Layout("VGG16", (tuple(_vgg(_VGG_16)),)),
    "vgg19": Layout("VGG19", (tuple(_vgg(_VGG_19)),)),
    "resnet50": Layout("ResNet50", (tuple(_resnet((3, 4, 6, 3))),), strides_in_3x3=True),
    "resnet101": Layout("ResNet101", (tuple(_resnet((3, 4, 23, 3))),), strides_in_3x3=True),
    "mobilenet_v2": Layout(
        "MobileNetV2",
        (tuple(_mobilenet_v2(nested=True)), tuple(_mobilenet_v2(nested=False)), tuple(_timm_mobilenet_v2())),
    ),
}
"""What is read, by the name that a row of the catalogue gives it."""

_OTHERS = (
    Layout("VGG16 with batch normalisation (vgg16_bn)", (tuple(_vgg(_VGG_16, norms=True)),)),
    Layout("VGG19 with batch normalisation (vgg19_bn)", (tuple(_vgg(_VGG_19, norms=True)),)),
    _RESNET_152,
)
"""What is only recognised, to say so."""
