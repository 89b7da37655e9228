"""The tensors of PyTorch's networks, listed from the papers' tables and torchvision's and timm's naming.

Not from headstart's converters: a second opinion on what goes where. MobileNetV2's are in ``tiny``.
"""

from __future__ import annotations

import json

import numpy as np

from tiny import MOBILENET_V2, mobilenet_v2_shapes

# https://arxiv.org/abs/1512.03385, table 1: blocks of each stage.
RESNET = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
# https://arxiv.org/abs/1409.1556, table 1, columns D and E: channels of each convolution, "M" for a pool.
VGG = {
    16: (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"),
    19: (64, 64, "M", 128, 128, "M", *(256,) * 4, "M", *(512,) * 4, "M", *(512,) * 4, "M"),
}


def norm_shapes(name, channels):
    shapes = {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    return shapes | {f"{name}.num_batches_tracked": ()}


def resnet_shapes(depth):
    """Name -> shape of every tensor of the trunk, and of the classifier."""
    shapes = {"conv1.weight": (64, 3, 7, 7), **norm_shapes("bn1", 64)}
    ins = 64
    for stage, (narrow, number) in enumerate(zip((64, 128, 256, 512), RESNET[depth], strict=True), 1):
        for block in range(number):
            name = f"layer{stage}.{block}"
            for place, (outs, side) in enumerate(((narrow, 1), (narrow, 3), (4 * narrow, 1)), 1):
                shapes |= {f"{name}.conv{place}.weight": (outs, ins, side, side)}
                shapes |= norm_shapes(f"{name}.bn{place}", outs)
                before, ins = ins, outs
            if block == 0:
                before = 64 if stage == 1 else 2 * narrow
                shapes |= {f"{name}.downsample.0.weight": (ins, before, 1, 1)}
                shapes |= norm_shapes(f"{name}.downsample.1", ins)
    return shapes | {"fc.weight": (10, 2048), "fc.bias": (10,)}


def vgg_shapes(depth, *, timm=False, norms=False):
    """Name -> shape of every tensor of the trunk, and of a classifier that is smaller than the real one."""
    shapes, ins, place = {}, 3, 0
    for outs in VGG[depth]:
        if outs == "M":
            place += 1
            continue
        shapes |= {f"features.{place}.weight": (outs, ins, 3, 3), f"features.{place}.bias": (outs,)}
        if norms:
            shapes |= norm_shapes(f"features.{place + 1}", outs)
        ins, place = outs, place + (3 if norms else 2)
    tops = ("pre_logits.fc1", "pre_logits.fc2", "head.fc") if timm else ("classifier.0", "classifier.3", "classifier.6")
    for top in tops:
        shapes |= {f"{top}.weight": (4, 4), f"{top}.bias": (4,)}
    return shapes


def timm_mobilenet_v2_shapes():
    """The shapes of torchvision's MobileNetV2, in the same order, under timm's names."""
    layers = ["conv_stem", "bn1"]
    for stage, (expansion, _, repeats, _) in enumerate(MOBILENET_V2):
        names = ("conv_dw", "bn1", "conv_pw", "bn2")
        if expansion > 1:
            names = ("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3")
        layers += [f"blocks.{stage}.{repeat}.{name}" for repeat in range(repeats) for name in names]
    names = []
    for layer in (*layers, "conv_head", "bn2"):
        is_norm = layer.rpartition(".")[2].startswith("bn")
        names += list(norm_shapes(layer, 1)) if is_norm else [f"{layer}.weight"]
    return dict(zip(names, mobilenet_v2_shapes().values(), strict=True)) | {"classifier.weight": (10, 1280)}


def draw_tensors(shapes, seed):
    """Random tensors, drawn small for the reason that ``tiny.mobilenet_v2_tensors`` gives, statistics included."""
    random = np.random.default_rng(seed)
    gain = 0.3 if any(name.endswith("running_var") for name in shapes) else 1.0
    tensors = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            tensors[name] = np.array(1, np.int64)
        elif name.endswith("running_var"):
            tensors[name] = random.uniform(0.002, 0.5, shape).astype(np.float32)
        elif len(shape) > 1:
            scale = np.float32(np.sqrt(gain / np.prod(shape[1:])))
            tensors[name] = random.standard_normal(shape, np.float32) * scale
        elif name.endswith("weight"):
            tensors[name] = random.uniform(0.3, 0.8, shape).astype(np.float32)
        else:
            tensors[name] = random.normal(0, 0.2, shape).astype(np.float32)
    return tensors


SAFETENSORS = {"f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "i4": "I32", "i2": "I16", "i1": "I8", "u8": "U64",
               "u4": "U32", "u2": "U16", "u1": "U8", "b1": "BOOL"}  # fmt: skip


def safetensors_bytes(tensors, *, changes=None, kinds=None, header=None):
    """A .safetensors file; ``changes`` may lie about tensors, ``kinds`` about their numbers."""
    table = {"__metadata__": {"format": "pt"}}
    parts = []
    place = 0
    for name, values in tensors.items():
        raw = values.tobytes()
        kind = (kinds or {}).get(name, SAFETENSORS[values.dtype.str[1:]])
        table[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [place, place + len(raw)]}
        table[name] |= (changes or {}).get(name, {})
        parts.append(raw)
        place += len(raw)
    header = json.dumps(table).encode() if header is None else header
    return len(header).to_bytes(8, "little") + header + b"".join(parts)
