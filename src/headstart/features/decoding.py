"""Images -> pixels, decoded in threads a few ahead of whoever takes them, in order."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from headstart.errors import DataError, ImageError
from headstart.machine import num_cores
from headstart.pictures.decode import decode_parts, read
from headstart.pictures.folder import ImageFile
from headstart.pictures.views import box_of, seen

Pixels = npt.NDArray[np.uint8]

_LEAST_AHEAD = 64  # Images.
_TOGETHER = 4  # Images that a thread decodes at a time; handing over each by itself took 5 % of a pass of MobileNetV2.


@dataclasses.dataclass(frozen=True)
class Decoded:
    """One image.

    Attributes:
        sha256: its content hash.
        pixels: (size, view) -> (size, size, 3).
    """

    sha256: str
    pixels: Mapping[tuple[int, str], Pixels]


def decode_ahead(
    wanted: Iterable[tuple[ImageFile, Sequence[str]]], sizes: Sequence[int], failed: dict[str, str]
) -> Iterator[Decoded]:
    """Decode images at every size, each in its views; those that cannot be are left out.

    Args:
        wanted: images, and the names of the views that each is wanted in.
        sizes: sides in pixels.
        failed: takes the reason for each content hash that could not be decoded.
    """
    queue: deque[tuple[Sequence[ImageFile], Future[list[Decoded | ImageError]]]] = deque()
    waiting = iter(wanted)
    ahead = max(_LEAST_AHEAD, 2 * num_cores() * _TOGETHER)  # So that each thread finds the next ones ready.
    with ThreadPoolExecutor(num_cores(), thread_name_prefix="headstart-decode") as pool:
        try:
            while True:
                while len(queue) * _TOGETHER < ahead and (some := list(itertools.islice(waiting, _TOGETHER))):
                    queue.append(([image for image, _ in some], pool.submit(_decode_some, some, sizes)))
                if not queue:
                    return
                images, future = queue.popleft()
                for image, decoded in zip(images, future.result(), strict=True):
                    if isinstance(decoded, ImageError):
                        failed[image.sha256] = str(decoded)
                    else:
                        yield decoded
        finally:
            pool.shutdown(cancel_futures=True)


def check_decoded(images: Sequence[ImageFile], failed: Mapping[str, str]) -> None:
    """See that images which could be decoded before still could be.

    Args:
        images: that were wanted.
        failed: from `decode_ahead`.

    Raises:
        DataError: one of them could not.
    """
    for image in images:
        if image.sha256 in failed:
            raise DataError(f"{image.path} cannot be used any more: {failed[image.sha256]}.")


def _decode_some(some: Sequence[tuple[ImageFile, Sequence[str]]], sizes: Sequence[int]) -> list[Decoded | ImageError]:
    return [_decode(image, sizes, views) for image, views in some]


def _decode(image: ImageFile, sizes: Sequence[int], views: Sequence[str]) -> Decoded | ImageError:
    try:
        data = read(image.path)
        if hashlib.sha256(data).hexdigest() != image.sha256:
            raise ImageError("it changed while headstart was running")
        boxes = tuple(dict.fromkeys(box_of(view, image.sha256) for view in views))
        parts = decode_parts(data, [(size, size) for size in sizes], boxes)
    except ImageError as error:
        return error
    pixels = {
        (size, view): seen(view, part[boxes.index(box_of(view, image.sha256))])
        for size, part in zip(sizes, parts, strict=True)
        for view in views
    }
    return Decoded(image.sha256, pixels)
