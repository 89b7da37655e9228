"""What a classifier is trained on, and what comes of it, between the steps of `training`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.learning.choosing import Candidate
from headstart.learning.class_weights import ClassWeights
from headstart.learning.held_out import HeldOut
from headstart.learning.seeing import Lesson
from headstart.learning.weighing import Weighed
from headstart.pictures.folder import ImageFolder
from headstart.pictures.labels import class_numbers
from headstart.pictures.split import unit_numbers
from headstart.recipe import AUTO, Recipe

FEWEST_JUDGES = 30
"""Validation images without which no stage is opened that was not asked for by name: harm that befalls one image in ten
passes thirty of them unseen once in twenty-four times, four of them two times in three."""


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

    @property
    def num_judges(self) -> int:
        """How many images there are to judge by whether tuning the network helps."""
        return int(self.is_in("val").sum())

    @property
    def is_tuned(self) -> bool:
        """Whether stages of the network are opened: one was named, or enough images can judge what comes of it."""
        return self.recipe.fine_tune != "off" and (self.recipe.fine_tune != AUTO or self.num_judges >= FEWEST_JUDGES)

    def class_weights(self) -> ClassWeights | None:
        """How much each class counts in everything, where they are to count alike."""
        if self.recipe.class_weights != "balanced":
            return None
        return ClassWeights.balanced(self.labels()[self.is_in("train", "val")], self.num_classes)

    def lesson(self, values: npt.NDArray[np.float32], blocks: tuple[int, ...], *sides: str) -> Lesson:
        """What a head learns from: the features (n, num_views, d) of the images in some splits."""
        learns = self.is_in(*sides)
        units = unit_numbers([image for image, mine in zip(self.folder.images, learns, strict=True) if mine])
        return Lesson(values[learns], self.labels()[learns], self.num_classes, units, blocks)

    def weighed_head(self, lesson: Lesson) -> Weighed:
        """The head that was asked for, its classes weighed as was asked for."""
        recipe = self.recipe
        if recipe.head == "nearest":  # Each class has one mean, however many images it has: that is balanced.
            return Weighed(lesson.nearest_head(recipe.seed))
        # Tuning does not correct for weights, and has to beat a head of its own kind.
        tried = "off" if self.is_tuned and recipe.class_weights == AUTO else recipe.class_weights
        return lesson.weighed_head(tried, recipe.seed)


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What was learnt.

    Attributes:
        grow: makes the model, pixels -> probabilities, once.
        test_probabilities: (num_test, num_classes).
        history: one row per epoch, if there were any.
        note: how, in a sentence.
        fine_tuned: the lowest stage that was tuned, or "all"; None where the network stayed as it was.
        held_out: what a head that was fitted at once says of images that it did not learn from.
        candidate: how the images are seen, where that is otherwise than the job says.
        rate_steps: of the tests of learning rates, if there were any.
        identity: a hash of all that decides the model; "" where it is not known before it is made.
    """

    grow: Callable[[], Any]
    test_probabilities: npt.NDArray[np.float64]
    history: tuple[dict[str, Any], ...]
    note: str
    fine_tuned: str | None = None
    held_out: HeldOut = dataclasses.field(default_factory=HeldOut.nothing)
    candidate: Candidate | None = None
    rate_steps: tuple[dict[str, Any], ...] = ()
    identity: str = ""
