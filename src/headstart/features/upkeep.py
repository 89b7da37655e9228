"""What is in the store of features, whether it still is what was written, and how room is made.

One may look and remove while others read and add: removing holds the lock that adding holds, and who is reading gets
right rows or a `CacheError`. Only files that the store writes are ever removed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from headstart.cache import cache_folder, locked
from headstart.features.store import read_index, shard_indexes
from headstart.progress import Progress, silent

_KEY_NAME = "key.json"
_STORE_NAME = re.compile(r"[0-9a-f]{32}")  # See `FeatureKey.digest`.
_OLD_SECONDS = 3600.0  # Nobody takes so long to write a shard, so what is unfinished after that stays so.


@dataclasses.dataclass(frozen=True)
class Stored:
    """The stored features of one key.

    Attributes:
        folder: where they are.
        key: the fields of the `FeatureKey` they were written under; empty where that is not known any more.
        num_images: how many images have theirs.
        num_bytes: what they take on disk.
        last_used: when something was last looked up or added, in seconds since 1970.
    """

    folder: Path
    key: Mapping[str, Any]
    num_images: int
    num_bytes: int
    last_used: float


@dataclasses.dataclass(frozen=True)
class Damaged:
    """A file that is not what was written.

    Attributes:
        path: the file.
        problem: what is wrong with it.
    """

    path: Path
    problem: str


@dataclasses.dataclass(frozen=True)
class Verified:
    """What `verify` found.

    Attributes:
        num_shards: how many were read.
        num_bytes: how much that was.
        damaged: what is not as it was written.
    """

    num_shards: int
    num_bytes: int
    damaged: tuple[Damaged, ...]


@dataclasses.dataclass(frozen=True)
class Pruned:
    """What `prune` removed.

    Attributes:
        stores: the folders whose features are gone, least recently used first.
        damaged: files that were not what was written.
        num_networks: compiled networks.
        num_leftovers: files of writers that died.
        freed_bytes: what all of those took.
        kept_bytes: what is left.
    """

    stores: tuple[Path, ...]
    damaged: tuple[Damaged, ...]
    num_networks: int
    num_leftovers: int
    freed_bytes: int
    kept_bytes: int


def stores_folder() -> Path:
    """Where all features are."""
    return cache_folder("features")


def compiled_networks(root: Path | None = None) -> list[Path]:
    """The networks that were compiled for this machine, least recently used first; they lie beside all features."""
    folder = (root or stores_folder()).with_name("engines")
    return sorted(folder.glob("*.blob"), key=lambda blob: _modified(blob, 0.0))


def list_stores(root: Path | None = None, *, progress: Progress = silent) -> list[Stored]:
    """The stored features of each key, last used first.

    Args:
        root: the folder of all stores; the cache's by default.
        progress: told how many stores were looked at.
    """
    folders = _folders(root)
    stores = []
    for number, folder in enumerate(folders, 1):
        shards = (read_index(index) for index in shard_indexes(folder))
        images = {image for shard in shards if shard for image in shard.images}
        stores.append(Stored(folder, _read_key(folder), len(images), _size(_files(folder)), _last_used(folder)))
        progress("Looking at stored features", number, len(folders))
    return sorted(stores, key=lambda store: store.last_used, reverse=True)


def verify(root: Path | None = None, *, progress: Progress = silent) -> Verified:
    """Read every shard and hold it against the hash that was written with it.

    Args:
        root: the folder of all stores; the cache's by default.
        progress: told how many bytes were read.
    """
    folders = _folders(root)
    indexes = [index for folder in folders for index in shard_indexes(folder)]
    sizes = [_size([index.with_suffix(".npy")]) for index in indexes]
    done, total = 0, sum(sizes)
    damaged = [each for folder in folders if (each := _problem_of_key(folder))]
    for index, size in zip(indexes, sizes, strict=True):
        if each := _problem_of_shard(index):
            damaged.append(each)
        done += size
        progress("Checking stored features", done, total)
    return Verified(len(indexes), total, tuple(damaged))


def prune(
    max_bytes: int | None = None, *, damaged: bool = False, root: Path | None = None, progress: Progress = silent
) -> Pruned:
    """Remove what writers that died left behind; then, least recently used first, networks, and features of whole keys.

    Args:
        max_bytes: how much features and compiled networks may take in the end; None removes none. The networks go
            first: each is made again in seconds.
        damaged: whether to read everything and remove what is damaged too; it counts as not there anyway.
        root: the folder of all stores; the cache's by default.
        progress: told how much was read, and if another process has to be waited for.

    Raises:
        OSError: a file may not be removed.
    """
    bad = verify(root, progress=progress).damaged if damaged else ()
    num_leftovers = freed = 0
    for folder in _folders(root):
        broken = [half for each in bad if each.path.parent == folder for half in _whole(each.path)]
        if broken or _leftovers(folder):
            with _alone(folder, progress):
                leftovers = _leftovers(folder)
                freed += _remove(leftovers) + _remove(broken)
            num_leftovers += len(leftovers)
    sizes = {folder: _size(_files(folder)) for folder in sorted(_folders(root), key=_last_used)}
    networks = compiled_networks(root)
    kept = sum(sizes.values()) + _size(networks)
    gone, num_networks = [], 0
    for network in networks:
        if max_bytes is None or kept <= max_bytes:
            break
        size = _remove([network])
        kept, freed, num_networks = kept - size, freed + size, num_networks + 1
    for folder, size in sizes.items():
        if max_bytes is None or kept <= max_bytes:
            break
        with _alone(folder, progress):
            freed += _remove(_files(folder))
            with contextlib.suppress(OSError):  # It holds something that is not ours.
                folder.rmdir()
        kept -= size
        gone.append(folder)
    return Pruned(tuple(gone), bad, num_networks, num_leftovers, freed, kept)


def _folders(root: Path | None) -> list[Path]:
    """The folders of keys that hold something of ours; another's folder is never looked into."""
    root = root or stores_folder()
    if not root.is_dir():
        return []
    return sorted(each for each in root.iterdir() if _STORE_NAME.fullmatch(each.name) and _files(each))


def _files(folder: Path) -> list[Path]:
    """The files that the store writes, in an order to remove them in: no index stays without its shard."""
    order = {".json": 0, ".npy": 1, ".part": 2}
    try:
        files = [each for each in folder.iterdir() if each.suffix in order]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(files, key=lambda each: (each.name == _KEY_NAME, order[each.suffix], each.name))


def _leftovers(folder: Path) -> list[Path]:
    """Shards without an index, and files that were never finished: what a kill or a full disk leaves."""
    old = time.time() - _OLD_SECONDS
    files = _files(folder)
    indexes = {path.stem for path in files if path.suffix == ".json"}
    unfinished = [path for path in files if path.suffix == ".part" or path.stem not in indexes]
    return [path for path in unfinished if _modified(path, old) < old]


def _whole(path: Path) -> list[Path]:
    """Both halves of a shard, of which neither is of use alone; the index goes first."""
    return [path] if path.name == _KEY_NAME else [path.with_suffix(".json"), path.with_suffix(".npy")]


def _problem_of_shard(index: Path) -> Damaged | None:
    shard = read_index(index)
    if shard and shard.read() is not None:
        return None
    if not index.exists():  # Someone else removed it while we looked.
        return None
    if shard is None:
        return Damaged(index, "not what was written")
    return Damaged(shard.path, "not what was written" if shard.path.exists() else "missing")


def _problem_of_key(folder: Path) -> Damaged | None:
    if _read_key(folder) or not (folder / _KEY_NAME).exists():
        return None
    return Damaged(folder / _KEY_NAME, "not what was written")


def _read_key(folder: Path) -> Mapping[str, Any]:
    """The key as it was written, whatever fields it had then; empty where it is damaged."""
    try:
        key = json.loads((folder / _KEY_NAME).read_bytes())
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()  # As `FeatureKey.digest` does it.
    except (OSError, ValueError, RecursionError):
        return {}
    return key if isinstance(key, dict) and digest.startswith(folder.name) else {}


def _last_used(folder: Path) -> float:
    return _modified(folder / _KEY_NAME, 0.0) or _modified(folder, 0.0)


def _modified(path: Path, otherwise: float) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # It went, or is not for us to see.
        return otherwise


def _size(files: Iterable[Path]) -> int:
    total = 0
    for path in files:
        with contextlib.suppress(OSError):  # As above.
            total += path.stat().st_size
    return total


def _remove(files: Iterable[Path]) -> int:
    """Remove files; returns how many bytes they took."""
    freed = 0
    for path in files:
        with contextlib.suppress(FileNotFoundError):
            size = path.stat().st_size
            path.unlink()
            freed += size
    return freed


@contextlib.contextmanager
def _alone(folder: Path, progress: Progress) -> Iterator[None]:
    """Hold the lock under which features are added."""
    with locked(folder, lambda: progress("Waiting for another process that is adding features", 0, 1)):
        yield
