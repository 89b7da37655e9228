"""A backbone as a frozen Keras network that takes pixels: preprocessing inside, weights checked, stages known."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np

from headstart.errors import DataError
from headstart.networks.architectures import SwinTransformer, VisionTransformer
from headstart.networks.backend import keras
from headstart.networks.freezing import freeze
from headstart.networks.loading import load_weights
from headstart.networks.rows import BackboneSpec
from headstart.networks.stages import Stage, find_stages
from headstart.networks.swin_transformer import build_swin_transformer
from headstart.networks.vision_transformer import build_vision_transformer
from headstart.networks.weights import Weights

AS_IS = ("as_is",)
FLIPS = ("as_is", "mirrored", "upside_down", "turned")

# Statistics of ImageNet: https://github.com/keras-team/keras/blob/v3.15.1/keras/src/applications/imagenet_utils.py
_CAFFE_BGR_MEAN = (103.939, 116.779, 123.68)
_STATISTICS = {
    "torch": (np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])),
    # https://github.com/openai/CLIP/blob/main/clip/clip.py
    "clip": (np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])),
}


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A pretrained network without its top.

    Attributes:
        spec: its row of the catalogue.
        model: pixels (n, size, size, 3) of 0 to 255 -> activations (n, h, w, c), or tokens (n, t, c); a flat graph,
            every layer frozen.
        stages: its clean cuts, from shallow to deep.
        weights: where its weights came from.
        fingerprint: the SHA-256 of every weight in it, in order.
        views: how it looks at each image: once, or as it is and flipped.
    """

    spec: BackboneSpec
    model: keras.Model
    stages: tuple[Stage, ...]
    weights: Weights
    fingerprint: str
    views: tuple[str, ...] = AS_IS

    @property
    def image_size(self) -> int:
        """The side of its images in pixels."""
        return int(self.model.inputs[0].shape[1])

    @property
    def ends_in_tokens(self) -> bool:
        """Whether its output is (n, t, c), of which the first token sums up the image."""
        return len(self.model.output.shape) == 3

    def build(self) -> Backbone:
        """Itself: it is built. See `networks.planned` for one that may not be."""
        return self


def build_backbone(
    spec: BackboneSpec,
    weights: Weights,
    image_size: int,
    *,
    dtype: str = "uint8",
    views: tuple[str, ...] = AS_IS,
    seed: int | None = None,
) -> Backbone:
    """Build a backbone for square images, with its preprocessing inside and its weights checked and loaded.

    Args:
        spec: which one.
        weights: from `find_weights`.
        image_size: the side in pixels.
        dtype: of the pixels: "uint8", or "float32" for 0 to 255 as floats.
        views: `AS_IS`, or `FLIPS`: then a batch of n images goes through the network as 4 n, view after view.

        seed: of random weights, where they were asked for.

    Raises:
        DataError: the size is too small for the network, or no multiple of what it must be; or Keras does not build the
            network on this backend.
        WeightsError: the weights do not fit.
    """
    if image_size < spec.smallest_size:
        raise DataError(f"{spec.name} needs images of at least {spec.smallest_size} pixels; got {image_size}.")
    if image_size % spec.size_step:
        lower = image_size // spec.size_step * spec.size_step
        near = " or ".join(str(size) for size in (lower, lower + spec.size_step) if size >= spec.smallest_size)
        raise DataError(
            f"{spec.name} needs images whose side is a multiple of {spec.size_step} pixels; got {image_size}. "
            f"Use {near}."
        )
    if weights.path is None and seed is not None:
        keras.utils.set_random_seed(seed)
    pixels = keras.Input((image_size, image_size, 3), dtype=dtype, name="pixels")
    prepared = preprocess(flip_views(pixels) if views == FLIPS else pixels, weights.preprocessing)
    # Made with one input, not Keras's list of one, so that calling it on a batch is what it expects.
    output, name = _build(spec, prepared)
    model = load_weights(keras.Model(pixels, output, name=name), spec, weights)
    freeze(model)
    return Backbone(spec, model, find_stages(model), weights, fingerprint(model), views)


def _build(spec: BackboneSpec, prepared: Any) -> tuple[Any, str]:
    """The output of the network on prepared pixels, and the network's name."""
    if isinstance(spec.architecture, VisionTransformer):
        return build_vision_transformer(spec.architecture, prepared), spec.name
    if isinstance(spec.architecture, SwinTransformer):
        return build_swin_transformer(spec.architecture, prepared), spec.name
    # The weights are never left to Keras: it would download them, and would not say what does not fit.
    try:
        theirs = getattr(keras.applications, spec.name)(input_tensor=prepared, include_top=False, weights=None)
    except ValueError as error:  # NASNet on PyTorch, for one.
        backend = keras.backend.backend()
        raise DataError(f"Keras does not build {spec.name} on the backend '{backend}': {error}") from error
    return theirs.output, theirs.name


def preprocess(pixels: Any, mode: str) -> Any:
    """Pixels of 0 to 255 to what a family was trained on, as plain Keras layers in the graph.

    Args:
        pixels: a symbolic tensor (n, h, w, 3), RGB.
        mode: "caffe", "tf", "torch" or "none", as in ``keras.applications.imagenet_utils.preprocess_input``, or "clip".
    """
    if mode == "tf":
        return keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="preprocessing")(pixels)
    if mode in _STATISTICS:
        mean, std = _STATISTICS[mode]
        scale, offset = 1 / (255 * std), -mean / std
        return keras.layers.Rescaling(scale.tolist(), offset=offset.tolist(), name="preprocessing")(pixels)
    if mode == "caffe":
        floats = keras.layers.Rescaling(1.0, name="preprocessing_float")(pixels)
        blue_first = keras.ops.flip(floats, axis=-1)
        offset = [-mean for mean in _CAFFE_BGR_MEAN]
        return keras.layers.Rescaling(1.0, offset=offset, name="preprocessing")(blue_first)
    return keras.layers.Rescaling(1.0, name="preprocessing")(pixels)


def flip_views(pixels: Any) -> Any:
    """(n, h, w, 3) to (4 n, h, w, 3): as it is, mirrored left to right, upside down, and both."""
    mirrored = keras.ops.flip(pixels, axis=2)
    both = keras.ops.concatenate([pixels, mirrored], axis=0)
    return keras.ops.concatenate([both, keras.ops.flip(both, axis=1)], axis=0)


def fingerprint(model: keras.Model) -> str:
    """The SHA-256 of every weight of a model, in order; two models that compute the same have the same."""
    digest = hashlib.sha256()
    for value in model.get_weights():
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()
