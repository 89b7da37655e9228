"""Images -> features: what is stored is taken from the store, the rest is decoded and run through the network once."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from headstart.errors import ImageError
from headstart.features.pooling import POOLED, feature_model
from headstart.features.store import FeatureKey, FeatureStore
from headstart.networks.backbone import Backbone
from headstart.networks.engine import BATCH_SIZE, Engine, engine_name, make_engine
from headstart.pictures.decode import DECODER_VERSION, decode, read
from headstart.pictures.folder import ImageFile, Skipped
from headstart.progress import Progress, silent

Pixels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.float32]

VIEWS: Mapping[str, Callable[[Pixels], Pixels]] = {
    "as_is": lambda pixels: pixels,
    "mirrored": lambda pixels: pixels[:, :, ::-1],
    "upside_down": lambda pixels: pixels[:, ::-1],
    "turned": lambda pixels: pixels[:, ::-1, ::-1],
}
"""Ways to look at images (n, h, w, 3); the names are those of `networks.backbone.FLIPS`."""

_DECODE_THREADS = 2
_BATCHES_AHEAD = 4
_IMAGES_PER_SHARD = 512  # What a kill can cost: a few seconds of computing.


@dataclasses.dataclass(frozen=True)
class Features:
    """The features of some images.

    Attributes:
        values: (num_images, num_views, d) float32, in the order of the images less the failures.
        failures: images that could not be decoded.
        computed: names of the images for which anything had to be computed.
        num_passes: how many images (times views) went through the network.
        seconds: how long that took.
    """

    values: Rows
    failures: tuple[Skipped, ...]
    computed: frozenset[str]
    num_passes: int
    seconds: float


class FeatureExtractor:
    """Computes and keeps the features of one frozen backbone at one image size."""

    def __init__(self, backbone: Backbone, output: str = POOLED) -> None:
        """Take a backbone and which output of it; the engine is made when the first image needs it."""
        self._backbone = backbone
        self._output = output
        self._engine: Engine | None = None
        self.image_size: int = backbone.model.inputs[0].shape[1]

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
            views: names in `VIEWS`.
            step: what the progress is called.
            progress: told how many images have their features.
        """
        start = time.perf_counter()
        stores = {view: FeatureStore(self._key(view)) for view in views}
        found = {view: store.find(image.sha256 for image in images) for view, store in stores.items()}
        distinct = {image.sha256: image for image in images}
        missing = [image for sha, image in distinct.items() if any(sha not in rows for rows in found.values())]
        known = len(images) - len(missing)

        def tell(done: int) -> None:
            progress(f"{step} at {self.image_size} px", known + done, len(images))

        failed = self._compute(missing, stores, found, tell) if missing else {}
        failures = tuple(Skipped(image.name, failed[image.sha256]) for image in images if image.sha256 in failed)
        usable = [image.sha256 for image in images if image.sha256 not in failed]
        values = np.stack([np.stack([rows[sha] for rows in found.values()]) for sha in usable]) if usable else None
        recomputed = {image.sha256 for image in missing}
        return Features(
            values=np.zeros((0, len(views), 0), np.float32) if values is None else values,
            failures=failures,
            computed=frozenset(image.name for image in images if image.sha256 in recomputed - failed.keys()),
            num_passes=(len(missing) - len(failed)) * len(views),
            seconds=time.perf_counter() - start,
        )

    def _key(self, view: str) -> FeatureKey:
        backbone = self._backbone
        return FeatureKey(
            backbone=backbone.spec.name,
            fingerprint=backbone.fingerprint,
            preprocessing=backbone.weights.preprocessing,
            image_size=self.image_size,
            pooling=self._output,
            decoder=DECODER_VERSION,
            engine=engine_name(),
            view=view,
        )

    def _compute(
        self,
        missing: Sequence[ImageFile],
        stores: Mapping[str, FeatureStore],
        found: Mapping[str, dict[str, Rows]],
        tell: Callable[[int], None],
    ) -> dict[str, str]:
        """Fill ``found`` and the stores with what is missing; returns the reason for each hash that failed."""
        tell(0)
        if self._engine is None:
            self._engine = make_engine(feature_model(self._backbone, self._output))
        failed: dict[str, str] = {}
        fresh: dict[str, dict[str, Rows]] = {view: {} for view in stores}
        done = 0
        try:
            for hashes, pixels in self._batches(missing, failed):
                for view, kept in fresh.items():
                    rows = self._engine.run(np.ascontiguousarray(VIEWS[view](pixels)))
                    kept.update(zip(hashes, rows, strict=True))
                done += len(hashes)
                tell(done)
                if len(next(iter(fresh.values()))) >= _IMAGES_PER_SHARD:
                    _keep(fresh, stores, found)
        finally:  # Also when interrupted: what was computed is not computed again.
            _keep(fresh, stores, found)
        tell(len(missing))
        return failed

    def _batches(self, images: Sequence[ImageFile], failed: dict[str, str]) -> Iterator[tuple[list[str], Pixels]]:
        """Decoded batches, a few of them ahead of the network, in order."""
        decoded = _decode_ahead(images, self.image_size)
        good = _only_good(decoded, failed)
        while batch := list(itertools.islice(good, BATCH_SIZE)):
            yield [image.sha256 for image, _ in batch], np.stack([pixels for _, pixels in batch])


def _keep(
    fresh: Mapping[str, dict[str, Rows]], stores: Mapping[str, FeatureStore], found: Mapping[str, dict[str, Rows]]
) -> None:
    for view, rows in fresh.items():
        stores[view].add(rows)
        found[view].update(rows)
        rows.clear()


def _decode_ahead(images: Sequence[ImageFile], size: int) -> Iterator[tuple[ImageFile, Pixels | ImageError]]:
    queue: list[tuple[ImageFile, Future[Pixels | ImageError]]] = []
    with ThreadPoolExecutor(_DECODE_THREADS, thread_name_prefix="headstart-decode") as pool:
        try:
            for image in images:
                queue.append((image, pool.submit(_decode, image, size)))
                if len(queue) >= BATCH_SIZE * _BATCHES_AHEAD:
                    first, future = queue.pop(0)
                    yield first, future.result()
            for first, future in queue:
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _decode(image: ImageFile, size: int) -> Pixels | ImageError:
    try:
        data = read(image.path)
        if hashlib.sha256(data).hexdigest() != image.sha256:
            raise ImageError("it changed while headstart was running")
        return decode(data, (size, size))
    except ImageError as error:
        return error


def _only_good(
    decoded: Iterator[tuple[ImageFile, Pixels | ImageError]], failed: dict[str, str]
) -> Iterator[tuple[ImageFile, Pixels]]:
    for image, pixels in decoded:
        if isinstance(pixels, ImageError):
            failed[image.sha256] = str(pixels)
        else:
            yield image, pixels
