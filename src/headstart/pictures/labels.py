"""The labels of images as numbers, and what to stratify by where an image may have several names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from headstart.pictures.folder import BETWEEN_NAMES, ImageFile

_LEAST_OF_A_SET = 10  # Of fewer images a fifth and a seventh are too few to be held to; then their names alone count.


def class_numbers(images: Sequence[ImageFile], class_names: Sequence[str]) -> npt.NDArray[np.int64]:
    """What the images show: (n,) class numbers; for multi-label data (n, k) of 0 and 1, a column for each name."""
    if any(image.label_set is not None for image in images):
        return multi_hot(images, class_names)
    numbers = {name: number for number, name in enumerate(class_names)}
    return np.array([numbers[image.label] for image in images], np.int64)


def multi_hot(images: Sequence[ImageFile], class_names: Sequence[str]) -> npt.NDArray[np.int64]:
    """(n, k): 1 where an image has a name, else 0."""
    numbers = {name: number for number, name in enumerate(class_names)}
    found = np.zeros((len(images), len(class_names)), np.int64)
    for row, image in zip(found, images, strict=True):
        row[[numbers[name] for name in image.labels]] = 1
    return found


def strata(images: Sequence[ImageFile]) -> list[tuple[str, ...]]:
    """All that each image counts for when images are shared out: its names, and its set of names if that is frequent.

    A set is written with a bar behind every name, so that it is no name. Having no names is a bar, frequent or not.
    """
    sets = Counter(image.label_set for image in images)
    return [
        (*image.labels, _of_set(image.label_set))
        if image.label_set is not None and (sets[image.label_set] >= _LEAST_OF_A_SET or not image.label_set)
        else image.labels
        for image in images
    ]


def stratum(images: Sequence[ImageFile]) -> list[str]:
    """The one thing that each image counts for: its name; or its set of names, or of a rare set the rarest name."""
    if all(image.label_set is None for image in images):
        return [image.label for image in images]
    names = Counter(name for image in images for name in image.labels)
    return [
        min(image.labels, key=lambda name: (names[name], name)) if all_of == image.labels else all_of[-1]
        for image, all_of in zip(images, strata(images), strict=True)
    ]


def _of_set(names: tuple[str, ...]) -> str:
    return "".join(f"{name}{BETWEEN_NAMES}" for name in names) or BETWEEN_NAMES
