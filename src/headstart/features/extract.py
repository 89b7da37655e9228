"""Images -> features: what is stored is found in the store, the rest is computed in one pass and stored.

The features themselves are read from the store when somebody asks for their values.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from headstart.errors import UnknownNameError
from headstart.features.decoding import decode_ahead
from headstart.features.feature_pass import Job, run_jobs
from headstart.features.pooling import POOLED, feature_model
from headstart.features.store import FeatureKey, Found, Row
from headstart.machine import sums_bytes_in_full
from headstart.networks.backbone import Backbone
from headstart.networks.engine import Engine, engine_name, make_engine
from headstart.networks.planned import PlannedBackbone
from headstart.networks.precision import PRECISIONS, Precision
from headstart.pictures.decode import DECODER_VERSION
from headstart.pictures.folder import ImageFile, Skipped
from headstart.pictures.views import check_views
from headstart.progress import Progress, silent


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """The features of some images, on disk.

    Attributes:
        found: where they lie, for each output and view.
        usable: the content hashes of the images less the failures, in order.
        views: the names of the views.
        failures: images that could not be decoded.
        computed: names of the images for which anything had to be computed.
        num_passes: how many images (times views) went through the network.
        seconds: how long that took, once the engine was made.
    """

    found: Mapping[tuple[str, str], Found]
    usable: tuple[str, ...]
    views: tuple[str, ...]
    failures: tuple[Skipped, ...]
    computed: frozenset[str]
    num_passes: int
    seconds: float

    @functools.cached_property
    def values(self) -> npt.NDArray[np.float32]:
        """The first output in memory: (num_images, num_views, ...), in the order of the images less the failures."""
        return self.of(next(iter(self.found))[0])

    def of(self, output: str, start: int = 0, stop: int | None = None) -> Row:
        """An output in memory, of all images or of those from ``start`` to ``stop``: (num_images, num_views, ...)."""
        hashes = self.usable[start:stop]
        if not hashes:
            return np.zeros((0, len(self.views), 0), np.float32)
        return np.stack([self.found[output, view].rows(hashes) for view in self.views], axis=1)


class Extractor:
    """Computes and keeps the features of one frozen backbone at one image size."""

    def __init__(
        self,
        backbone: Backbone | PlannedBackbone,
        *outputs: str,
        precision: str = "fp32",
        calibration: Sequence[ImageFile] = (),
    ) -> None:
        """Take a backbone and which outputs of it; both it and the engine are made when the first image needs them.

        Args:
            backbone: a frozen network, or the plan of one.
            outputs: see `features.pooling.feature_model`. The activations of a stage are kept in half precision.
            precision: what the network computes in; see `networks.precision`.
            calibration: for "int8", some hundred images of the task.

        Raises:
            UnknownNameError: there is no such precision.
        """
        self._backbone = backbone
        self.outputs = tuple(dict.fromkeys(outputs)) or (POOLED,)
        self._engine: Engine | None = None
        self._precision = self._make_precision(precision, calibration)
        self.image_size = backbone.image_size

    def extract(
        self,
        images: Sequence[ImageFile],
        views: Sequence[str] = ("as_is",),
        *,
        step: str = "Computing features",
        progress: Progress = silent,
    ) -> Features:
        """The features of images, from the store or computed; interrupted, it keeps what it has.

        Args:
            images: scanned files.
            views: names in `pictures.views.VIEWS`, or of crops.
            step: what the progress is called.
            progress: told how many images have their features.

        Raises:
            CacheError, OSError: they cannot be kept.
            GuardError: the engine gives other numbers than Keras.
        """
        return extract_together([self], images, views, step=step, progress=progress)[0]

    def engine(self, progress: Progress = silent) -> Engine:
        """What runs the network, made when it is first needed."""
        if self._engine is None:
            step = f"Preparing {self._backbone.spec.name} at {self.image_size} px"
            progress(step, 0, 1)
            key = self.key(" and ".join(self.outputs), "")
            self._engine = make_engine(
                lambda: feature_model(self._backbone.build(), *self.outputs), key.digest(), self._precision
            )
            progress(step, 1, 1)
        return self._engine

    def rest(self) -> None:
        """Let go of the engine, whose network takes megabytes; it is made again when it is needed."""
        self._engine = None

    def key(self, output: str, view: str) -> FeatureKey:
        """What the features of one output and view are stored under."""
        backbone = self._backbone
        return FeatureKey(
            backbone=backbone.spec.name,
            fingerprint=backbone.fingerprint,
            preprocessing=backbone.weights.preprocessing,
            image_size=self.image_size,
            pooling=output,
            decoder=DECODER_VERSION,
            engine=engine_name(self._precision),
            view=view,
            graph=backbone.spec.graph,
        )

    def _make_precision(self, name: str, calibration: Sequence[ImageFile]) -> Precision:
        if name not in PRECISIONS:
            raise UnknownNameError("precision", name, PRECISIONS)
        if name != "int8":
            return Precision(name)
        size = self._backbone.image_size
        chosen = sorted(calibration, key=lambda image: image.sha256)

        def samples() -> list[npt.NDArray[np.uint8]]:
            failed: dict[str, str] = {}
            wanted = ((image, ("as_is",)) for image in chosen)
            return [decoded.pixels[size, "as_is"] for decoded in decode_ahead(wanted, (size,), failed)]

        return Precision(name, tuple(image.sha256 for image in chosen), samples, half_range=not sums_bytes_in_full())

    def is_stage(self, output: str) -> bool:
        """Whether an output is the activations at a stage's cut."""
        return output in self._backbone.spec.stages


def extract_together(
    extractors: Sequence[Extractor],
    images: Sequence[ImageFile],
    views: Sequence[str] = ("as_is",),
    *,
    step: str = "Computing features",
    progress: Progress = silent,
) -> list[Features]:
    """The features of several networks, sizes or cuts over one decoding of the images: see `Extractor.extract`.

    The extractors differ in what they compute; each answers for itself, in their order.
    """
    check_views(tuple(views))
    jobs = [Job(extractor, tuple(views), images) for extractor in extractors]
    distinct = {image.sha256: image for image in images}
    missing = [image for sha, image in distinct.items() if any(job.lacks(sha) for job in jobs)]
    for extractor in extractors if missing else ():
        extractor.engine(progress)
    start = time.perf_counter()
    failed = run_jobs(jobs, missing, step, len(images), progress) if missing else {}
    failures = tuple(Skipped(image.name, failed[image.sha256]) for image in images if image.sha256 in failed)
    usable = tuple(image.sha256 for image in images if image.sha256 not in failed)
    seconds = time.perf_counter() - start
    return [
        Features(
            found=job.found,
            usable=usable,
            views=tuple(views),
            failures=failures,
            computed=frozenset(image.name for image in images if image.sha256 in job.computed),
            num_passes=job.num_passes,
            seconds=seconds,
        )
        for job in jobs
    ]
