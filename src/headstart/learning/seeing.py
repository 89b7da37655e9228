"""How a frozen network sees images: at which size and in which views, and the features it has of them then."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from headstart.errors import DataError
from headstart.features.extract import Extractor, Features
from headstart.features.latency import glance
from headstart.features.pooling import ACTIVATIONS, POOLED, has_two_scales, lower_model, pooled_blocks
from headstart.learning.choosing import Candidate, Choice, choose_candidate
from headstart.learning.held_out import HeldOut
from headstart.learning.kept_heads import linear_head
from headstart.learning.logistic import FREE, LinearHead, Restraint
from headstart.learning.nearest import fit_nearest_head
from headstart.learning.ridge import gain_from_all, leave_one_out
from headstart.learning.weighing import Weighed, fit_weighed
from headstart.networks.backbone import AS_IS
from headstart.networks.engine import Engine, make_engine
from headstart.networks.planned import PlannedBackbone
from headstart.networks.rows import BackboneSpec
from headstart.networks.weights import Weights
from headstart.pictures.folder import ImageFile
from headstart.pictures.labels import class_numbers, stratum
from headstart.pictures.split import stratified_subset, unit_numbers
from headstart.progress import Progress
from headstart.recipe import Recipe, candidate_sizes

# Four views at two scales of MobileNetV2 are 220 kB an image, which the head has in memory, three times what one scale
# takes; and the more images there are, the less is left to gain.
_MOST_AT_TWO_SCALES = 5000


class Clock(Protocol):
    """Something that adds up the seconds of a step."""

    def measures(self, step: str) -> AbstractContextManager[None]:
        """Add what happens inside to a step."""
        ...


class NoClock:
    """For those who do not want to know."""

    def measures(self, step: str) -> AbstractContextManager[None]:
        """Nothing is added."""
        return nullcontext()


class Eyes:
    """A frozen network at whatever size it is asked for, and a count of what it had to compute.

    Attributes:
        spec: its row of the catalogue.
        weights: where its weights come from.
        progress: told how far it is.
    """

    def __init__(self, spec: BackboneSpec, weights: Weights, seed: int, clock: Clock, progress: Progress) -> None:
        """Take a network; nothing is built yet.

        Args:
            spec: its row of the catalogue.
            weights: from `find_weights`.
            seed: of random weights.
            clock: counts the seconds of looking as "features".
            progress: told how far it is.
        """
        self.spec, self.weights, self._clock, self.progress = spec, weights, clock, progress
        self._seed = seed
        self._plans: dict[int, PlannedBackbone] = {}
        self._computed: set[str] = set()
        self._seconds, self._num_passes = 0.0, 0
        self._extractors: dict[tuple[int, str], Extractor] = {}

    @property
    def fingerprint(self) -> str:
        """Of the network's weights."""
        return next(iter(self._plans.values())).fingerprint

    def plan(self, size: int) -> PlannedBackbone:
        """The network at a size."""
        if size not in self._plans:
            self._plans[size] = PlannedBackbone(self.spec, self.weights, size, seed=self._seed)
        return self._plans[size]

    def sizes(self, recipe: Recipe) -> tuple[int, ...]:
        """The sizes to try, the network's own first: or the one that was asked for, as near as its weights allow."""
        wanted = (recipe.image_size,) if recipe.image_size else candidate_sizes(self.spec.image_size)
        return tuple(dict.fromkeys(self.weights.fitting_size(size) for size in wanted))

    def rest(self) -> None:
        """Let go of networks and engines, which take hundreds of megabytes; they are made again when needed."""
        for extractor in self._extractors.values():
            extractor.rest()
        for plan in self._plans.values():
            plan.forget()

    def milliseconds(self, size: int) -> float:
        """How long an image takes on this machine, once the network has been running."""
        return glance(self._extractor(size, POOLED).engine(self.progress), size)

    def blocks(self, candidate: Candidate) -> tuple[int, ...]:
        """How many features each mean and each maximum has, and which of them are not heard."""
        plan = self.plan(candidate.image_size)
        return pooled_blocks(plan.stages, candidate.output, has_token=plan.ends_in_tokens, without=candidate.without)

    def look(self, images: Sequence[ImageFile], candidate: Candidate, step: str = "Computing features") -> Features:
        """The features of images, from the store or computed."""
        extractor = self._extractor(candidate.image_size, candidate.output)
        with self._clock.measures("features"):
            features = extractor.extract(images, candidate.views, step=step, progress=self.progress)
        self._computed |= features.computed
        if features.num_passes:
            self._num_passes += features.num_passes
            self._seconds += features.seconds
        return features

    def activations(self, images: Sequence[ImageFile], candidate: Candidate, cut: str) -> Features:
        """The activations at a stage's cut, and the pooled stages, in the candidate's views."""
        extractor = Extractor(self.plan(candidate.image_size), cut, POOLED)
        step = f"Computing activations of {cut}"
        return extractor.extract(images, candidate.views, step=step, progress=self.progress)

    def lower_part(self, candidate: Candidate, cut: str) -> Engine:
        """What runs the network up to a stage's cut; see `features.pooling.lower_model`."""
        return make_engine(lambda: lower_model(self.plan(candidate.image_size).build(), cut))

    def _extractor(self, size: int, output: str) -> Extractor:
        if (size, output) not in self._extractors:
            self._extractors[size, output] = Extractor(self.plan(size), output)
        return self._extractors[size, output]

    def counts(self, images: Sequence[ImageFile], *others: Eyes) -> dict[str, Any]:
        """How many of some images were computed, by this network or others, how many were there, and how fast."""
        every = (self, *others)
        computed = sum(any(image.name in each._computed for each in every) for image in images)
        seconds = sum(each._seconds for each in every)
        speed = sum(each._num_passes for each in every) / seconds if seconds else 0.0
        return {"computed": computed, "reused": len(images) - computed, "images_per_second": round(speed, 1)}


def choose_how_to_see(images: Sequence[ImageFile], class_names: Sequence[str], eyes: Eyes, recipe: Recipe) -> Choice:
    """Image size, views and stages: as asked for, or tried on a part of the training images.

    Args:
        images: to learn from.
        class_names: in order.
        eyes: the network.
        recipe: what was asked for.

    Raises:
        DataError: none of the images that are tried can be decoded.
    """
    sizes = eyes.sizes(recipe)
    if recipe.head == "flatten":
        return Choice(Candidate(sizes[0], AS_IS, ACTIVATIONS), "")

    def fit(candidate: Candidate, count: int) -> LinearHead:
        part = part_of(images, count, recipe.seed)
        return learn(part, class_names, eyes, candidate, "Trying sizes and views").linear_head(recipe.seed)

    affordable = len(images) <= _MOST_AT_TWO_SCALES or recipe.views == "many"
    two_scales = affordable and has_two_scales(eyes.spec, sizes[0])
    # A nearest mean or an mlp is not what is tried here.
    stages = [stage.name for stage in eyes.plan(sizes[0]).stages] if recipe.head == "linear" else []
    return choose_candidate(sizes, recipe.views, fit, two_scales=two_scales, stages=stages)


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What a head learns from; see `fit_linear_head`."""

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    num_classes: int
    units: npt.NDArray[np.int64]
    blocks: tuple[int, ...]

    def linear_head(self, seed: int, restraint: Restraint = FREE) -> LinearHead:
        """The head that is shipped; see `kept_heads`."""
        return linear_head(
            self.features,
            self.labels,
            self.num_classes,
            self.units,
            seed=seed,
            blocks=self.blocks,
            restraint=restraint,
        )

    def weighed_head(self, choice: str, seed: int) -> Weighed:
        """That head with its classes weighed or not; see `fit_weighed`."""
        return fit_weighed(
            choice,
            self.labels,
            self.num_classes,
            lambda weights: self.linear_head(seed, Restraint(class_weights=weights)),
        )

    def nearest_head(self, seed: int) -> LinearHead:
        """The nearest class mean instead."""
        return fit_nearest_head(self.features, self.labels, self.num_classes, self.units, seed=seed, blocks=self.blocks)

    def cross_validated(self, seed: int) -> HeldOut:
        """What that head says of images that it did not learn from."""
        held_out = self.linear_head(seed).held_out
        if not len(held_out):
            return held_out
        gain = gain_from_all(self.features, self.labels, self.num_classes, self.units, seed=seed, blocks=self.blocks)
        return dataclasses.replace(held_out, gain=gain)

    def leave_one_out(self) -> HeldOut:
        """The quick look."""
        return leave_one_out(self.features, self.labels, self.num_classes, self.units, blocks=self.blocks)


def learn(
    images: Sequence[ImageFile], class_names: Sequence[str], eyes: Eyes, candidate: Candidate, step: str
) -> Lesson:
    """Look at images; those that cannot be decoded are left out.

    Raises:
        DataError: none of them can be decoded.
    """
    features = eyes.look(images, candidate, step)
    failed = {each.name for each in features.failures}
    seen = [image for image in images if image.name not in failed]
    if not seen:
        first = features.failures[0]
        raise DataError(
            f"None of the {len(failed)} images that were tried can be decoded; the first is {first.name}: "
            f"{first.reason}."
        )
    labels = class_numbers(seen, class_names)
    blocks = eyes.blocks(candidate)
    return Lesson(features.values, labels, len(class_names), unit_numbers(seen), blocks)


def part_of(images: Sequence[ImageFile], count: int, seed: int) -> list[ImageFile]:
    """A part of the images, each class in proportion; the same for the same seed."""
    chosen = stratified_subset(stratum(images), [image.sha256 for image in images], count, seed)
    return [images[index] for index in chosen]
