"""What a tail learns from and is judged on: which images, in which order and views, weighed and mixed how."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from headstart.learning.class_weights import ClassWeights
from headstart.learning.held_out import HeldOut
from headstart.learning.material import Material, Numbers
from headstart.networks.backend import keras

_SMALLEST = 1e-12
_AT_ONCE = 16

Random = np.random.Generator
Batch = dict[str, Any]
Made = TypeVar("Made")


@dataclasses.dataclass(frozen=True)
class Lessons:
    """Images with their labels.

    Attributes:
        material: all images.
        labels: (n,) class numbers.
        num_classes: of them.
        train: numbers of the images to learn from.
        val: of those to judge by; may be empty, then a course runs to its end.
        class_weights: how much each class counts; None: each image counts like any other.
    """

    material: Material
    labels: Numbers
    num_classes: int
    train: Numbers
    val: Numbers
    class_weights: ClassWeights | None = None

    def shown(self, seed: int, epoch: int) -> tuple[Numbers, Numbers]:
        """The order of the training images in an epoch, and the view that each is shown in."""
        random = np.random.default_rng([seed, epoch])
        order = random.permutation(self.train)
        return order, random.integers(self.material.num_views, size=len(order))

    def batches(self, seed: int, epoch: int, batch_size: int, mixup: float = 0.0) -> Callable[[int], Batch]:
        """The batches of an epoch by their number, settled by the seed: see `batch`."""
        order, views = self.shown(seed, epoch)

        def batch(number: int) -> Batch:
            these = slice(number * batch_size, (number + 1) * batch_size)
            return self.batch(order[these], views[these], np.random.default_rng([seed, epoch, number]), mixup)

        return batch

    def batch(self, images: Numbers, views: Numbers, random: Random, mixup: float = 0.0) -> Batch:
        """What ``keras.Model.train_on_batch`` takes: images, varied a little, what is on them, and how much they count.

        Args:
            images: their numbers.
            views: of each.
            random: settles how they are varied and mixed.
            mixup: the two parameters of the beta distribution from which the share of another image is drawn that is
                mixed into each; 0: none is. Zhang et al. 2018, https://arxiv.org/abs/1710.09412; where the tail takes
                activations, those are mixed: Verma et al. 2019, https://arxiv.org/abs/1806.05236.
        """
        inputs = self.material.batch(images, views, random)
        labels = self.labels[images]
        targets = np.eye(self.num_classes, dtype=np.float32)[labels]
        weights = self.class_weights.of_images(labels).astype(np.float32) if self.class_weights else None
        if mixup:
            share, others = np.float32(random.beta(mixup, mixup)), random.permutation(len(images))
            inputs = [share * each + (1 - share) * each[others] for each in inputs]
            targets = share * targets + (1 - share) * targets[others]
        return {"x": one_or_all(inputs), "y": targets, "sample_weight": weights}

    def answers(self, model: keras.Model) -> HeldOut:
        """What a model says of the validation images, all views together: the mean of the logits, as averaged features
        give it.
        """
        return self._answers(model, self.material.num_views)

    def quick_answers(self, model: keras.Model) -> HeldOut:
        """What it says of them in the first view alone, as sure of itself as they bear out: see `HeldOut.sharpened`.

        That is enough to see how a training goes. Smoothed labels make a network say less than it knows, the more so
        the more it knows.
        """
        return self._answers(model, 1).sharpened(self.labels[self.val])

    def _answers(self, model: keras.Model, num_views: int) -> HeldOut:
        if not len(self.val):
            return HeldOut.nothing()
        at_once = min(_AT_ONCE, len(self.val))
        portions = [self.val[start : start + at_once] for start in range(0, len(self.val), at_once)]
        logits = np.concatenate(
            [
                np.mean([self._logits(model, portion, view, at_once) for view in range(num_views)], axis=0)
                for portion in portions
            ]
        )
        labels = self.labels[self.val]
        return HeldOut.of(logits, labels, self.class_weights.judging(labels) if self.class_weights else None)

    def _logits(self, model: keras.Model, images: Numbers, view: int, at_once: int) -> npt.NDArray[np.float64]:
        padded = np.resize(images, at_once)  # One shape, so that no backend compiles twice.
        inputs = self.material.batch(padded, np.full(at_once, view))
        each = np.asarray(model.predict_on_batch(one_or_all(inputs)), np.float64)
        return np.asarray(np.log(each + _SMALLEST)[: len(images)])


def prepared_ahead(make: Callable[[int], Made], numbers: Iterable[int]) -> Iterator[Made]:
    """What is made of each number, in order; the next is made in a thread while the one before is used."""
    with ThreadPoolExecutor(1) as pool:
        waiting: Future[Made] | None = None
        for number in numbers:
            following = pool.submit(make, number)
            if waiting:
                yield waiting.result()
            waiting = following
        if waiting:
            yield waiting.result()


def one_or_all(inputs: list[npt.NDArray[np.float32]]) -> Any:
    """What a model of as many inputs takes."""
    return inputs[0] if len(inputs) == 1 else inputs
