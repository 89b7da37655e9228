"""Where a network can be cut: its stages, found in the graph itself.

A *clean cut* is a layer that everything after it depends on and nothing before it: no other tensor crosses the cut, so
all that lies below can be frozen, or computed once, without touching what lies above. The deepest clean cut at each
resolution ends a *stage*: stage1 at half the image's side, stage2 at a quarter, and so on. A vision transformer has one
resolution; its blocks are divided into four stages.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from typing import Any

from headstart.networks.backend import keras

# Halving leaves 2 of 3 where it rounds up; an unpadded convolution, which halves nothing, leaves 15 of 17.
_HALVED = 0.7
_NUM_TOKEN_STAGES = 4


@dataclasses.dataclass(frozen=True)
class Stage:
    """The end of one stage.

    Attributes:
        name: "stage1" (shallow) to "stage5" (deep).
        layer: the name of the layer, or of the plain operation (ConvNeXt adds with ``+``), whose output is the cut.
        num_channels: channels of that output.
    """

    name: str
    layer: str
    num_channels: int


def find_stages(backbone: keras.Model) -> tuple[Stage, ...]:
    """The stages of a network of image shape (height, width, 3), from shallow to deep."""
    if len(backbone.output.shape) == 3:
        return _token_stages(backbone)
    previous = backbone.inputs[0].shape[1]
    found: list[Stage] = []
    for layer, output in _clean_cuts(backbone):
        padding = isinstance(layer, (keras.layers.InputLayer, keras.layers.ZeroPadding2D))
        if len(output.shape) != 4 or padding:
            continue
        if output.shape[1] <= _HALVED * previous:
            found.append(Stage(f"stage{len(found) + 1}", layer.name, output.shape[-1]))
        elif found:
            found[-1] = Stage(found[-1].name, layer.name, output.shape[-1])
        previous = output.shape[1]
    return tuple(found)


def _token_stages(backbone: keras.Model) -> tuple[Stage, ...]:
    """The end of every quarter of the blocks; the last is the network's output."""
    cuts = _clean_cuts(backbone)
    blocks = [layer.name for layer, _ in cuts if re.fullmatch(r"block\d+", layer.name)]
    ends = [blocks[len(blocks) * quarter // _NUM_TOKEN_STAGES - 1] for quarter in range(1, _NUM_TOKEN_STAGES)]
    ends.append(cuts[-1][0].name)
    return tuple(Stage(f"stage{number}", end, backbone.output.shape[-1]) for number, end in enumerate(ends, 1))


def cut_tensor(model: keras.Model, stage: Stage) -> Any:
    """The symbolic tensor at which a stage ends."""
    (operation,) = (each for each in model.operations if each.name == stage.layer)
    return operation._inbound_nodes[0].outputs[0]


def layers_below(model: keras.Model, cut: str) -> set[str]:
    """The names of a layer and of every operation that it depends on."""
    nodes = {operation.name: operation._inbound_nodes[0] for operation in model.operations}
    waiting: list[str] = [cut]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [parent.operation.name for parent in nodes[name].parent_nodes]
    return found


def _clean_cuts(model: keras.Model) -> list[tuple[Any, Any]]:
    """Every (operation, output) such that the output is the only tensor that later layers still need."""
    nodes = [operation._inbound_nodes[0] for operation in model.operations]
    waiting = Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
    alive: set[int] = set()
    cuts = []
    for operation, node in zip(model.operations, nodes, strict=True):
        for tensor in node.input_tensors:
            waiting[id(tensor)] -= 1
            if not waiting[id(tensor)]:
                alive.discard(id(tensor))
        (output, *others) = node.outputs
        if waiting[id(output)]:
            alive.add(id(output))
        if not others and alive <= {id(output)}:
            cuts.append((operation, output))
    return cuts
