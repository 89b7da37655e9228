"""Images -> features: what is stored is found in the store, the rest is decoded and run through the network once.

Decoding (threads), the network (the engine's own threads) and writing (one thread) go on beside each other. Nothing
holds more than a few images and a few shards at a time, however slow the disk is, so memory does not grow with the
number of images; the features themselves are read from the store when somebody asks for their values.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from headstart.errors import DataError, UnknownNameError
from headstart.features.decoding import Decoded, decode_ahead
from headstart.features.pooling import POOLED, feature_model
from headstart.features.store import FeatureKey, FeatureStore, Found, Row
from headstart.networks.backbone import Backbone
from headstart.networks.engine import Engine, engine_name, make_engine
from headstart.networks.planned import PlannedBackbone
from headstart.networks.precision import PRECISIONS, Precision
from headstart.pictures.decode import DECODER_VERSION
from headstart.pictures.folder import ImageFile, Skipped
from headstart.pictures.views import check_views
from headstart.progress import Progress, silent

Pixels = npt.NDArray[np.uint8]

_ROWS_PER_SHARD = 512  # What a kill can cost: a few seconds of computing.
_BYTES_PER_SHARD = 32 << 20
_SHARDS_WAITING = 4
_TOGETHER = 256  # Images that several networks take in turns.


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
        seconds: how long that took.
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


class FeatureExtractor:
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
        self.outputs = outputs or (POOLED,)
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
        """
        return extract_together([self], images, views, step=step, progress=progress)[0]

    def engine(self) -> Engine:
        """What runs the network, made when it is first needed."""
        if self._engine is None:
            key = self.key(" and ".join(self.outputs), "")
            self._engine = make_engine(
                lambda: feature_model(self._backbone.build(), *self.outputs), key.digest(), self._precision
            )
        return self._engine

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
        )

    def _make_precision(self, name: str, calibration: Sequence[ImageFile]) -> Precision:
        if name not in PRECISIONS:
            raise UnknownNameError("precision", name, PRECISIONS)
        if name != "int8":
            return Precision(name)
        size = self._backbone.image_size
        chosen = sorted(calibration, key=lambda image: image.sha256)

        def samples() -> list[Pixels]:
            failed: dict[str, str] = {}
            wanted = ((image, ("as_is",)) for image in chosen)
            return [decoded.pixels[size, "as_is"] for decoded in decode_ahead(wanted, (size,), failed)]

        return Precision(name, tuple(image.sha256 for image in chosen), samples)

    def is_stage(self, output: str) -> bool:
        """Whether an output is the activations at a stage's cut."""
        return output in self._backbone.spec.stages


def extract_together(
    extractors: Sequence[FeatureExtractor],
    images: Sequence[ImageFile],
    views: Sequence[str] = ("as_is",),
    *,
    step: str = "Computing features",
    progress: Progress = silent,
) -> list[Features]:
    """The features of several networks, sizes or cuts over one decoding of the images: see `FeatureExtractor.extract`.

    The extractors differ in what they compute; each answers for itself, in their order.
    """
    check_views(tuple(views))
    jobs = [_Job(extractor, tuple(views), images) for extractor in extractors]
    start = time.perf_counter()
    distinct = {image.sha256: image for image in images}
    missing = [image for sha, image in distinct.items() if any(job.lacks(sha) for job in jobs)]
    counter = _Counter(step, jobs, len(images) - len(missing), len(images), progress)
    failed = _compute(jobs, missing, counter) if missing else {}
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


class _Job:
    """What one extractor still has to compute, and what it has."""

    def __init__(self, extractor: FeatureExtractor, views: tuple[str, ...], images: Sequence[ImageFile]) -> None:
        self.extractor = extractor
        self.views = views
        self.stores = {
            (output, view): FeatureStore(extractor.key(output, view)) for output in extractor.outputs for view in views
        }
        hashes = {image.sha256 for image in images}
        self.found = {place: store.find(hashes) for place, store in self.stores.items()}
        self.computed: set[str] = set()
        self.num_passes = 0
        self._fresh: dict[tuple[str, str], dict[str, Row]] = {place: {} for place in self.stores}
        self._writing: deque[tuple[tuple[str, str], Future[Found]]] = deque()

    def lacks(self, sha256: str) -> list[str]:
        """The views of an image of which any output is missing."""
        return [
            view for view in self.views if any(sha256 not in self.found[out, view] for out in self.extractor.outputs)
        ]

    def take(self, sha256: str, view: str, rows: Sequence[Row], writer: ThreadPoolExecutor) -> None:
        """Take the outputs of one image in one view; full shards are handed to the writer."""
        self.computed.add(sha256)
        self.num_passes += 1
        for output, row in zip(self.extractor.outputs, rows, strict=True):
            fresh = self._fresh[output, view]
            fresh[sha256] = _halved(row, output) if self.extractor.is_stage(output) else row
            if len(fresh) >= min(_ROWS_PER_SHARD, max(1, _BYTES_PER_SHARD // row.nbytes)):
                self._hand_over((output, view), writer)
        while self._writing and self._writing[0][1].done():
            self._collect()

    def finish(self, writer: ThreadPoolExecutor) -> None:
        """Write what is left, and wait until all is on disk."""
        for place in self._fresh:
            self._hand_over(place, writer)
        while self._writing:
            self._collect()

    def _hand_over(self, place: tuple[str, str], writer: ThreadPoolExecutor) -> None:
        while len(self._writing) >= _SHARDS_WAITING:  # The disk is slower than the network.
            self._collect()
        if self._fresh[place]:
            self._writing.append((place, writer.submit(self.stores[place].add, self._fresh[place])))
            self._fresh[place] = {}

    def _collect(self) -> None:
        place, future = self._writing.popleft()
        self.found[place] = self.found[place] | future.result()


class _Counter:
    """Tells how many images are done, all networks and views together."""

    def __init__(self, step: str, jobs: Sequence[_Job], known: int, total: int, progress: Progress) -> None:
        sizes = sorted({job.extractor.image_size for job in jobs})
        self._step = f"{step} at {' and '.join(map(str, sizes))} px"
        self._known, self._total, self._progress = known, total, progress
        self._left: dict[str, int] = {}
        self._done = 0

    def expect(self, missing: Sequence[ImageFile], jobs: Sequence[_Job]) -> None:
        self._left = {image.sha256: sum(len(job.lacks(image.sha256)) for job in jobs) for image in missing}
        self._tell()

    def passed(self, sha256: str) -> None:
        self._left[sha256] -= 1
        if not self._left[sha256]:
            self._done += 1
            if self._done % 16 == 0:
                self._tell()

    def finish(self) -> None:
        self._done = self._total - self._known
        self._tell()

    def _tell(self) -> None:
        self._progress(self._step, self._known + self._done, self._total)


def _compute(jobs: Sequence[_Job], missing: Sequence[ImageFile], counter: _Counter) -> dict[str, str]:
    """Fill the stores with what is missing; returns the reason for each hash that failed."""
    counter.expect(missing, jobs)
    failed: dict[str, str] = {}
    portion = len(missing) if len(jobs) == 1 else _TOGETHER
    with ThreadPoolExecutor(1, thread_name_prefix="headstart-write") as writer:
        try:
            for first in range(0, len(missing), portion):
                looks = _Looks(missing[first : first + portion], jobs, failed)
                if len(jobs) > 1:
                    looks = looks.kept()
                for job in jobs:
                    for (sha256, view), rows in job.extractor.engine().stream(looks.of(job)):
                        job.take(sha256, view, rows, writer)
                        counter.passed(sha256)
        finally:  # Also when interrupted: what was computed is not computed again.
            for job in jobs:
                job.finish(writer)
    counter.finish()
    return failed


class _Looks:
    """The pixels of some images, decoded once at every size and in every view that any of the jobs lacks."""

    def __init__(self, images: Sequence[ImageFile], jobs: Sequence[_Job], failed: dict[str, str]) -> None:
        sizes = tuple(dict.fromkeys(job.extractor.image_size for job in jobs))
        wanted = ((image, _in_order(job.lacks(image.sha256) for job in jobs)) for image in images)
        self._decoded: Iterable[Decoded] = decode_ahead(wanted, sizes, failed)

    def kept(self) -> _Looks:
        """The same, held in memory to be looked at again."""
        self._decoded = list(self._decoded)
        return self

    def of(self, job: _Job) -> Iterator[tuple[tuple[str, str], Pixels]]:
        """(hash, view) and pixels of all that a job lacks."""
        for decoded in self._decoded:
            for view in job.lacks(decoded.sha256):
                yield (decoded.sha256, view), decoded.pixels[job.extractor.image_size, view]


def _in_order(several: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in several for name in names))


def _halved(row: Row, output: str) -> Row:
    with np.errstate(over="ignore"):
        half = row.astype(np.float16)
    if not np.isfinite(half).all():
        raise DataError(f"Activations of {output} are too large for half precision; choose a deeper stage.")
    return half
