"""`transfer_model`: the usual transfer-learning script as one call, without its traps."""

from __future__ import annotations

from headstart.errors import DataError
from headstart.learning.heads import compile_classifier, flatten_head
from headstart.networks.backbone import build_backbone
from headstart.networks.backend import keras
from headstart.networks.catalogue import find_backbone
from headstart.networks.weights import find_weights


def transfer_model(
    backbone: str = "VGG16", num_classes: int = 10, *, image_size: int | None = None, weights: str = "auto"
) -> keras.Model:
    """A pretrained network without its top, frozen; on it Flatten, Dense 256 relu, Dense softmax; compiled.

    It takes raw pixels, 0 to 255, RGB: the network's own preprocessing is inside. Train it with ``fit`` on one-hot
    labels; only the head learns.

    Args:
        backbone: Keras's name, such as "VGG16".
        num_classes: how many classes there are, at least 2.
        image_size: the side of the square images in pixels; the network's own by default.
        weights: "auto", "imagenet", "kerashub", "packaged", "none" (random) or a path; see `headstart weights list`.

    Returns:
        A plain, compiled ``keras.Model``: pixels (n, size, size, 3) float32 or uint8 -> probabilities (n, num_classes).

    Raises:
        WeightsError: the weights cannot be had; random ones are never put in their place.
        UnknownNameError: there is no such backbone.
    """
    if num_classes < 2:
        raise DataError(f"A classifier needs at least 2 classes; got num_classes={num_classes}.")
    spec = find_backbone(backbone)
    found = find_weights(spec, weights)
    size = image_size or found.fitting_size(spec.image_size)
    # float32, so that pixels which were resized to fractions are not cut to whole numbers.
    body = build_backbone(spec, found, size, dtype="float32")
    model = keras.Model(
        body.model.inputs[0], flatten_head(num_classes)(body.model.output), name=f"{spec.name}_transfer"
    )
    compile_classifier(model)
    return model
