"""What is in the store of features, whether it still is what was written, and how room is made.

Beside the features lie compiled networks and fitted heads, each a sealed file that is made again in seconds.

One may look and remove while others read and add: removing holds the lock that adding holds, and who is reading gets
right rows or a `CacheError`. Only files that headstart writes are ever removed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from headstart.cache import cache_folder, locked, read_sealed
from headstart.features.store import read_index, shard_indexes
from headstart.progress import Progress, silent

_KEY_NAME = "key.json"
_SPARES = {".blob": "engines", ".head": "heads", ".saved": "heads"}  # What is made again in seconds, and where it lies.
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
        num_shards: how many files of features were read.
        num_spares: how many networks and heads.
        num_bytes: how much all of that was.
        damaged: what is not as it was written.
    """

    num_shards: int
    num_spares: int
    num_bytes: int
    damaged: tuple[Damaged, ...]


@dataclasses.dataclass(frozen=True)
class Pruned:
    """What `prune` removed.

    Attributes:
        stores: the folders whose features are gone, least recently used first.
        damaged: files that were not what was written.
        num_networks: compiled networks.
        num_heads: fitted heads.
        num_leftovers: files of writers that died.
        freed_bytes: what all of those took.
        kept_bytes: what is left.
    """

    stores: tuple[Path, ...]
    damaged: tuple[Damaged, ...]
    num_networks: int
    num_heads: int
    num_leftovers: int
    freed_bytes: int
    kept_bytes: int


def stores_folder() -> Path:
    """Where all features are."""
    return cache_folder("features")


def compiled_networks(root: Path | None = None) -> list[Path]:
    """The networks that were compiled for this machine, least recently used first; they lie beside all features."""
    return _by_use((root or stores_folder()).with_name("engines").glob("*.blob"))


def fitted_heads(root: Path | None = None) -> list[Path]:
    """The heads that were fitted, least recently used first; they lie beside all features."""
    return _by_use((root or stores_folder()).with_name("heads").glob("*.head"))


def _spares(root: Path | None) -> list[Path]:
    """Those networks and heads, and notes of where models were saved."""
    root = root or stores_folder()
    return _by_use(path for suffix, folder in _SPARES.items() for path in root.with_name(folder).glob(f"*{suffix}"))


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
        stores.append(Stored(folder, _read_key(folder), len(images), size_of(_files(folder)), _last_used(folder)))
        progress("Looking at stored features", number, len(folders))
    return sorted(stores, key=lambda store: store.last_used, reverse=True)


def verify(root: Path | None = None, *, progress: Progress = silent) -> Verified:
    """Read every shard, network and head, and hold each against the hash that was written with it.

    Args:
        root: the folder of all stores; the cache's by default.
        progress: told how many bytes were read.
    """
    folders = _folders(root)
    indexes = [index for folder in folders for index in shard_indexes(folder)]
    spares = _spares(root)
    sizes = [size_of([index.with_suffix(".npy")]) for index in indexes] + [size_of([spare]) for spare in spares]
    done, total = 0, sum(sizes)
    damaged = [each for folder in folders if (each := _problem_of_key(folder))]
    problems = itertools.chain(map(_problem_of_shard, indexes), map(_problem_of_spare, spares))
    for each, size in zip(problems, sizes, strict=True):
        if each:
            damaged.append(each)
        done += size
        progress("Checking stored features", done, total)
    return Verified(len(indexes), len(spares), total, tuple(damaged))


def prune(
    max_bytes: int | None = None, *, damaged: bool = False, root: Path | None = None, progress: Progress = silent
) -> Pruned:
    """Remove what writers that died left behind; then, least recently used first, networks and heads, and features.

    Args:
        max_bytes: how much all of it may take in the end; None removes none. Networks and heads go first: each is made
            again in seconds. Then go the features of whole keys.
        damaged: whether to read everything and remove what is damaged too; it counts as not there anyway.
        root: the folder of all stores; the cache's by default.
        progress: told how much was read, and if another process has to be waited for.

    Raises:
        OSError: a file may not be removed.
    """
    bad = verify(root, progress=progress).damaged if damaged else ()
    num_leftovers, freed = _remove_rubbish(bad, root, progress)
    sizes = {folder: size_of(_files(folder)) for folder in sorted(_folders(root), key=_last_used)}
    spares = _spares(root)
    kept = sum(sizes.values()) + size_of(spares)
    most = kept if max_bytes is None else max_bytes
    gone_spares, gone = [], []
    for spare in spares:
        if kept <= most:
            break
        size = _remove([spare])
        kept, freed = kept - size, freed + size
        gone_spares.append(spare.suffix)
    for folder, size in sizes.items():
        if kept <= most:
            break
        with _alone(folder, progress):
            freed += _remove(_files(folder))
            with contextlib.suppress(OSError):  # It holds something that is not ours.
                folder.rmdir()
        kept -= size
        gone.append(folder)
    num_networks, num_heads = gone_spares.count(".blob"), gone_spares.count(".head")
    return Pruned(tuple(gone), bad, num_networks, num_heads, num_leftovers, freed, kept)


def _remove_rubbish(damaged: Iterable[Damaged], root: Path | None, progress: Progress) -> tuple[int, int]:
    """Remove what is damaged, and what writers that died left: how many files those are, and the bytes of all."""
    bad = [each.path for each in damaged]
    leftovers = _leftover_spares(root)
    freed = _remove([*leftovers, *(path for path in bad if path.suffix in _SPARES)])
    num_leftovers = len(leftovers)
    for folder in _folders(root):
        broken = [half for path in bad if path.parent == folder for half in _whole(path)]
        if broken or _leftovers(folder):
            with _alone(folder, progress):
                leftovers = _leftovers(folder)
                freed += _remove(leftovers) + _remove(broken)
            num_leftovers += len(leftovers)
    return num_leftovers, freed


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


def _leftover_spares(root: Path | None) -> list[Path]:
    """Networks and heads that were never finished."""
    old = time.time() - _OLD_SECONDS
    folders = [(root or stores_folder()).with_name(name) for name in sorted(set(_SPARES.values()))]
    return [part for folder in folders for part in folder.glob(".*.part") if _modified(part, old) < old]


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


def _problem_of_spare(path: Path) -> Damaged | None:
    damaged = read_sealed(path) is None and path.exists()  # Someone else may have removed it while we looked.
    return Damaged(path, "not what was written") if damaged else None


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


def _by_use(files: Iterable[Path]) -> list[Path]:
    """Least recently used first."""
    return sorted(files, key=lambda path: _modified(path, 0.0))


def _modified(path: Path, otherwise: float) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # It went, or is not for us to see.
        return otherwise


def size_of(files: Iterable[Path]) -> int:
    """How many bytes they take."""
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
