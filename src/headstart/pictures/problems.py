"""What a scan can tell about the pictures beyond each one by itself: content that occurs more than once."""

from __future__ import annotations

from headstart.pictures.folder import ImageFile, ImageFolder


def duplicates(folder: ImageFolder) -> tuple[tuple[str, ...], ...]:
    """The names of images with equal content, one group for each content that occurs more than once."""
    return tuple(_names(group) for group in _equal_content(folder))


def conflicting_duplicates(folder: ImageFolder) -> tuple[tuple[str, ...], ...]:
    """The groups of `duplicates` whose labels differ: at least one label in each is wrong."""
    return tuple(_names(group) for group in _equal_content(folder) if len({image.label for image in group}) > 1)


def _equal_content(folder: ImageFolder) -> list[list[ImageFile]]:
    by_hash: dict[str, list[ImageFile]] = {}
    for image in folder.images:
        by_hash.setdefault(image.sha256, []).append(image)
    return [group for group in by_hash.values() if len(group) > 1]


def _names(group: list[ImageFile]) -> tuple[str, ...]:
    return tuple(image.name for image in group)
