"""What scikit-learn's tools hand over, as images: a list, an array or a column of paths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.errors import DataError, ImageError
from headstart.features.extract import Features
from headstart.pictures.folder import BETWEEN_NAMES, ImageFile
from headstart.pictures.scan import examine


def to_paths(given: Any) -> list[Path]:
    """(n,) or (n, 1) paths, as lists, arrays or columns of a table."""
    if isinstance(given, (str, Path)):
        raise DataError(f"Expected a list of paths, one for each image; got the single path {given}.")
    values = np.asarray(given, dtype=object)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or not all(isinstance(value, (str, Path)) for value in values):
        raise DataError(f"Expected paths of images, of the shape (n,); got an array of the shape {values.shape}.")
    return [Path(value) for value in values]


def examined(paths: Sequence[Path], labels: Sequence[str | tuple[str, ...]] | None) -> list[ImageFile]:
    """What a scan says of files, whose order and number stay; each has a label, or a set of them, or neither.

    Raises:
        DataError: one of them cannot be used.
    """
    images = []
    for number, path in enumerate(paths):
        # Named by its place too, since one path may be given twice.
        label = labels[number] if labels else ""
        several = None if isinstance(label, str) else label
        joined = label if isinstance(label, str) else BETWEEN_NAMES.join(label)
        image = ImageFile(path, f"{number}: {path}", joined, "", label_set=several)
        try:
            images.append(examine(image))
        except ImageError as error:
            raise DataError(f"{path} cannot be used: {error}.") from error
    return images


def all_of(features: Features) -> Features:
    """Features of which none may be missing.

    Raises:
        DataError: one is.
    """
    if features.failures:
        first = features.failures[0]
        raise DataError(
            f"{first.name.partition(': ')[2]} cannot be used: {first.reason}. {len(features.failures)} in all."
        )
    return features
