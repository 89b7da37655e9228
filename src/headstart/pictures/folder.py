"""The labelled pictures of one folder or manifest, as values."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

SPLITS = ("train", "val", "test")

BETWEEN_NAMES = "|"
"""What stands between the names of a picture that has several, where they have to be one text."""


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """One labelled picture.

    Attributes:
        path: where the file is.
        name: its path relative to the scanned folder (or to the manifest), with forward slashes.
        label: the name of its class; where pictures have several names or none, all of them, joined by "|".
        sha256: the hash of the file's content, in hexadecimal.
        group: what must stay on one side of the split (a person, a part, a batch), where the manifest says.
        split: "train", "val" or "test" where the folders or the manifest say, else None.
        label_set: its names, sorted, in multi-label data, where no name holds a "|"; None where each picture has one.
    """

    path: Path
    name: str
    label: str
    sha256: str
    group: str | None = None
    split: str | None = None
    label_set: tuple[str, ...] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Its names: one, or any number of them in multi-label data."""
        return (self.label,) if self.label_set is None else self.label_set


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A file that was left out, and why."""

    name: str
    reason: str


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """Labelled pictures: what `scan` returns and everything else starts from.

    Attributes:
        root: the scanned folder, or the manifest's file.
        images: the usable files, sorted by name.
        class_names: the names of the classes in their fixed order; a label's index here is its number.
        skipped: the files that were left out, each with its reason.
    """

    root: Path
    images: tuple[ImageFile, ...]
    class_names: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        """The number of usable images."""
        return len(self.images)

    @property
    def is_multi_label(self) -> bool:
        """Whether a picture may have several names, or none: its manifest says so of one at least."""
        return any(image.label_set is not None for image in self.images)

    def without(self, failures: Collection[Skipped]) -> ImageFolder:
        """The same folder less the files that turned out to be unusable."""
        names = {failure.name for failure in failures}
        images = tuple(image for image in self.images if image.name not in names)
        skipped = tuple(sorted((*self.skipped, *failures), key=lambda each: each.name))
        return dataclasses.replace(self, images=images, skipped=skipped)

    def remedy(self, label: str) -> str:
        """What to take away to be rid of a class: "photos/cat", or its rows in the manifest."""
        if self.is_multi_label:
            return f"the name from {self.root}"
        if self.root.is_file():
            return f"its rows from {self.root}"
        if not self.images or self.images[0].split is None:
            return str(self.root / label)
        image = next((image for image in self.images if image.label == label), self.images[0])
        return str(self.root / image.name.split("/")[0] / label)


def readable_name(name: str) -> str:
    """The name as text that can be printed and stored: a byte 0xe9 that is not UTF-8 appears as ``\\udce9``."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
