"""What heads say of images that they did not learn from: the ground on which anything is chosen before the test."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

_USUAL_SHARPNESS = 0.5
"""The standard deviation of its logarithm, as one expects it before an image is seen: few images move it little."""

_FARTHEST_SHARPNESS = 1.5  # Of its logarithm.


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOut:
    """What is said of each image by what other images taught.

    Attributes:
        losses: (n,) what is lost on each image; empty where there were too few images to hold any out.
        right: (n,) whether the most likely class is the image's own.
        gain: by how much the head that learns from all images is right more often, about; 0 where that is not known.
        logs: (n, k) the logarithms of the probabilities, where they are kept.
        sharpness: by what the logits were multiplied; see `sharpened`.
        weights: (n,) by which the loss on each image was multiplied; None: by nothing.
    """

    losses: npt.NDArray[np.float64]
    right: npt.NDArray[np.bool_]
    gain: float = 0.0
    logs: npt.NDArray[np.float64] | None = None
    sharpness: float = 1.0
    weights: npt.NDArray[np.float64] | None = None

    @staticmethod
    def nothing() -> HeldOut:
        """Of no image."""
        return HeldOut(np.zeros(0), np.zeros(0, np.bool_))

    @staticmethod
    def of(
        logits: npt.NDArray[np.float64],
        labels: npt.NDArray[np.int64],
        weights: npt.NDArray[np.float64] | None = None,
    ) -> HeldOut:
        """What logits (n, k) say of images of the classes (n,), each of which counts as much as its weight (n,)."""
        logs = np.asarray(log_softmax(logits, axis=1))
        losses = -logs[np.arange(len(labels)), labels] * (1.0 if weights is None else weights)
        return HeldOut(losses, logs.argmax(axis=1) == labels, logs=logs, weights=weights)

    def sharpened(self, labels: npt.NDArray[np.int64]) -> HeldOut:
        """The same with its logits multiplied by the one number that makes the labels (n,) most likely.

        So one that is too sure of itself, or not sure enough, is judged by what it tells apart. It is the inverse of a
        temperature: Guo et al. 2017, https://arxiv.org/abs/1706.04599.
        """
        logs = self.logs
        if logs is None or not len(self):
            return self
        from scipy.optimize import minimize_scalar  # Slow to import, and few runs sharpen.

        def lost(log_sharpness: float) -> float:
            losses = HeldOut.of(np.exp(log_sharpness) * logs, labels, self.weights).losses
            return float(losses.sum() + (log_sharpness / _USUAL_SHARPNESS) ** 2 / 2)

        bounds = (-_FARTHEST_SHARPNESS, _FARTHEST_SHARPNESS)
        return self.multiplied(float(np.exp(minimize_scalar(lost, bounds=bounds, method="bounded").x)), labels)

    def multiplied(self, sharpness: float, labels: npt.NDArray[np.int64]) -> HeldOut:
        """The same with its logits multiplied by a number."""
        if self.logs is None:
            return self
        return dataclasses.replace(HeldOut.of(sharpness * self.logs, labels, self.weights), sharpness=sharpness)

    def __len__(self) -> int:
        """How many images were held out."""
        return len(self.losses)

    @property
    def loss(self) -> float:
        """The mean loss; not a number where no image was held out."""
        return float(self.losses.mean()) if len(self) else float("nan")

    @property
    def accuracy(self) -> float:
        """The share that is right; not a number where no image was held out."""
        return float(self.right.mean()) if len(self) else float("nan")

    def standard_errors_behind(self, other: HeldOut) -> float:
        """By how many standard errors the mean loss is above that of another on the same images.

        Both saw the same images, so what is hard about an image falls out of the difference.
        """
        gaps = self.losses - other.losses
        spread = float(gaps.std(ddof=1)) / np.sqrt(len(gaps)) if len(gaps) > 1 else 0.0
        mean = float(gaps.mean()) if len(gaps) else 0.0
        return mean / spread if spread else float(np.inf * np.sign(mean)) if mean else 0.0
