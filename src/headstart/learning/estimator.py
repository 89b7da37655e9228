"""`HeadstartClassifier`: frozen features and their head as a scikit-learn estimator over image paths.

Features come from the store, so that a cross-validation computes each image once, however many folds there are.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt

from headstart.errors import DataError, MissingExtraError
from headstart.learning.given import all_of, examined, to_paths
from headstart.learning.heads import grow_linear_head
from headstart.learning.logistic import LinearHead
from headstart.learning.seeing import Eyes, Lesson, NoClock, choose_how_to_see
from headstart.networks.backend import keras
from headstart.networks.catalogue import find_backbone
from headstart.networks.weights import find_weights
from headstart.pictures.split import unit_numbers
from headstart.progress import silent
from headstart.recipe import Recipe
from headstart.scoring.multi_label import SAID_FROM

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.multiclass import check_classification_targets, type_of_target
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise MissingExtraError("HeadstartClassifier", "scikit-learn", "sklearn") from error


class HeadstartClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A frozen pretrained network and a logistic regression on its stages, over paths of images.

    Args:
        backbone: Keras's name.
        weights: "auto", "imagenet", "kerashub", "packaged", "none" or a path.
        image_size: the side in pixels; None: chosen on the training images.
        views: "one", "flips" (averaged with the mirror images), "many" (the same at two scales) or "auto" (one or many,
            chosen likewise).
        class_weights: "auto" (where one class has three times the images of another, weighed, if that makes
            probabilities better by cross-validation), "balanced" (each class counts alike) or "off".
        seed: of the folds in which strength, size and views are chosen, and of random weights.

    Attributes:
        classes_: the classes, sorted, or the numbers of an indicator matrix's columns; the order of the columns of
            `predict_proba`.
        image_size_: the side in pixels that is used.
        views_: the names of the views that are averaged.
        model_: the same as a plain ``keras.Model``: pixels (n, size, size, 3) uint8 -> probabilities (n, num_classes).
            Built when it is asked for; `predict_proba` answers from stored features.

    Example:
        >>> from sklearn.model_selection import cross_val_score
        >>> cross_val_score(HeadstartClassifier(image_size=225), paths, labels)  # doctest: +SKIP
    """

    def __init__(
        self,
        backbone: str = "MobileNetV2",
        *,
        weights: str = "auto",
        image_size: int | None = None,
        views: str = "auto",
        class_weights: str = "auto",
        seed: int = 0,
    ) -> None:
        """See the class."""
        self.backbone = backbone
        self.weights = weights
        self.image_size = image_size
        self.views = views
        self.class_weights = class_weights
        self.seed = seed

    def fit(self, X: Any, y: Any) -> HeadstartClassifier:  # noqa: N803
        """Learn from images.

        Args:
            X: (n,) paths.
            y: (n,) classes, of any type that can be sorted; or (n, k) of 0 and 1, where an image may have several names
                or none (scikit-learn's multilabel indicator).

        Raises:
            DataError: a file cannot be read, there is one class only, or as many paths as classes there are not.
        """
        paths, y = to_paths(X), np.asarray(y)
        several = y.ndim == 2 and y.shape[1] > 1
        if y.shape[:1] != (len(paths),) or (y.ndim != 1 and not several):
            raise DataError(f"There are {len(paths)} paths, but the classes have the shape {y.shape}.")
        check_classification_targets(y)
        classes, numbers = _numbered(y, type_of_target(y))
        names = [str(number) for number in range(len(classes))]
        images = examined(
            paths,
            [tuple(names[each] for each in np.flatnonzero(row)) for row in numbers]
            if several
            else [names[each] for each in numbers],
        )
        self._network = (self.backbone, self.weights, self.seed)
        self._eyes_cache: Eyes | None = None
        eyes = self._eyes()
        recipe = Recipe(
            backbone=self.backbone,
            weights=self.weights,
            image_size=self.image_size,
            views=self.views,
            class_weights=self.class_weights,
            seed=self.seed,
        )
        candidate = choose_how_to_see(images, names, eyes, recipe).candidate
        features = all_of(eyes.look(images, candidate))
        lesson = Lesson(features.values, numbers, len(classes), unit_numbers(images), eyes.blocks(candidate))
        self.classes_ = classes
        self.image_size_, self.views_ = candidate.image_size, candidate.views
        self._candidate = candidate
        self._head: LinearHead = lesson.weighed_head(self.class_weights, self.seed).head
        return self

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """(n,) paths to (n, num_classes) probabilities.

        Raises:
            DataError: a file cannot be read.
        """
        check_is_fitted(self)
        images = examined(to_paths(X), None)
        if not images:
            return np.zeros((0, len(self.classes_)))
        features = all_of(self._eyes().look(images, self._candidate))
        return self._head.probabilities(features.values)

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """(n,) paths to the (n,) most probable classes; or to (n, k) of 0 and 1, as it was fitted."""
        probabilities = self.predict_proba(X)
        if self._head.is_multi_label:
            return (probabilities >= SAID_FROM).astype(np.int64)
        return np.asarray(self.classes_[probabilities.argmax(axis=1)])

    @property
    def model_(self) -> keras.Model:
        """The classifier as a plain Keras model."""
        check_is_fitted(self, "classes_")
        backbone = self._eyes().plan(self.image_size_).build(self.views_)
        return grow_linear_head(backbone, self._head, self._candidate.output)

    def _eyes(self) -> Eyes:
        """The network that was fitted on, whatever the parameters are by now."""
        if getattr(self, "_eyes_cache", None) is None:
            backbone, source, seed = self._network
            spec = find_backbone(backbone)
            self._eyes_cache = Eyes(spec, find_weights(spec, source), seed, NoClock(), silent)
        return cast(Eyes, self._eyes_cache)

    def __getstate__(self) -> dict[str, Any]:
        """Without the network, which is found again by its name."""
        return {name: value for name, value in super().__getstate__().items() if name != "_eyes_cache"}

    def __sklearn_is_fitted__(self) -> bool:
        """Whether `fit` has been called."""
        return hasattr(self, "_head")

    def __sklearn_tags__(self) -> Any:
        """Paths, one for each image."""
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.classifier_tags.multi_label = True
        return tags


def _numbered(y: npt.NDArray[Any], kind: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """The classes, and the number of each image's; of an indicator matrix its columns, and the matrix.

    Raises:
        DataError: there is nothing to tell apart, or the matrix is none of 0 and 1.
    """
    if y.ndim == 2:
        if kind != "multilabel-indicator":
            raise DataError(f"Expected classes (n,), or (n, k) of 0 and 1 alone; got {y.shape}, which is {kind}.")
        return np.arange(y.shape[1]), y.astype(np.int64)
    classes, numbers = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise DataError(f"There is one class only, {classes[0]!r}; at least 2 are needed to tell apart.")
    return classes, numbers.astype(np.int64)
