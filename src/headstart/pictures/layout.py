"""Find the files of a folder: one sub-folder per class, or train/, val/ and test/ folders of those."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

from headstart.errors import DataError
from headstart.pictures.decode import READABLE, SUFFIXES, why_unreadable
from headstart.pictures.folder import ImageFile, Skipped, readable_name
from headstart.pictures.manifest import MANIFEST_SUFFIXES, SPLIT_NAMES

_CLUTTER = frozenset({"__macosx", "thumbs.db", "desktop.ini"})

BAD_NAME = "its name is not valid UTF-8; rename it"

_EXPECTED = "Expected one sub-folder per class, such as {root}/cat and {root}/dog."


@dataclasses.dataclass
class Listing:
    """What lies in a folder or stands in a manifest, before any file is opened.

    Attributes:
        root: the folder or the manifest.
        images: the files to look at; every ``sha256`` is still empty.
        class_names: the classes, sorted by code point.
        skipped: what is left out, by class; under "" what belongs to no class.
    """

    root: Path
    images: list[ImageFile] = dataclasses.field(default_factory=list)
    class_names: tuple[str, ...] = ()
    skipped: dict[str, list[Skipped]] = dataclasses.field(default_factory=dict)

    def skip(self, label: str, name: str, reason: str) -> None:
        """Leave out a file or folder of a class, or of none ("")."""
        self.skipped.setdefault(readable_name(label), []).append(Skipped(readable_name(name), reason))


def list_files(root: Path) -> Listing:
    """List the files below a folder with the class, and where the folders say it the split, of each.

    Raises:
        DataError: the folder cannot be opened, or is not laid out in a way that says what the classes are.
    """
    folders, files = _children(root)
    splits = _split_folders(root, folders)
    listing = Listing(root)
    if not splits:
        listing.class_names = _list_classes(listing, "", None, folders, files)
        return listing
    for name in files:
        listing.skip("", name, "not in a class folder")
    classes = {
        name: _list_classes(listing, f"{name}/", split, *_children(root / name)) for name, split in splits.items()
    }
    train = next(name for name, split in splits.items() if split == "train")
    listing.class_names = classes[train]
    for name, labels in classes.items():
        for label in sorted(set(labels) - set(listing.class_names)):
            raise DataError(
                f"Class '{label}' is in {root / name} but not in {root / train}; a class needs training images. "
                f"Add {root / train / label} or remove {root / name / label}."
            )
    return listing


def _split_folders(root: Path, folders: list[str]) -> dict[str, str]:
    """The folders that are splits, by name; none unless train is there together with val or test."""
    splits = {name: SPLIT_NAMES[name.lower()] for name in folders if name.lower() in SPLIT_NAMES}
    if "train" not in splits.values() or len(set(splits.values())) < 2:
        return {}
    if len(splits) != len(set(splits.values())):
        raise DataError(f"{root} has the same split twice: {', '.join(splits)}. Keep one folder for each split.")
    others = [readable_name(name) for name in folders if name not in splits]
    if others:
        raise DataError(
            f"{root} has {' and '.join(splits)}, which are taken as splits, but also {', '.join(others[:5])}. "
            "Move the other folders elsewhere; or, if these are classes, rename the folders that look like splits."
        )
    return splits


def _list_classes(
    listing: Listing, prefix: str, split: str | None, folders: list[str], files: list[str]
) -> tuple[str, ...]:
    """List the class folders below one folder and return their names."""
    where = listing.root / prefix
    if not folders:
        raise DataError(_why_no_classes(where, files))
    for name in files:
        listing.skip("", prefix + name, "not in a class folder")
    outside = {_identity(folder) for folder in (where, *where.resolve().parents)}
    for label in folders:
        # Each real folder once a class: a link back up, or a web of links between folders, then ends.
        _walk(listing, prefix + label, label, split, set(outside))
    return tuple(readable_name(label) for label in folders)


def _walk(listing: Listing, top: str, label: str, split: str | None, visited: set[tuple[int, int]]) -> None:
    """List the files below one class folder; a loop, since a recursion would end at a thousand nested folders."""
    pending = [top]
    while pending:
        name = pending.pop()
        where = listing.root / name
        try:
            identity = _identity(where)
            if identity in visited:
                continue
            visited.add(identity)
            folders, files = _entries(where)
        except OSError as error:
            listing.skip(label, name, f"a folder that cannot be opened: {why_unreadable(where, error)}")
            continue
        pending.extend(f"{name}/{folder}" for folder in reversed(folders))
        for file in files:
            _list_file(listing, f"{name}/{file}", label, split)


def _list_file(listing: Listing, name: str, label: str, split: str | None) -> None:
    suffix = _suffix(name)
    if readable_name(name) != name:
        listing.skip(label, name, BAD_NAME)
    elif suffix not in SUFFIXES:
        what = f"the suffix '{suffix}'" if suffix else "a name without a suffix"
        listing.skip(label, name, f"{what} is not a picture's; headstart reads {READABLE}")
    else:
        listing.images.append(ImageFile(listing.root / name, name, label, "", split=split))


def _children(folder: Path) -> tuple[list[str], list[str]]:
    try:
        return _entries(folder)
    except OSError as error:
        raise DataError(
            f"The folder {folder} cannot be opened: {why_unreadable(folder, error)}. Check its permissions."
        ) from error


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """The names of the sub-folders and of the other entries, each sorted, without what is hidden or clutter."""
    folders: list[str] = []
    files: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.name.lower() not in _CLUTTER:
                (folders if _is_folder(entry) else files).append(entry.name)
    return sorted(folders), sorted(files)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself; `read` says so
        return False


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _why_no_classes(folder: Path, files: Iterable[str]) -> str:
    files = list(files)
    pictures = sum(_suffix(name) in SUFFIXES for name in files)
    expected = _EXPECTED.format(root=folder)
    if not files:
        return f"The folder {folder} is empty. {expected}"
    manifest = next((name for name in files if _suffix(name) in MANIFEST_SUFFIXES), None)
    hint = f" Did you mean the manifest {folder / manifest}?" if manifest else ""
    if not pictures:
        return f"The folder {folder} has no sub-folders and no pictures. {expected}{hint}"
    lie = "1 picture lies" if pictures == 1 else f"{pictures} pictures lie"
    return f"{lie} directly in {folder}, which has no class folders. {expected}{hint}"


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  a Path for each of a million names is slow
