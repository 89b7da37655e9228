"""What a tail learns from: images by number and view, as stored activations, as pixels, or as what a frozen part makes
of pixels that are varied anew each time; never all in memory at once where they are too many.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from headstart.features.decoding import check_decoded, decode_ahead
from headstart.features.extract import Features
from headstart.networks.engine import Engine
from headstart.pictures.folder import ImageFile
from headstart.pictures.views import seen, varied
from headstart.progress import Progress

Numbers = npt.NDArray[np.int64]
Random = np.random.Generator

_IN_MEMORY = 1 << 30  # Bytes; more goes to a file that the system reads as it is needed.
_BYTES_AT_ONCE = 256 << 20  # Read at a time.
_TOLD_EVERY = 64


class Material(Protocol):
    """Images as a tail takes them.

    Attributes:
        num_views: in how many views each image can be had.
    """

    num_views: int

    def batch(self, images: Numbers, views: Numbers, random: Random | None = None) -> list[npt.NDArray[np.float32]]:
        """The inputs of the tail for images, by their numbers, each in one view; varied a little, where that can be."""
        ...


class StoredMaterial:
    """Activations at a cut, and what is pooled below it, from the feature store."""

    def __init__(self, features: Features, cut: str, pooled: str, num_constants: int) -> None:
        """Read them once.

        Args:
            features: of images in their views.
            cut: the output that holds the activations.
            pooled: the output that holds the pooled stages, the lowest first.
            num_constants: how many of those lie at or below the cut.
        """
        self.num_views = len(features.views)
        num_images, first = len(features.usable), features.of(cut, 0, 1)
        portion = max(1, _BYTES_AT_ONCE // first.nbytes)
        self._activations = _room((num_images, *first.shape[1:]), first.dtype)
        self._constants = np.empty((num_images, self.num_views, num_constants), np.float32)
        for start in range(0, num_images, portion):
            stop = start + portion
            self._activations[start:stop] = features.of(cut, start, stop)
            self._constants[start:stop] = features.of(pooled, start, stop)[..., :num_constants]

    def batch(self, images: Numbers, views: Numbers, random: Random | None = None) -> list[npt.NDArray[np.float32]]:
        """See `Material.batch`; what is stored cannot be varied."""
        return [np.asarray(self._activations[images, views], np.float32), self._constants[images, views]]


class PixelMaterial:
    """Pixels, decoded once; views are made of them as they are asked for."""

    def __init__(self, images: Sequence[ImageFile], size: int, views: Sequence[str], progress: Progress) -> None:
        """Decode images that are known to decode, at a size.

        Raises:
            DataError: one of them changed since.
        """
        self.num_views = len(views)
        self._views = views
        self._pixels = _room((len(images), size, size, 3), np.dtype(np.uint8))
        failed: dict[str, str] = {}
        wanted = ((image, ("as_is",)) for image in images)
        for number, decoded in enumerate(decode_ahead(wanted, (size,), failed)):
            self._pixels[number] = decoded.pixels[size, "as_is"]
            if number % _TOLD_EVERY == 0:
                progress("Reading the pixels", number, len(images))
        check_decoded(images, failed)
        progress("Reading the pixels", len(images), len(images))

    def batch(self, images: Numbers, views: Numbers, random: Random | None = None) -> list[npt.NDArray[np.float32]]:
        """See `Material.batch`."""
        shown = [seen(self._views[view], self._pixels[image]) for image, view in zip(images, views, strict=True)]
        if random is None:
            return [np.stack(shown).astype(np.float32)]
        return [np.stack([varied(each, random) for each in shown])]


class FreshMaterial:
    """Pixels, varied as they are asked for, and then what lies below a cut, which an engine runs faster than a trainer.

    Low in a network its activations take more room than the pixels, and little time; and what is stored cannot be
    varied.
    """

    def __init__(self, pixels: PixelMaterial, engine: Engine) -> None:
        """Take the images, and what gives the tail's inputs of one image's pixels."""
        self.num_views = pixels.num_views
        self._pixels, self._engine = pixels, engine

    def batch(self, images: Numbers, views: Numbers, random: Random | None = None) -> list[npt.NDArray[np.float32]]:
        """See `Material.batch`."""
        (pixels,) = self._pixels.batch(images, views, random)
        whole = np.rint(pixels).astype(np.uint8)
        rows = [row for _, row in self._engine.stream((None, each) for each in whole)]
        return [np.stack(each) for each in zip(*rows, strict=True)]


def _room(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """An array in memory, or in a file without a name that goes with the process."""
    if int(np.prod(shape)) * dtype.itemsize <= _IN_MEMORY:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype, "w+", shape=shape)
