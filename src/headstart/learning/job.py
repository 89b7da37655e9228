"""What a classifier is trained on, and what comes of it, between the steps of `training`."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.learning.choosing import Candidate
from headstart.pictures.folder import ImageFolder
from headstart.pictures.labels import class_numbers
from headstart.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to be learnt.

    Attributes:
        folder: the images, all of which can be decoded.
        splits: of each of them.
        recipe: what was asked for.
        candidate: how the images are seen.
    """

    folder: ImageFolder
    splits: tuple[str, ...]
    recipe: Recipe
    candidate: Candidate

    @property
    def num_classes(self) -> int:
        """Of all images."""
        return len(self.folder.class_names)

    def labels(self) -> npt.NDArray[np.int64]:
        """(n,) class numbers; or (n, num_classes) of 0 and 1 for multi-label data."""
        return class_numbers(self.folder.images, self.folder.class_names)

    def is_in(self, *sides: str) -> npt.NDArray[np.bool_]:
        """(n,) whether each image is in one of those splits."""
        return np.isin(self.splits, sides)


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What was learnt.

    Attributes:
        model: pixels -> probabilities.
        test_probabilities: (num_test, num_classes).
        history: one row per epoch, if there were any.
        note: how, in a sentence.
        fine_tuned: the lowest stage that was tuned, or "all"; None where the network stayed as it was.
    """

    model: Any
    test_probabilities: npt.NDArray[np.float64]
    history: tuple[dict[str, Any], ...]
    note: str
    fine_tuned: str | None = None
