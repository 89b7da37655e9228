"""`unfreeze` and `freeze`: for those who write their own training loop, without its traps.

In Keras alone, opening layers after `fit` trains nothing new until the model is compiled again, freezing them goes on
training them, and the statistics of BatchNormalization move in any layer that is open, whatever the network was called
with. The results are silent; these two functions are not among them.
"""

from __future__ import annotations

from typing import Any

from headstart.errors import DataError
from headstart.networks.backend import keras
from headstart.networks.freezing import WHOLE, thaw
from headstart.networks.freezing import freeze as freeze_layers
from headstart.networks.stages import find_stages

_IMAGE_RANK = 4
_TOKENS_RANK = 3


def unfreeze(model: keras.Model, stage: str = WHOLE) -> keras.Model:
    """Let a stage of a model's pretrained network learn, with all above it, and compile the model again.

    BatchNormalization stays frozen, so its statistics stay those of the pretraining; the dropouts inside the network
    are off. The head, all that is not the network, goes on as it was. The optimizer starts afresh with the settings it
    had: give the model a lower learning rate than a head is trained with, such as 1e-5 for Adam.

    Args:
        model: pixels (n, h, w, 3) -> (n, num_classes): from `transfer_model`, a run, or Keras's own
            ``keras.applications`` with a head on it; its network in the same graph or as one layer.
        stage: the name of the lowest stage that learns, "stage1" (shallow) to "stage5" (deep) in most networks, or
            "all".

    Returns:
        The same model, compiled if it was.

    Raises:
        UnknownNameError: there is no such stage.
        DataError: there is no network of images in the model, or the stage has no weights.
    """
    body = _body(model)
    head_layers = _head(model, body)
    model.trainable = True
    freeze_layers(body)
    thaw(body, find_stages(body), stage)
    if not body.trainable_weights:
        raise DataError(f"{stage} of '{model.name}' has no weights that could learn. Open a lower stage.")
    for layer in head_layers:
        layer.trainable = True
    return _compiled_again(model)


def freeze(model: keras.Model) -> keras.Model:
    """Freeze a model's pretrained network, all but its head, and compile the model again; see `unfreeze`."""
    body = _body(model)
    head_layers = _head(model, body)
    model.trainable = True
    freeze_layers(body)
    for layer in head_layers:
        layer.trainable = True
    return _compiled_again(model)


def _body(model: keras.Model) -> keras.Model:
    """The network of images inside a model: a layer of it, or the part of its graph up to the deepest feature map."""
    inner = [layer for layer in model.layers if isinstance(layer, keras.Model) and _is_of_images(layer)]
    if len(inner) == 1:
        return inner[0]
    deepest = _deepest_map(model)
    if deepest is None:
        raise DataError(
            f"The model '{model.name}' holds no network of images: no layer of it gives maps (n, h, w, channels) or "
            "tokens (n, tokens, channels). Expected a pretrained network with a head on it."
        )
    return keras.Model(model.inputs, deepest, name=model.name)


def _is_of_images(layer: Any) -> bool:
    return len(layer.inputs) == 1 and len(layer.inputs[0].shape) == _IMAGE_RANK and layer.inputs[0].shape[-1] == 3


def _deepest_map(model: keras.Model) -> Any:
    """The map (n, h, w, c) that most comes before, or the tokens (n, t, c) before any of them were summed up."""
    before: dict[str, int] = {}
    flat: set[str] = set()
    best, most = None, 1
    for operation in model.operations:  # What comes before an operation stands before it.
        node = operation._inbound_nodes[0]
        parents = [parent.operation.name for parent in node.parent_nodes]
        tensor = node.outputs[0]
        rank = len(tensor.shape)
        before[operation.name] = 1 + max((before[name] for name in parents), default=0)
        if rank < _TOKENS_RANK or any(name in flat for name in parents):
            flat.add(operation.name)
        usable = rank == _IMAGE_RANK or (rank == _TOKENS_RANK and operation.name not in flat)
        if usable and before[operation.name] > most:
            best, most = tensor, before[operation.name]
    return best


def _head(model: keras.Model, body: keras.Model) -> list[Any]:
    """The layers of a model that are not its network's."""
    of_body = {id(layer) for layer in body._flatten_layers()}
    return [layer for layer in model._flatten_layers(include_self=False) if id(layer) not in of_body]


def _compiled_again(model: keras.Model) -> keras.Model:
    """A model that was compiled keeps what it was told then; its optimizer knows only the weights that learnt."""
    if model.compiled:
        model.compile_from_config(model.get_compile_config())
    return model
