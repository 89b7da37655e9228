"""How a frozen network sees images: at which size and in which views, and the features it has of them then."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from headstart.errors import DataError
from headstart.features.extract import FeatureExtractor, Features
from headstart.features.pooling import pooled_blocks
from headstart.learning.choosing import Candidate, Choice, choose_candidate
from headstart.learning.logistic import LinearHead, fit_linear_head
from headstart.networks.planned import PlannedBackbone
from headstart.networks.rows import BackboneSpec
from headstart.networks.weights import Weights
from headstart.pictures.folder import ImageFile
from headstart.pictures.split import stratified_subset, unit_numbers
from headstart.progress import Progress
from headstart.recipe import Recipe, candidate_sizes


class Clock(Protocol):
    """Something that adds up the seconds of a step."""

    def measures(self, step: str) -> AbstractContextManager[None]:
        """Add what happens inside to a step."""
        ...


class Eyes:
    """A frozen network at whatever size it is asked for, and a count of what it had to compute.

    Attributes:
        spec: its row of the catalogue.
        weights: where its weights come from.
        progress: told how far it is.
    """

    def __init__(
        self, spec: BackboneSpec, weights: Weights, output: str, seed: int, clock: Clock, progress: Progress
    ) -> None:
        """Take a network; nothing is built yet.

        Args:
            spec: its row of the catalogue.
            weights: from `find_weights`.
            output: of it; see `features.pooling.feature_model`.
            seed: of random weights.
            clock: counts the seconds of looking as "features".
            progress: told how far it is.
        """
        self.spec, self.weights, self._clock, self.progress = spec, weights, clock, progress
        self._output, self._seed = output, seed
        self._plans: dict[int, PlannedBackbone] = {}
        self._computed: set[str] = set()
        self._seconds, self._num_passes = 0.0, 0
        self._extractors: dict[int, FeatureExtractor] = {}

    @property
    def fingerprint(self) -> str:
        """Of the network's weights."""
        return next(iter(self._plans.values())).fingerprint

    def plan(self, size: int) -> PlannedBackbone:
        """The network at a size."""
        if size not in self._plans:
            self._plans[size] = PlannedBackbone(self.spec, self.weights, size, seed=self._seed)
        return self._plans[size]

    def blocks(self, size: int) -> tuple[int, ...]:
        """How many features each mean and each maximum has."""
        plan = self.plan(size)
        return pooled_blocks(plan.stages, has_token=plan.ends_in_tokens)

    def look(self, images: Sequence[ImageFile], candidate: Candidate, step: str = "Computing features") -> Features:
        """The features of images, from the store or computed."""
        size = candidate.image_size
        if size not in self._extractors:
            self._extractors[size] = FeatureExtractor(self.plan(size), self._output)
        with self._clock.measures("features"):
            features = self._extractors[size].extract(images, candidate.views, step=step, progress=self.progress)
        self._computed |= features.computed
        if features.num_passes:
            self._num_passes += features.num_passes
            self._seconds += features.seconds
        return features

    def counts(self, images: Sequence[ImageFile]) -> dict[str, Any]:
        """How many of some images were computed and how many were there, and how fast."""
        computed = sum(image.name in self._computed for image in images)
        speed = self._num_passes / self._seconds if self._seconds else 0.0
        return {"computed": computed, "reused": len(images) - computed, "images_per_second": round(speed, 1)}


def choose_how_to_see(images: Sequence[ImageFile], class_names: Sequence[str], eyes: Eyes, recipe: Recipe) -> Choice:
    """Image size and views: as asked for, or tried on a part of the training images.

    Args:
        images: to learn from.
        class_names: in order.
        eyes: the network.
        recipe: what was asked for.

    Raises:
        DataError: none of the images that are tried can be decoded.
    """
    native = eyes.weights.fitting_size(eyes.spec.image_size)
    if recipe.image_size is not None:
        sizes: tuple[int, ...] = (eyes.weights.fitting_size(recipe.image_size),)
    elif recipe.head == "flatten":
        sizes = (native,)
    else:
        sizes = tuple(dict.fromkeys(eyes.weights.fitting_size(size) for size in candidate_sizes(eyes.spec.image_size)))
    views = "one" if recipe.head == "flatten" else recipe.views

    def fit(candidate: Candidate, count: int) -> LinearHead:
        part = _part_of(images, count, recipe.seed)
        features = eyes.look(part, candidate, "Trying sizes and views")
        failed = {each.name for each in features.failures}
        part = [image for image in part if image.name not in failed]
        if not part:
            first = features.failures[0]
            raise DataError(
                f"None of the {len(failed)} images that were tried can be decoded; the first is {first.name}: "
                f"{first.reason}."
            )
        labels = np.array([class_names.index(image.label) for image in part])
        return fit_linear_head(
            features.values,
            labels,
            len(class_names),
            unit_numbers(part),
            seed=recipe.seed,
            blocks=eyes.blocks(candidate.image_size),
        )

    return choose_candidate(sizes, views, fit)


def _part_of(images: Sequence[ImageFile], count: int, seed: int) -> list[ImageFile]:
    chosen = stratified_subset([image.label for image in images], [image.sha256 for image in images], count, seed)
    return [images[index] for index in chosen]
