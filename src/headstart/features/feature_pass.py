"""One pass of a frozen network over images: decoding, the network and writing go on beside each other.

Decoding (threads), the network (the engine's own threads) and writing (one thread) hand over to one another. Nothing
holds more than a few images and a few shards at a time, however slow the disk is, so memory does not grow with the
number of images.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from headstart.errors import DataError
from headstart.features.decoding import Decoded, decode_ahead
from headstart.features.store import FeatureStore, Found, Row
from headstart.pictures.folder import ImageFile
from headstart.progress import Progress

if TYPE_CHECKING:
    from headstart.features.extract import Extractor

Pixels = npt.NDArray[np.uint8]

_ROWS_PER_SHARD = 512  # What a kill can cost: a few seconds of computing.
_BYTES_PER_SHARD = 32 << 20
_SHARDS_WAITING = 4
_TOGETHER = 256  # Images that several networks take in turns.


class Job:
    """What one extractor still has to compute, and what it has.

    Attributes:
        extractor: the network and its outputs.
        views: in which each image is wanted.
        stores: of each output and view.
        found: where what is there lies, likewise.
        computed: the content hashes of what was computed.
        num_passes: how many images (times views) that were.
    """

    def __init__(self, extractor: Extractor, views: tuple[str, ...], images: Sequence[ImageFile]) -> None:
        """Look up in the stores what is there."""
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

    def __init__(self, step: str, jobs: Sequence[Job], known: int, total: int, progress: Progress) -> None:
        sizes = sorted({job.extractor.image_size for job in jobs})
        self._step = f"{step} at {' and '.join(map(str, sizes))} px"
        self._known, self._total, self._progress = known, total, progress
        self._left: dict[str, int] = {}
        self._done = 0

    def expect(self, missing: Sequence[ImageFile], jobs: Sequence[Job]) -> None:
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


def run_jobs(
    jobs: Sequence[Job], missing: Sequence[ImageFile], step: str, total: int, progress: Progress
) -> dict[str, str]:
    """Fill the stores with what is missing.

    Args:
        jobs: one for each network; each image is decoded once for all of them.
        missing: the images that any of them lacks.
        step: what the progress is called.
        total: how many images there are, those that nobody lacks included.
        progress: told how many are done.

    Returns:
        The reason for each content hash that failed.
    """
    counter = _Counter(step, jobs, total - len(missing), total, progress)
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

    def __init__(self, images: Sequence[ImageFile], jobs: Sequence[Job], failed: dict[str, str]) -> None:
        sizes = tuple(dict.fromkeys(job.extractor.image_size for job in jobs))
        wanted = ((image, _in_order(job.lacks(image.sha256) for job in jobs)) for image in images)
        self._decoded: Iterable[Decoded] = decode_ahead(wanted, sizes, failed)

    def kept(self) -> _Looks:
        """The same, held in memory to be looked at again."""
        self._decoded = list(self._decoded)
        return self

    def of(self, job: Job) -> Iterator[tuple[tuple[str, str], Pixels]]:
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
