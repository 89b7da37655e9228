"""From a folder or a manifest to an `ImageFolder`: which files there are, what they show, and which cannot be used."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from headstart.errors import DataError, ImageError
from headstart.pictures.decode import header, read, why_unreadable
from headstart.pictures.folder import BETWEEN_NAMES, ImageFile, ImageFolder, Skipped, readable_name
from headstart.pictures.layout import BAD_NAME, Listing, list_files
from headstart.pictures.manifest import read_manifest
from headstart.progress import Progress, silent

_NUM_THREADS = 4  # Reading and hashing release the GIL.
_WORTH_A_THREAD = 1e-3  # Seconds for a file; to hand over one that takes less costs more than it saves.
_BATCH = 256  # Files between two calls of progress; also what an interrupt has to wait for.
_FIRST_BATCH = 32  # Tells whether they are worth it.


def scan(data: str | Path, *, progress: Progress = silent) -> ImageFolder:
    """Find the labelled pictures of a folder or manifest; each file is read and hashed once, none is decoded.

    Args:
        data: a folder with one sub-folder per class; or one with train/, val/ and test/ folders of those; or a
            manifest (.csv, .jsonl, .parquet) with file_name, label and optionally split and group.
        progress: told how many files have been read.

    Returns:
        The usable pictures sorted by name, the class names sorted, and what was skipped, with the reasons.

    Raises:
        DataError: there is nothing to learn from, or no telling what the classes are.
    """
    listing = _list(Path(data))
    images = tuple(_usable(listing, progress))
    folder = ImageFolder(
        root=listing.root,
        images=tuple(sorted(images, key=lambda image: image.name)),
        class_names=listing.class_names,
        skipped=tuple(sorted(itertools.chain(*listing.skipped.values()), key=lambda each: each.name)),
    )
    several = any(image.label_set is not None for image in listing.images)
    (_check_names if several else _check_classes)(folder, listing.skipped)
    return folder


def _list(root: Path) -> Listing:
    try:
        if root.is_dir():
            return list_files(root)
        if root.is_file():
            rows = read_manifest(root)
            return Listing(root, list(rows), tuple(sorted({name for row in rows for name in row.labels})))
        exists = root.exists()
    except OSError as error:
        raise DataError(f"{root} cannot be opened: {why_unreadable(root, error)}.") from error
    expected = "Expected a folder with one sub-folder per class, or a manifest (.csv, .jsonl, .parquet)."
    if exists:
        raise DataError(f"{root} is neither a folder nor a regular file. {expected}")
    raise DataError(f"{readable_name(str(root))} does not exist. {expected}")


def _usable(listing: Listing, progress: Progress) -> Iterator[ImageFile]:
    """The images that can be used, each with its hash; the others go to what the listing skips."""
    files = listing.images
    done, takes_long = 0, False
    with ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="headstart-scan") as pool:
        while batch := files[done : done + (_BATCH if done else _FIRST_BATCH)]:
            start = time.perf_counter()
            for image, result in zip(batch, (pool.map if takes_long else map)(_examine, batch), strict=True):
                if isinstance(result, ImageFile):
                    yield result
                else:
                    listing.skip(image.label, image.name, result)
            takes_long = takes_long or time.perf_counter() - start > _WORTH_A_THREAD * len(batch)
            done += len(batch)
            progress("Reading files", done, len(files))


def examine(image: ImageFile) -> ImageFile:
    """The image with its hash, after a look at its header.

    Raises:
        ImageError: it cannot be used.
    """
    if readable_name(image.name) != image.name:
        raise ImageError(BAD_NAME)
    data = read(image.path)
    header(data)
    return dataclasses.replace(image, sha256=hashlib.sha256(data).hexdigest())


def _examine(image: ImageFile) -> ImageFile | str:
    """The same, or the reason."""
    try:
        return examine(image)
    except ImageError as error:
        return str(error)


def _check_classes(folder: ImageFolder, skipped: Mapping[str, Sequence[Skipped]]) -> None:
    usable = {image.label for image in folder.images}
    for label in folder.class_names:
        if label not in usable:
            raise DataError(_why_no_pictures(folder, label, skipped.get(label, ())))
    if len(folder.class_names) < 2:
        only = folder.class_names[0]
        raise DataError(
            f"{folder.root} has one class only, '{only}'; at least 2 are needed to tell apart.{_hint(folder, only)}"
        )


def _check_names(folder: ImageFolder, skipped: Mapping[str, Sequence[Skipped]]) -> None:
    """The same where pictures have several names: each is on a picture, and not all pictures have the same."""
    usable = {name for image in folder.images for name in image.labels}
    for name in folder.class_names:
        if name not in usable:
            of_name = [each for label, some in skipped.items() if name in label.split(BETWEEN_NAMES) for each in some]
            raise DataError(_why_no_pictures(folder, name, of_name))
    sets = {image.labels for image in folder.images}
    if len(sets) < 2:
        same = f"the same names, {', '.join(folder.class_names)}" if folder.class_names else "no name"
        raise DataError(
            f"All pictures of {folder.root} have {same}; at least 2 sets of names are needed to tell apart."
        )


def _why_no_pictures(folder: ImageFolder, label: str, skipped: Sequence[Skipped]) -> str:
    remedy = folder.remedy(label)
    if not skipped:
        return f"Class '{label}' has no files. Add images or remove {remedy}."
    first = skipped[0]
    files = "1 file was" if len(skipped) == 1 else f"{len(skipped)} files were"
    return (
        f"Class '{label}' has no readable image: {files} skipped, the first being {first.name} ({first.reason}). "
        f"Add images or remove {remedy}."
    )


def _hint(folder: ImageFolder, only: str) -> str:
    """Somebody who gives the folder around the right one gets the right one's name."""
    parts = [image.name.split("/") for image in folder.images]
    inner = {names[1] for names in parts if len(names) > 2 and names[0] == only}
    return f" Did you mean {folder.root / only}?" if len(inner) > 1 else ""
