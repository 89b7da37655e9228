"""One archive of weights, to be carried to a machine without a network: packing it, and importing it again.

It is a zip file in which nothing is compressed (weights do not get smaller), opened by everything everywhere: its
first member is a manifest with the SHA-256 of the others. A zip rather than a tar, since its list of members stands at
the end, so that a truncated one is known at once; and since nothing in it can be a link or a device to whoever reads
members by name, as is done here. An archive is taken to be hostile until every byte of it was checked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from headstart.cache import locked, unfinished, write_atomically
from headstart.errors import WeightsError
from headstart.networks import cached
from headstart.networks.cached import CachedFile, known_files, weights_folder
from headstart.networks.catalogue import CATALOGUE
from headstart.networks.rows import BackboneSpec
from headstart.progress import Progress, silent

MANIFEST = "MANIFEST.json"
_FORMAT = "headstart weights 1"
_CHUNK = 1 << 20
_SAME_DATE = (2000, 1, 1, 0, 0, 0)  # The same files give the same archive.


@dataclasses.dataclass(frozen=True)
class Member:
    """A file of weights in an archive.

    Attributes:
        name: its name in the cache.
        size: in bytes.
        sha256: its hash.
        source: where it came from before it was packed.
        status: of an import: "imported", "here already" or "replaced" (a damaged file); "packed" otherwise.
    """

    name: str
    size: int
    sha256: str
    source: str
    status: str = "packed"


# --- packing ----------------------------------------------------------------------------------------------------------


def pack_weights(archive: Path, specs: Sequence[BackboneSpec] = (), *, progress: Progress = silent) -> list[Member]:
    """Write the cached weights of those backbones (of all that are cached, if none is named) into one archive.

    Raises:
        WeightsError: something is in the way at ``archive``, a backbone's weights are not here, or are damaged.
    """
    if archive.exists():
        raise WeightsError(f"{archive} is there already. Delete it, or give another name.")
    files = _to_pack(specs)
    members = [Member(file.path.name, file.size, file.sha256, file.source) for file in files]
    listed = [{key: value for key, value in dataclasses.asdict(each).items() if key != "status"} for each in members]
    manifest = json.dumps({"format": _FORMAT, "files": listed}, indent=2).encode()
    total, done = sum(file.size for file in files), 0
    with write_atomically(archive) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as zipped:
        zipped.writestr(zipfile.ZipInfo(MANIFEST, _SAME_DATE), manifest)
        for file in files:
            info = zipfile.ZipInfo(file.path.name, _SAME_DATE)
            info.file_size = file.size
            with file.path.open("rb") as source, zipped.open(info, "w") as target:
                for size in _copy(source, target, file.size, file.sha256, str(file.path)):
                    progress(f"Packing {archive.name}", done + size, total)
            done += file.size
    return members


def _to_pack(specs: Sequence[BackboneSpec]) -> list[CachedFile]:
    files: dict[str, CachedFile] = {}
    for spec in specs or CATALOGUE:
        paths = {source: cached.cached_path(spec, source) for source in (spec.published, "packaged")}
        if specs and not any(paths.values()):
            raise WeightsError(
                f"The weights of {spec.name} are not in {weights_folder()}. Run 'headstart weights pull {spec.name}' "
                "first. Nothing was packed."
            )
        for source, path in paths.items():
            if path:
                file = spec.packaged if source == "packaged" and spec.packaged else spec.weights
                files[path.name] = cached.check(path, cached.pin_of(file))
    if not files:
        raise WeightsError(f"There are no weights in {weights_folder()} yet. Run 'headstart weights pull' first.")
    return list(files.values())


# --- importing --------------------------------------------------------------------------------------------------------


def import_weights(archive: Path, *, progress: Progress = silent) -> list[Member]:
    """Bring the weights of an archive into the cache: all of them, or none should anything be wrong.

    Raises:
        WeightsError: the archive is not one of `pack_weights`, is damaged, or disagrees with what is published or with
            good files that are here.
    """
    with _opened(archive) as zipped:
        members = _read_manifest(archive, zipped)
        with (
            locked(weights_folder() / "import", lambda: progress("Waiting for another import", 0, 1)),
            _staging() as new,
        ):
            _stage(archive, zipped, members, new, progress)
            plans = [dataclasses.replace(member, status=_plan(archive, member)) for member in members]
            for member in plans:
                _accept(archive, member, new)
    return plans


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    if not archive.is_file():
        raise WeightsError(f"{archive}: there is no such file. Expected an archive of 'headstart weights pack'.")
    try:
        with zipfile.ZipFile(archive) as zipped:
            yield zipped
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, OverflowError, struct.error) as error:
        raise _bad(archive, f"is damaged, or is no archive at all ({error})") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # A place in the file that cannot be.
            raise
        raise _bad(archive, "is damaged, or is no archive at all") from error


def _read_manifest(archive: Path, zipped: zipfile.ZipFile) -> list[Member]:
    """The members, after all that can be checked without reading them has been."""
    infos = {info.filename: info for info in zipped.infolist()}
    if len(infos) != len(zipped.infolist()) or MANIFEST not in infos:
        raise _bad(archive, f"has no {MANIFEST}, or a name in it twice")
    for info in infos.values():
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
            raise _bad(archive, f"has a member that is compressed or encrypted: {info.filename!r}")
    if infos[MANIFEST].file_size > 1 << 20 or sum(info.file_size for info in infos.values()) > archive.stat().st_size:
        raise _bad(archive, "has members that are larger than it is")
    try:
        manifest = json.loads(zipped.read(MANIFEST))
        if manifest["format"] != _FORMAT:
            raise _bad(archive, f"has another format than {_FORMAT!r}")
        members = [_member(each) for each in manifest["files"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _bad(archive, f"has a {MANIFEST} that cannot be understood") from error
    if sorted([MANIFEST, *(member.name for member in members)]) != sorted(infos):
        raise _bad(archive, f"holds other files than its {MANIFEST} lists")
    for member in members:
        if member.name not in known_files():
            raise _bad(archive, f"holds {member.name!r}, which is no weights file of any backbone")
        if member.size != infos[member.name].file_size:
            raise _bad(archive, f"holds {member.name} with another size than its {MANIFEST} says")
    return members


def _member(row: dict[str, Any]) -> Member:
    name, size, sha256, source = row["name"], row["size"], row["sha256"], row["source"]
    if not (isinstance(name, str) and isinstance(size, int) and isinstance(sha256, str) and isinstance(source, str)):
        raise TypeError(row)
    return Member(name, size, sha256, source[:500])


@contextlib.contextmanager
def _staging() -> Iterator[Path]:
    """A folder in the cache for what was not checked yet; what an import that was killed left there is removed."""
    parent = unfinished(weights_folder() / "import")
    shutil.rmtree(parent, ignore_errors=True)
    parent.mkdir(parents=True)
    try:
        yield Path(tempfile.mkdtemp(dir=parent))
    finally:
        shutil.rmtree(parent, ignore_errors=True)


def _stage(archive: Path, zipped: zipfile.ZipFile, members: list[Member], folder: Path, progress: Progress) -> None:
    total, done = sum(member.size for member in members), 0
    for member in members:
        where = f"{archive}: {member.name}"
        with zipped.open(member.name) as source, (folder / member.name).open("xb") as target:
            for size in _copy(source, target, member.size, member.sha256, where):
                progress(f"Importing {archive.name}", done + size, total)
        done += member.size
        problem = cached.examine(folder / member.name).problem
        if problem:
            raise _bad(archive, f"holds {member.name}, but {problem.rstrip('.')}")


def _plan(archive: Path, member: Member) -> str:
    path = weights_folder() / member.name
    if not path.is_file():
        return "imported"
    here = cached.examine(path)
    if not here.ok:
        return "replaced"
    if here.sha256 != member.sha256:
        raise WeightsError(
            f"{archive} holds another {member.name} (SHA-256 {member.sha256}) than {path} ({here.sha256}), and "
            "which is right is not known. Nothing was imported. Delete the latter if you trust the archive."
        )
    return "here already"


def _accept(archive: Path, member: Member, folder: Path) -> None:
    if member.status == "here already":
        return
    path = weights_folder() / member.name
    with locked(path, lambda: None):
        cached.settle(folder / member.name, path, f"{member.source} (by {archive.name})", member.sha256)


def _copy(source: IO[bytes], target: IO[bytes], size: int, sha256: str, where: str) -> Iterator[int]:
    """Copy exactly so many bytes with that hash; yields how many are done."""
    digest, done = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK):
        done += len(chunk)
        if done > size:
            break
        digest.update(chunk)
        target.write(chunk)
        yield done
    if done != size or digest.hexdigest() != sha256:
        raise WeightsError(f"{where} is damaged: its SHA-256 is not {sha256}. Nothing was packed or imported.")


def _bad(archive: Path, problem: str) -> WeightsError:
    return WeightsError(
        f"{archive} {problem}. Nothing was imported. Make it with 'headstart weights pack', and copy all of it."
    )
