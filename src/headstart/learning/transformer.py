"""`FeatureExtractor`: the features of a frozen network as a scikit-learn transformer, for heads of one's own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.errors import DataError, MissingExtraError
from headstart.learning.choosing import Candidate
from headstart.learning.given import all_of, examined, to_paths
from headstart.learning.seeing import Eyes, NoClock
from headstart.networks.backbone import AS_IS, FLIPS
from headstart.networks.catalogue import find_backbone
from headstart.networks.weights import find_weights
from headstart.progress import silent
from headstart.recipe import Recipe

try:
    from sklearn.base import BaseEstimator, TransformerMixin
except ImportError as error:
    raise MissingExtraError("FeatureExtractor", "scikit-learn", "sklearn") from error

_IMAGE_DIMENSIONS = 4


class FeatureExtractor(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Paths or pixels of images to the mean and the maximum of every channel of every stage of a frozen network.

    There is nothing to fit. What is computed is kept in the store, so each image is computed once.

    Args:
        backbone: Keras's name.
        weights: "auto", "imagenet", "kerashub", "packaged", "none" or a path.
        image_size: the side in pixels; None: the network's own.
        views: "one", or "flips": averaged with the mirrored views.
        seed: of random weights.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.preprocessing import StandardScaler
        >>> make_pipeline(FeatureExtractor(), StandardScaler(), LogisticRegression()).fit(paths, labels)
        ... # doctest: +SKIP
    """

    def __init__(
        self,
        backbone: str = "MobileNetV2",
        *,
        weights: str = "auto",
        image_size: int | None = None,
        views: str = "one",
        seed: int = 0,
    ) -> None:
        """See the class."""
        self.backbone = backbone
        self.weights = weights
        self.image_size = image_size
        self.views = views
        self.seed = seed

    def fit(self, X: Any, y: Any = None) -> FeatureExtractor:  # noqa: N803
        """Check the parameters; nothing is learnt.

        Raises:
            HeadstartError: there is no such network, size or view.
        """
        if self.views not in ("one", "flips"):
            raise DataError(f"views must be one or flips; got '{self.views}'.")
        Recipe(image_size=self.image_size, seed=self.seed)
        find_backbone(self.backbone)
        return self

    def transform(self, X: Any) -> npt.NDArray[np.float32]:  # noqa: N803
        """The features, (n, d) float32.

        Args:
            X: (n,) paths, or pixels (n, h, w, 3) uint8, which are resized as files are.

        Raises:
            DataError: an image cannot be used.
        """
        self.fit(X)
        if getattr(X, "ndim", 0) == _IMAGE_DIMENSIONS:
            return self._of_pixels(np.asarray(X))
        images = examined(to_paths(X), None)
        spec = find_backbone(self.backbone)
        eyes = Eyes(spec, find_weights(spec, self.weights), self.seed, NoClock(), silent)
        size = eyes.sizes(Recipe(image_size=self.image_size))[0]
        candidate = Candidate(size, FLIPS if self.views == "flips" else AS_IS)
        if not images:
            return np.zeros((0, sum(eyes.blocks(candidate))), np.float32)
        found: npt.NDArray[np.float32] = all_of(eyes.look(images, candidate)).values.mean(axis=1)
        return found

    def _of_pixels(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """As files without loss, so that they go the way that all images go."""
        if pixels.dtype != np.uint8 or pixels.shape[-1] != 3:
            raise DataError(f"Expected pixels (n, h, w, 3) of uint8; got {pixels.shape} of {pixels.dtype}.")
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{number}.png" for number in range(len(pixels))]
            for path, each in zip(paths, pixels, strict=True):
                Image.fromarray(each).save(path, compress_level=1)
            return self.transform(paths)

    def __sklearn_is_fitted__(self) -> bool:
        """There is nothing to fit."""
        return True

    def __sklearn_tags__(self) -> Any:
        """Paths, one for each image."""
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.requires_fit = False
        return tags
