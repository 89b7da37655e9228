"""How much each class counts while a head is fitted, where a folder has many images of one and few of another."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]

UNBALANCED = 3.0
"""By how many times the largest class must outnumber the smallest for weights to be tried."""


@dataclasses.dataclass(frozen=True, eq=False)
class ClassWeights:
    """Weights of classes.

    Attributes:
        weights: (k,): by which the loss of each class's images is multiplied; over all images they are 1 on average.
        is_corrected: whether the logarithm of its weight is taken off each class's logit, which brings probabilities
            back to the classes as common as they are (King and Zeng 2001, "Logistic regression in rare events data",
            https://doi.org/10.1093/oxfordjournals.pan.a004868; Saerens et al. 2002, "Adjusting the outputs of a
            classifier to new a priori probabilities", https://doi.org/10.1162/089976602753284446).
        in_judging: whether held-out images are weighed likewise: then what is looked for is probabilities as they
            would be if each class were as common as its weight makes it.
    """

    weights: npt.NDArray[np.float64]
    is_corrected: bool = False
    in_judging: bool = False

    @staticmethod
    def balanced(labels: Labels, num_classes: int) -> ClassWeights:
        """By the inverse frequency of each class, n / (k n_class): each class counts alike, in judging too."""
        counts = _counts(labels, num_classes)
        return ClassWeights(counts.sum() / (num_classes * counts), in_judging=True)

    @staticmethod
    def alike(num_classes: int) -> ClassWeights:
        """Each image counts like any other."""
        return ClassWeights(np.ones(num_classes))

    @property
    def shift(self) -> npt.NDArray[np.float64]:
        """(k,) to be taken off the logits."""
        return np.log(self.weights) if self.is_corrected else np.zeros(len(self.weights))

    def of_images(self, labels: Labels) -> npt.NDArray[np.float64]:
        """(n,) how much each image counts; 1 where images may have several names, which are not weighed."""
        return self.weights[labels] if labels.ndim == 1 else np.ones(len(labels))

    def judging(self, labels: Labels) -> npt.NDArray[np.float64]:
        """(n,) by which the loss of each held-out image is multiplied."""
        return self.of_images(labels) if self.in_judging else np.ones(len(labels))


def times_larger(labels: Labels, num_classes: int) -> float:
    """How many times as many images the largest class has as the smallest."""
    counts = _counts(labels, num_classes)
    return float(counts.max() / counts.min())


def _counts(labels: Labels, num_classes: int) -> Labels:
    """(k,) how many images each class has; each has one at least."""
    return np.bincount(labels, minlength=num_classes)
