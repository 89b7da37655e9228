"""Two frozen networks that see together: their features side by side under one linear head.

What one network has not learnt another may have. But two cost twice as much for every picture there will ever be, so
they are taken only where they are better than either alone beyond noise, on the same images and folds. The features
come from the store, where the comparison left them; they are those of the image as it is, at one size for both.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from headstart.features.pooling import feature_model, pooled_features
from headstart.learning.choosing import Candidate
from headstart.learning.heads import linear_layer
from headstart.learning.held_out import HeldOut
from headstart.learning.job import Fitted, Job
from headstart.learning.logistic import LinearHead
from headstart.learning.seeing import Eyes
from headstart.networks.backbone import AS_IS, Backbone
from headstart.networks.backend import keras

_LEAST_STANDARD_ERRORS = 1.0


@dataclasses.dataclass(frozen=True)
class Alone:
    """What came of one network, and a sentence on why it sees the images as it does."""

    fitted: Fitted
    sentence: str


@dataclasses.dataclass(frozen=True)
class Joined:
    """What is shipped.

    Attributes:
        fitted: the classifier.
        candidate: how its networks see the images.
        sees: which they are: one, or two.
        note: how the head was fitted and what was chosen, with figures.
    """

    fitted: Fitted
    candidate: Candidate
    sees: tuple[Eyes, ...]
    note: str


def join(job: Job, eyes: Eyes, partners: Sequence[Eyes], alone: Alone) -> Joined:
    """Try what a network sees together with another, at the same image size.

    Args:
        job: what is to be learnt.
        eyes: the network.
        partners: the other, or nobody.
        alone: what came of the network alone: shipped where there is no other, or two are no surer gain than noise.
    """
    why = ""
    for partner in partners:
        pair = _Pair(eyes, partner, Candidate(job.candidate.image_size, AS_IS))
        why = pair.hindrance(alone.fitted)
        if not why:
            found, why = pair.learn(job, alone.fitted)
            if found:
                return Joined(found, pair.candidate, (eyes, partner), f"{found.note} {why}")
    note = " ".join(filter(None, (alone.fitted.note, alone.sentence, why)))
    return Joined(alone.fitted, job.candidate, (eyes,), note)


@dataclasses.dataclass(frozen=True)
class _Pair:
    """Two networks, and how both see."""

    first: Eyes
    second: Eyes
    candidate: Candidate

    @property
    def names(self) -> str:
        return f"{self.first.spec.name} and {self.second.spec.name}"

    def hindrance(self, alone: Fitted) -> str:
        """A sentence on why they cannot be tried; nothing where they can."""
        size, spec = self.candidate.image_size, self.second.spec
        if self.second.weights.fitting_size(size) != size or size < spec.smallest_size or size % spec.size_step:
            how = f"{spec.name} does not take images of exactly {size} pixels"
            return f"{self.names} were not tried together: {how}."
        if not len(alone.held_out):
            return f"{self.names} were not tried together: there are too few images to judge it by."
        return ""

    def learn(self, job: Job, alone: Fitted) -> tuple[Fitted | None, str]:
        """The classifier with both, if it is surely better than with one; and a sentence on that."""
        both = (self.first, self.second)
        values = [each.look(job.folder.images, self.candidate).values for each in both]
        blocks = [each.blocks(self.candidate) for each in both]
        together = np.concatenate(values, axis=2)
        pair = job.weighed_head(job.lesson(together, (*blocks[0], *blocks[1]), "train", "val"))
        other = job.weighed_head(job.lesson(values[1], blocks[1], "train", "val")).head
        singles = {self.first.spec.name: alone.held_out, self.second.spec.name: other.held_out}
        is_taken, sentence = _verdict(self.names, pair.head.held_out, singles)
        if not is_taken:
            return None, sentence
        first, second = (each.plan(self.candidate.image_size) for each in both)
        note = f"Logistic regression on {together.shape[-1]:,} features of {self.names}; its strength"
        note = f"{note} {pair.head.strength:.3g} was chosen by cross-validation."
        return Fitted(
            grow=functools.cache(lambda: grow_paired_head(first.build(), second.build(), pair.head)),
            test_probabilities=pair.head.probabilities(together[job.is_in("test")]),
            history=(),
            note=" ".join(filter(None, (note, pair.sentence))),
            held_out=pair.head.held_out,
        ), sentence


def _verdict(names: str, pair: HeldOut, singles: Mapping[str, HeldOut]) -> tuple[bool, str]:
    """Whether two networks are better than each alone, and a sentence with the figures."""
    name, best = min(singles.items(), key=lambda each: each[1].loss)
    ahead = best.standard_errors_behind(pair)
    is_taken = ahead > _LEAST_STANDARD_ERRORS and pair.accuracy >= best.accuracy
    verdict = "so both are used" if is_taken else "no surer gain than noise, so one is used"
    if ahead > _LEAST_STANDARD_ERRORS and not is_taken:
        verdict = "but fewer images right, so one is used"
    return is_taken, (
        f"{names} together: cross-validated log loss {pair.loss:.4f} and {pair.accuracy:.1%} right, against "
        f"{best.loss:.4f} and {best.accuracy:.1%} of {name} alone, {ahead:.1f} standard errors less; {verdict}."
    )


def grow_paired_head(first: Backbone, second: Backbone, head: LinearHead) -> keras.Model:
    """Put a fitted linear head on two backbones of one image size: pixels -> probabilities (n, num_classes).

    The second lies in the graph as a model of its own, since layers of two networks may have the same names.
    """
    pixels = first.model.inputs[0]
    parts = [pooled_features(first), feature_model(second)(pixels)]
    together = keras.layers.Concatenate(name="features_of_both")(parts)
    name = f"{first.spec.name}_and_{second.spec.name}_linear"
    return keras.Model(pixels, linear_layer(head)(together), name=name)
