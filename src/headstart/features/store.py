"""Features on disk: computed once per image, ever.

One folder holds the features of one *key*: everything that decides their value besides the image itself. In it lie
shards: ``NAME.npy`` with rows, and ``NAME.json`` with the content hash of the image of each row and the SHA-256 of
both. The index is written last and both are written atomically, so a shard is whole or is not there. Nothing is
ever changed, only added or (by ``headstart cache prune``) removed, under a lock; names are unique, so several processes
can fill one store. Nothing is pickled, and no more than one shard is in memory at a time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.cache import cache_folder, locked, write_atomically
from headstart.errors import CacheError

Row = npt.NDArray[np.floating]
"""Features of one image (d,) float32, or activations of any shape in float16."""


_KEY_NAME = "key.json"


@dataclasses.dataclass(frozen=True)
class FeatureKey:
    """What decides a feature's value, besides the image.

    Attributes:
        backbone: Keras's name.
        fingerprint: the hash of the backbone's weights.
        preprocessing: what happens to the pixels first.
        image_size: the side in pixels.
        pooling: how stages become one row.
        decoder: the version of the decoder.
        engine: what computes, its version and precision.
        view: "as_is", "mirrored", ...
        graph: which build of the network computed it; "" where its first never needed mending.
    """

    backbone: str
    fingerprint: str
    preprocessing: str
    image_size: int
    pooling: str
    decoder: str
    engine: str
    view: str
    graph: str = ""

    def fields(self) -> dict[str, Any]:
        """As it is written down: what came in later is there only where it says something."""
        fields = dataclasses.asdict(self)
        return fields if self.graph else {name: value for name, value in fields.items() if name != "graph"}

    def digest(self) -> str:
        """The name of the key's folder."""
        return hashlib.sha256(json.dumps(self.fields(), sort_keys=True).encode()).hexdigest()[:32]


class FeatureStore:
    """The stored features of one key."""

    def __init__(self, key: FeatureKey, root: Path | None = None) -> None:
        """Open (nothing is written until something is added).

        Args:
            key: what the features are of.
            root: the folder of all stores; the cache's by default.
        """
        self._key = key
        self.folder = (root or cache_folder("features")) / key.digest()

    def find(self, hashes: Iterable[str]) -> Found:
        """Which images are stored, by their content hash; a shard that is damaged counts as not there."""
        wanted = set(hashes)
        with contextlib.suppress(OSError):  # There is nothing yet, or it is read-only.
            os.utime(self.folder / _KEY_NAME)  # When it was last used: `upkeep` removes what was not.
        places: dict[str, tuple[Path, int]] = {}
        for index in shard_indexes(self.folder):
            if not wanted:
                break
            shard = read_index(index)
            mine = [(image, row) for row, image in enumerate(shard.images) if image in wanted] if shard else []
            if shard and mine and shard.read() is not None:
                places.update((image, (index, row)) for image, row in mine)
                wanted.difference_update(image for image, _ in mine)
        return Found(places)

    def load(self, hashes: Iterable[str]) -> dict[str, Row]:
        """The rows of those images that are stored, all in memory."""
        found = self.find(hashes)
        return dict(zip(found, found.rows(list(found)), strict=True)) if found else {}

    def add(self, rows: Mapping[str, Row]) -> Found:
        """Store rows of one shape, in float32 or float16, by the content hash of their image; says where they lie."""
        if not rows:
            return Found({})
        values = np.stack(list(rows.values()))
        buffer = io.BytesIO()
        np.save(buffer, values.astype("<f2" if values.dtype == np.float16 else "<f4", copy=False), allow_pickle=False)
        data = buffer.getbuffer()
        name = uuid.uuid4().hex
        with locked(self.folder, lambda: None):
            if not (self.folder / _KEY_NAME).exists():
                _write_json(self.folder / _KEY_NAME, self._key.fields())
            with write_atomically(self.folder / f"{name}.npy") as file:
                file.write(data)
            facts = {"sha256": _sha256(tuple(rows), data), "images": list(rows)}
            _write_json(self.folder / f"{name}.json", facts)
        return Found({image: (self.folder / f"{name}.json", row) for row, image in enumerate(rows)})


class Found(Mapping[str, tuple[Path, int]]):
    """Where the features of some images lie: content hash -> index of the shard and row in it."""

    def __init__(self, places: Mapping[str, tuple[Path, int]]) -> None:
        """Take what `FeatureStore.find` found."""
        self._places = places

    def __getitem__(self, image: str) -> tuple[Path, int]:
        """The place of one image."""
        return self._places[image]

    def __iter__(self) -> Iterator[str]:
        """The content hashes."""
        return iter(self._places)

    def __len__(self) -> int:
        """How many images are there."""
        return len(self._places)

    def __or__(self, other: Found) -> Found:
        """Both together."""
        return Found({**self._places, **other._places})

    def rows(self, hashes: Sequence[str]) -> Row:
        """The features of those images in order: (n, ...). Each shard is read once, and its hash checked again.

        Raises:
            CacheError: another process removed or damaged a shard since it was found.
        """
        by_shard: dict[Path, list[tuple[int, int]]] = {}
        for position, image in enumerate(hashes):
            index, row = self._places[image]
            by_shard.setdefault(index, []).append((position, row))
        values: Row | None = None
        for index, pairs in by_shard.items():
            shard = read_index(index)
            stored = shard.read() if shard else None
            if stored is None:
                raise CacheError(
                    f"{index.with_suffix('.npy')} was removed or damaged while it was in use. Run it again."
                )
            if values is None:
                values = np.empty((len(hashes), *stored.shape[1:]), stored.dtype)
            positions, rows = zip(*pairs, strict=True)
            values[list(positions)] = stored[list(rows)]
        return np.zeros((0, 0), np.float32) if values is None else values


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of rows.

    Attributes:
        path: the ``.npy``.
        sha256: what the hash of images and rows was when they were written.
        images: the content hash of the image of each row.
    """

    path: Path
    sha256: str
    images: tuple[str, ...]

    def read(self) -> Row | None:
        """The rows (n, ...), or None where the file is missing or not what was written."""
        try:
            data = self.path.read_bytes()
            if _sha256(self.images, data) != self.sha256:
                return None
            rows = np.load(io.BytesIO(data), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return rows if len(rows) == len(self.images) else None


def shard_indexes(folder: Path) -> list[Path]:
    """The indexes in the folder of one key."""
    try:
        return sorted(index for index in folder.glob("*.json") if index.name != _KEY_NAME)
    except FileNotFoundError:  # Pruned this moment: before Python 3.13 `glob` looks first and opens then.
        return []


def read_index(index: Path) -> Shard | None:
    """What an index says of its shard, or None where it is damaged."""
    try:
        facts = json.loads(index.read_bytes())
        images = facts["images"]
        if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
            return None
        return Shard(index.with_suffix(".npy"), str(facts["sha256"]), tuple(images))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _sha256(images: Sequence[str], data: bytes | memoryview) -> str:
    """The hash of a shard: of what its rows belong to, too, lest a damaged index give an image another's row."""
    digest = hashlib.sha256("\n".join(images).encode())
    digest.update(data)
    return digest.hexdigest()


def _write_json(path: Path, plain: Mapping[str, Any]) -> None:
    with write_atomically(path) as file:
        file.write(json.dumps(plain).encode())
