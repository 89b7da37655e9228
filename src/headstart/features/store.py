"""Features on disk: computed once per image, ever.

One folder holds the features of one *key*: everything that decides their value besides the image itself. In it lie
shards: ``NAME.npy`` with rows, and ``NAME.json`` with the SHA-256 of that file and the content hash of the image of
each row. The index is written last and both are written atomically, so a shard is whole or is not there; names are
unique, so several processes can fill one store. Nothing is pickled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.cache import cache_folder, write_atomically

Rows = npt.NDArray[np.float32]


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
    """

    backbone: str
    fingerprint: str
    preprocessing: str
    image_size: int
    pooling: str
    decoder: str
    engine: str
    view: str

    def digest(self) -> str:
        """The name of the key's folder."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:32]


class FeatureStore:
    """The stored features of one key."""

    def __init__(self, key: FeatureKey, root: Path | None = None) -> None:
        """Open (nothing is written until something is added).

        Args:
            key: what the features are of.
            root: the folder of all stores; the cache's by default.
        """
        self._key = key
        self._folder = (root or cache_folder("features")) / key.digest()

    def load(self, hashes: Sequence[str]) -> dict[str, Rows]:
        """The rows (d,) of those images that are stored; a shard that is damaged counts as not there."""
        wanted = set(hashes)
        found: dict[str, Rows] = {}
        for index in sorted(self._folder.glob("*.json")):
            if index.name == "key.json" or not wanted:
                continue
            for image, row in _read_shard(index, wanted).items():
                found[image] = row
                wanted.discard(image)
        return found

    def add(self, rows: Mapping[str, Rows]) -> None:
        """Store rows (d,) float32 by the content hash of their image."""
        if not rows:
            return
        if not (self._folder / "key.json").exists():
            _write_json(self._folder / "key.json", dataclasses.asdict(self._key))
        name = uuid.uuid4().hex
        buffer = io.BytesIO()
        np.save(buffer, np.stack(list(rows.values())).astype("<f4"), allow_pickle=False)
        data = buffer.getvalue()
        with write_atomically(self._folder / f"{name}.npy") as file:
            file.write(data)
        _write_json(self._folder / f"{name}.json", {"sha256": hashlib.sha256(data).hexdigest(), "images": list(rows)})


def _read_shard(index: Path, wanted: set[str]) -> dict[str, Rows]:
    try:
        facts = json.loads(index.read_bytes())
        positions = {image: row for row, image in enumerate(facts["images"]) if image in wanted}
        if not positions:
            return {}
        data = index.with_suffix(".npy").read_bytes()
        if hashlib.sha256(data).hexdigest() != facts["sha256"]:
            return {}
        rows = np.load(io.BytesIO(data), allow_pickle=False)
        return {image: rows[position] for image, position in positions.items()}
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return {}


def _write_json(path: Path, plain: Mapping[str, Any]) -> None:
    with write_atomically(path) as file:
        file.write(json.dumps(plain).encode())
