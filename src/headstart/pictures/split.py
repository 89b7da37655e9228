"""Which images train, which validate and which test: decided by what the images are, not by what they are called."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from headstart.errors import DataError
from headstart.pictures.folder import ImageFile, ImageFolder, Skipped
from headstart.pictures.labels import strata

_NUM_ORDERS = 20  # Only images or groups of several classes can make an order fail; then the next order is tried.
_NEEDED = ("test", "train")


@dataclasses.dataclass(frozen=True)
class _Unit:
    """Images that stay on one side, since they have equal content or the same group.

    Attributes:
        members: the indices of its images.
        key: the smallest content hash in it: its name, whatever its files are called.
        counts: how many of its images each class has, and each frequent set of names; see `strata`.
    """

    members: tuple[int, ...]
    key: str
    counts: Counter[str]


@dataclasses.dataclass(frozen=True)
class _Pool:
    """What test and validation can be taken from.

    Attributes:
        units: the units all of whose images are free to move.
        shares: the sides that are to be filled, and which part of each class each gets.
        pinned: how many images of each class stay in train whatever happens.
    """

    units: tuple[_Unit, ...]
    shares: Mapping[str, float]
    pinned: Counter[str]

    def num_units(self) -> Counter[str]:
        """How many units hold each class."""
        return Counter(label for unit in self.units for label in unit.counts)


def assign_splits(folder: ImageFolder, *, seed: int, test: float = 0.2, val: float = 0.15) -> tuple[str, ...]:
    """Split into train, validation and test: stratified by class, with duplicates and groups kept together.

    A function of the seed and of the contents, labels and groups alone: renaming or reordering files changes nothing,
    and added images move few others. Splits that the folders or the manifest give are kept; what they lack of
    validation and test is taken from their training images.

    Args:
        folder: the scanned images.
        seed: another seed, another split.
        test: the part of each class that goes to test, rounded to images.
        val: the part of each class that goes to validation.

    Returns:
        "train", "val" or "test" for each image of ``folder.images``, in their order.

    Raises:
        DataError: a class has too few images that may be separated to be on every side.
    """
    if not (test > 0 and val > 0 and test + val < 1):
        raise ValueError(f"test and val must be positive and leave something to train on; got {test} and {val}")
    splits = [image.split or "train" for image in folder.images]
    given = {image.split for image in folder.images}
    pool = _pool(folder, {side: share for side, share in (("test", test), ("val", val)) if side not in given})
    num_units = pool.num_units()
    for label in folder.class_names:
        if num_units[label] < len(pool.shares) + (not pool.pinned[label]):
            raise DataError(_too_few(folder, pool, label))
    for index, side in _carve(folder, pool, seed).items():
        for member in pool.units[index].members:
            splits[member] = side
    return tuple(splits)


def split_images(
    folder: ImageFolder, *, seed: int, test: float = 0.2, val: float = 0.15
) -> tuple[ImageFolder, tuple[str, ...]]:
    """Split the images, and drop training images whose content or group is also in the test."""
    splits = assign_splits(folder, seed=seed, test=test, val=val)
    leaks = set(find_leaks(folder, splits))
    if not leaks:
        return folder, splits
    kept = [split for image, split in zip(folder.images, splits, strict=True) if image.name not in leaks]
    reason = "the same picture or group is among the test images, so it was not trained on"
    return folder.without([Skipped(name, reason) for name in sorted(leaks)]), tuple(kept)


def find_leaks(folder: ImageFolder, splits: Sequence[str]) -> tuple[str, ...]:
    """The names of train and validation images whose content or group also occurs in test.

    Only splits that were given can have any; the caller drops them, and the test images stay.
    """
    if len(splits) != len(folder):
        raise ValueError(f"{len(splits)} splits for {len(folder)} images")
    leaks = []
    for unit in _units(folder.images):
        if any(splits[index] == "test" for index in unit.members):
            leaks += [folder.images[index].name for index in unit.members if splits[index] != "test"]
    return tuple(sorted(leaks))


def unit_numbers(images: Sequence[ImageFile]) -> npt.NDArray[np.int64]:
    """A number for each image; images that must stay together (equal content or group) have the same."""
    numbers = np.zeros(len(images), np.int64)
    for number, unit in enumerate(_units(images)):
        numbers[list(unit.members)] = number
    return numbers


def stratified_subset(labels: npt.ArrayLike, hashes: Sequence[str], count: int, seed: int) -> npt.NDArray[np.int64]:
    """Choose images for a quick look: each class in proportion, and at least one of each where the count allows.

    Like the split, it goes by what the images are: added images change it little, and renamed ones not at all.

    Args:
        labels: the class of each image, as numbers or names, shape (n,).
        hashes: the content hash of each.
        count: how many to choose; all of them if there are no more.
        seed: another seed, another choice.

    Returns:
        The chosen indices in rising order, shape (min(count, n),).
    """
    if count < 1:
        raise ValueError(f"count must be at least 1; got {count}")
    _, numbers, sizes = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    if count >= len(numbers):
        return np.arange(len(numbers))
    least = int(count >= len(sizes))
    shares = sizes * (count / len(numbers))
    take = np.maximum(np.floor(shares).astype(np.int64), least)
    while take.sum() < count:
        take[np.argmax(shares - take)] += 1
    while take.sum() > count:
        take[np.argmax(np.where(take > least, take - shares, -np.inf))] -= 1
    drawn = np.array([hashlib.sha256(f"{seed}:subset:{each}".encode()).hexdigest() for each in hashes])
    order = np.argsort(drawn, kind="stable")
    chosen = [order[numbers[order] == each][: take[each]] for each in range(len(sizes))]
    return np.sort(np.concatenate(chosen))


def _units(images: Sequence[ImageFile]) -> tuple[_Unit, ...]:
    """Union-find over contents and groups: an image joins its content with its group."""
    parents: dict[tuple[str, str], tuple[str, str]] = {}

    def find(node: tuple[str, str]) -> tuple[str, str]:
        parents.setdefault(node, node)
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    for image in images:
        content = find(("content", image.sha256))
        if image.group is not None:
            parents[content] = find(("group", image.group))
    members: dict[tuple[str, str], list[int]] = {}
    for index, image in enumerate(images):
        members.setdefault(find(("content", image.sha256)), []).append(index)
    counted = strata(images)
    return tuple(
        _Unit(
            tuple(each),
            min(images[index].sha256 for index in each),
            Counter(name for index in each for name in counted[index]),
        )
        for each in members.values()
    )


def _pool(folder: ImageFolder, shares: Mapping[str, float]) -> _Pool:
    """A train image that shares its unit with given validation stays in train; one that does with test is a leak."""
    free = []
    pinned: Counter[str] = Counter()
    for unit in _units(folder.images):
        images = [folder.images[index] for index in unit.members]
        given = {image.split or "train" for image in images}
        if given == {"train"}:
            free.append(unit)
        elif "test" not in given:
            pinned.update(name for image in images if image.split == "train" for name in image.labels)
    return _Pool(tuple(free), shares, pinned)


def _carve(folder: ImageFolder, pool: _Pool, seed: int) -> dict[int, str]:
    """The side of each unit, by its index; the first of a few orders with every class on every side.

    Where images have several names it may come to the first in which only the validation lacks some.
    """
    class_names = folder.class_names
    sets = sorted(pool.num_units().keys() - set(class_names))
    second_best = None
    for attempt in range(_NUM_ORDERS):
        hashes = [hashlib.sha256(f"{seed}:{attempt}:{unit.key}".encode()).digest() for unit in pool.units]
        order = sorted(range(len(pool.units)), key=hashes.__getitem__)
        sides = _fill((*class_names, *sets), pool, order)
        missing = _missing_class(class_names, pool, sides, (*pool.shares, "train"))
        if missing is None:
            return sides
        if folder.is_multi_label and second_best is None and not _missing_class(class_names, pool, sides, _NEEDED):
            second_best = sides
    if second_best is not None:
        return second_best
    raise DataError(_why_not_on_every_side(folder, missing))


def _why_not_on_every_side(folder: ImageFolder, label: str | None) -> str:
    others = (
        "its images also have other names" if folder.is_multi_label else "its groups also hold images of other classes"
    )
    remedy = "Add images with that name" if folder.is_multi_label else "Use smaller groups"
    return (
        f"Class '{label}' cannot be on every side of the split, since {others}. {remedy}, or give the split in the "
        "manifest."
    )


def _fill(class_names: Sequence[str], pool: _Pool, order: Sequence[int]) -> dict[int, str]:
    """Class by class, the one with the fewest units first: its first units to test, the next to val, the rest to train.

    A unit that would go over the quota is passed over; one that holds several classes is placed with the first.
    """
    by_class: dict[str, list[int]] = {label: [] for label in class_names}
    for index in order:
        for label in pool.units[index].counts:
            by_class[label].append(index)
    sides: dict[int, str] = {}
    for label in sorted(class_names, key=lambda name: (len(by_class[name]), name)):
        units = by_class[label]
        sizes = {index: pool.units[index].counts[label] for index in units}
        waiting = [*pool.shares, "train"]
        for side, share in pool.shares.items():
            waiting.remove(side)
            present = {sides[index] for index in units if index in sides} | ({"train"} if pool.pinned[label] else set())
            room = max(1, round(sum(sizes.values()) * share)) - sum(sizes[i] for i in units if sides.get(i) == side)
            free = [index for index in units if index not in sides]
            most = len(free) - len(set(waiting) - present)
            sides |= dict.fromkeys(_take(free, sizes, room, most, needs_one=side not in present), side)
        sides |= dict.fromkeys((index for index in units if index not in sides), "train")
    return sides


def _take(free: Sequence[int], sizes: Mapping[int, int], room: int, most: int, *, needs_one: bool) -> list[int]:
    """The first units that fit into the room, at most so many; the smallest one if none fits and one is needed."""
    taken: list[int] = []
    for index in free:
        if len(taken) >= most or room <= 0:
            break
        if sizes[index] <= room:
            taken.append(index)
            room -= sizes[index]
    if needs_one and not taken and most > 0:
        taken.append(min(free, key=sizes.__getitem__))
    return taken


def _missing_class(
    class_names: Sequence[str], pool: _Pool, sides: Mapping[int, str], wanted_sides: Sequence[str]
) -> str | None:
    """A class that is not on one of some sides, where that is to be filled."""
    present = {("train", label) for label in pool.pinned}
    present |= {(side, label) for index, side in sides.items() for label in pool.units[index].counts}
    wanted = ((side, label) for label in class_names for side in wanted_sides if side in (*pool.shares, "train"))
    return next((label for side, label in wanted if (side, label) not in present), None)


def _too_few(folder: ImageFolder, pool: _Pool, label: str) -> str:
    given = any(image.split for image in folder.images)
    total = sum(label in image.labels and image.split in (None, "train") for image in folder.images)
    needed = len(pool.shares) + 1
    kind = "training image" if given else "image"
    have = f"{total} {kind}" if total == 1 else f"{total} {kind}s"
    if total >= needed:
        apart = pool.num_units()[label] + min(1, pool.pinned[label])
        have += f", but only {apart} that may be separated (equal content or one group stays together)"
    words = ["train"] + [word for side, word in (("val", "validation"), ("test", "test")) if side in pool.shares]
    into = f"split into {', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "train on"
    are = "is" if needed == 1 else "are"
    return f"Class '{label}' has {have}; {needed} {are} needed to {into}. Add images or remove {folder.remedy(label)}."
