"""The split: a function of seed, contents, labels and groups, with no content or group on two sides."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.errors import DataError
from headstart.pictures.folder import ImageFile, ImageFolder
from headstart.pictures.split import assign_splits, find_leaks, stratified_subset


def image(label, content, group=None, split=None, name=None):
    name = name or f"{split + '/' if split else ''}{label}/{content}.jpg"
    digest = hashlib.sha256(str(content).encode()).hexdigest()
    return ImageFile(Path("photos") / name, name, label, digest, group, split)


def folder_of(*images, class_names=None):
    return ImageFolder(Path("photos"), images, class_names or tuple(sorted({each.label for each in images})))


def plain(**sizes):
    return folder_of(*(image(label, f"{label}{index}") for label, size in sizes.items() for index in range(size)))


def complaint(folder, **options):
    with pytest.raises(DataError) as caught:
        assign_splits(folder, seed=0, **options)
    return str(caught.value)


def counts(folder, splits):
    return Counter((each.label, split) for each, split in zip(folder.images, splits, strict=True))


# Properties


@st.composite
def folders(draw):
    """Classes of at least five images, with duplicates and groups on top, some over two classes."""
    labels = "abc"[: draw(st.integers(2, 3))]
    images = [image(label, f"{label}{index}") for label in labels for index in range(draw(st.integers(5, 25)))]
    for extra in range(draw(st.integers(0, 12))):
        label = draw(st.sampled_from(labels))
        content = draw(st.sampled_from([f"{label}0", f"{label}1", f"x{extra}", "shared"]))
        group = draw(st.sampled_from([None, f"{label}-p", f"{label}-q", "r"]))
        images.append(image(label, content, group, name=f"{label}/extra{extra}.jpg"))
    return folder_of(*images)


def units_of(folder):
    """The connected images, found in the simplest way: by merging sets until nothing touches."""
    units = []
    for each in folder.images:
        tokens, members = {each.sha256, ("group", each.group)} - {("group", None)}, {each.name}
        for other in [unit for unit in units if unit[0] & tokens]:
            units.remove(other)
            tokens |= other[0]
            members |= other[1]
        units.append((tokens, members))
    return [members for _, members in units]


@settings(max_examples=150, deadline=None, database=None)
@given(folders(), st.integers(0, 2**32))
def test_no_unit_on_two_sides_and_every_class_on_each(folder, seed):
    splits = assign_splits(folder, seed=seed)
    side = dict(zip((each.name for each in folder.images), splits, strict=True))
    for unit in units_of(folder):
        assert len({side[name] for name in unit}) == 1
    assert set(counts(folder, splits)) == {(label, each) for label in folder.class_names for each in set(splits)}
    assert set(splits) == {"train", "val", "test"}
    assert find_leaks(folder, splits) == ()


@settings(max_examples=60, deadline=None, database=None)
@given(folders(), st.integers(0, 9), st.randoms(use_true_random=False))
def test_order_and_names_change_nothing(folder, seed, shuffler):
    shuffled = list(folder.images)
    shuffler.shuffle(shuffled)
    renamed = [dataclasses.replace(each, name=f"{index}", path=Path(f"{index}")) for index, each in enumerate(shuffled)]
    before = dict(zip(map(id, folder.images), assign_splits(folder, seed=seed), strict=True))
    after = assign_splits(dataclasses.replace(folder, images=tuple(renamed)), seed=seed)
    assert after == tuple(before[id(each)] for each in shuffled)


@settings(max_examples=80, deadline=None, database=None)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(3, 60), min_size=1),
    st.floats(0.05, 0.4),
    st.floats(0.05, 0.4),
)
def test_single_images_fill_the_quota(sizes, test, val):
    folder = plain(**sizes)
    found = counts(folder, assign_splits(folder, seed=1, test=test, val=val))
    for label, size in sizes.items():
        assert abs(found[label, "test"] - size * test) <= 1
        assert abs(found[label, "val"] - size * val) <= 1
        assert found[label, "train"] >= 1


@settings(max_examples=30, deadline=None, database=None)
@given(st.integers(10, 200), st.integers(0, 9))
def test_an_added_image_moves_few(size, seed):
    before, after = plain(a=size, b=9), plain(a=size + 1, b=9)
    old = dict(zip((each.name for each in before.images), assign_splits(before, seed=seed), strict=True))
    new = dict(zip((each.name for each in after.images), assign_splits(after, seed=seed), strict=True))
    assert sum(old[name] != new[name] for name in old) <= 2


# Examples


def test_defaults_and_seed():
    folder = plain(cat=100, dog=40)
    splits = assign_splits(folder, seed=0)
    assert counts(folder, splits) == {
        ("cat", "test"): 20,
        ("cat", "val"): 15,
        ("cat", "train"): 65,
        ("dog", "test"): 8,
        ("dog", "val"): 6,
        ("dog", "train"): 26,
    }
    assert assign_splits(folder, seed=0) == splits
    assert assign_splits(folder, seed=1) != splits


def test_the_split_of_a_version_is_the_split_of_the_next():
    """Pinned: a change here moves every user's test images."""
    assert "".join(side[1] for side in assign_splits(plain(a=10, b=5), seed=3)) == "arrrarrreearrer"


def test_three_images_are_enough():
    assert sorted(assign_splits(plain(a=3, b=3), seed=0)) == ["test"] * 2 + ["train"] * 2 + ["val"] * 2
    assert sorted(assign_splits(plain(a=3), seed=0, test=0.9, val=0.05)) == ["test", "train", "val"]


def test_a_large_group_does_not_swamp_test():
    folder = folder_of(
        *(image("a", index, "large" if index < 50 else None) for index in range(100)), *plain(b=9).images
    )
    for seed in range(10):
        splits = assign_splits(folder, seed=seed)
        assert set(splits[:50]) == {"train"}
        assert counts(folder, splits)["a", "test"] == 20


def test_groups_that_all_hold_every_class():
    folder = folder_of(*(image(label, f"{label}{group}", f"patient{group}") for label in "abc" for group in range(8)))
    for seed in range(20):
        assert len(counts(folder, assign_splits(folder, seed=seed))) == 9


def test_groups_that_need_a_second_order():
    pairs = {"a": "123", "b": "234", "c": "134"}
    folder = folder_of(*(image(label, label + group, group) for label, groups in pairs.items() for group in groups))
    with pytest.raises(DataError) as caught:
        assign_splits(folder, seed=0)
    assert str(caught.value).startswith("Class '")
    assert str(caught.value).endswith(
        "cannot be on every side of the split, since its groups also hold images of other classes. "
        "Use smaller groups, or give the split in the manifest."
    )
    pairs = {"a": "123", "b": "1245", "c": "13456"}
    folder = folder_of(*(image(label, label + group, group) for label, groups in pairs.items() for group in groups))
    for seed in range(20):
        assert len(counts(folder, assign_splits(folder, seed=seed))) == 9


def test_shares_that_leave_nothing():
    for test, val in ((0, 0.1), (0.1, 0), (0.5, 0.5)):
        with pytest.raises(ValueError, match="must be positive and leave something to train on"):
            assign_splits(plain(a=9), seed=0, test=test, val=val)


# Given splits


def test_given_splits_are_kept():
    sides = ("train", "val", "test")
    folder = folder_of(*(image(label, f"{label}{side}", split=side) for label in "ab" for side in sides))
    assert assign_splits(folder, seed=0) == sides * 2


@pytest.mark.parametrize(("given_side", "missing", "share"), [("val", "test", 0.2), ("test", "val", 0.15)])
def test_what_is_missing_comes_from_train(given_side, missing, share):
    images = [image(label, f"{label}{index}", split="train") for label in "ab" for index in range(20)]
    images += [image(label, f"{label}{index}", split=given_side) for label in "ab" for index in range(20, 30)]
    folder = folder_of(*images)
    splits = assign_splits(folder, seed=0)
    assert set(splits[40:]) == {given_side}
    assert counts(folder, splits)["a", missing] == 20 * share
    assert set(splits[:40]) == {"train", missing}


def test_only_train_given():
    folder = folder_of(*(image(label, f"{label}{index}", split="train") for label in "ab" for index in range(10)))
    assert Counter(assign_splits(folder, seed=0)) == {"train": 12, "val": 4, "test": 4}


def test_leaks_are_found_and_the_rest_is_still_good():
    images = [image("a", index, split="train") for index in range(6)]
    images += [image("b", f"b{index}", group=f"g{index}", split="train") for index in range(6)]
    images += [image("a", 0, split="test"), image("b", "new", group="g1", split="test"), image("a", 9, split="test")]
    folder = folder_of(*images)
    splits = assign_splits(folder, seed=0)
    assert find_leaks(folder, splits) == ("train/a/0.jpg", "train/b/b1.jpg")
    assert splits[0] == splits[7] == "train"  # left alone, so that validation is full without them
    with pytest.raises(ValueError, match="1 splits for 15 images"):
        find_leaks(folder, splits[:1])


def test_a_copy_of_a_given_validation_image_stays_in_train():
    images = [image("a", index, split="train") for index in range(9)] + [image("a", 0, split="val")]
    for seed in range(30):
        assert assign_splits(folder_of(*images), seed=seed)[0] == "train"


# Complaints


@pytest.mark.parametrize(("size", "have"), [(1, "1 image"), (2, "2 images")])
def test_too_few_images(size, have):
    assert complaint(plain(cat=size, dog=5)) == (
        f"Class 'cat' has {have}; 3 are needed to split into train, validation and test. "
        "Add images or remove photos/cat."
    )


def test_a_class_with_no_images_left():
    assert complaint(folder_of(*plain(cat=5).images, class_names=("cat", "dog"))) == (
        "Class 'dog' has 0 images; 3 are needed to split into train, validation and test. "
        "Add images or remove photos/dog."
    )


def test_too_few_that_may_be_separated():
    images = [image("cat", index // 4, name=f"cat/{index}.jpg") for index in range(5)]
    assert complaint(folder_of(*images, *plain(dog=5).images)) == (
        "Class 'cat' has 5 images, but only 2 that may be separated (equal content or one group stays together); "
        "3 are needed to split into train, validation and test. Add images or remove photos/cat."
    )


def test_too_few_training_images():
    images = [image(label, f"{label}{index}", split="train") for label in "ab" for index in range(1 + (label == "b"))]
    images += [image(label, f"{label}t", split="test") for label in "ab"]
    assert complaint(folder_of(*images)) == (
        "Class 'a' has 1 training image; 2 are needed to split into train and validation. "
        "Add images or remove photos/train/a."
    )


def test_no_training_image():
    images = [image("a", f"a{side}", split=side) for side in ("train", "val", "test")]
    images += [image("b", f"b{side}", split=side) for side in ("val", "test")]
    assert complaint(folder_of(*images)) == (
        "Class 'b' has 0 training images; 1 is needed to train on. Add images or remove photos/val/b."
    )


def test_a_manifest_is_told_to_lose_rows(tmp_path):
    manifest = tmp_path / "labels.csv"
    manifest.touch()
    folder = dataclasses.replace(plain(cat=1, dog=5), root=manifest)
    assert complaint(folder).endswith(f"Add images or remove its rows from {manifest}.")


# Subsets


@settings(max_examples=100, deadline=None, database=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=200), st.integers(1, 250), st.integers(0, 9))
def test_subset(labels, count, seed):
    hashes = [f"{number:064x}" for number in range(len(labels))]
    chosen = stratified_subset(labels, hashes, count, seed)
    assert len(chosen) == min(count, len(labels)) == len(set(chosen.tolist()))
    assert np.array_equal(chosen, np.sort(chosen))
    assert np.array_equal(chosen, stratified_subset(np.array(labels), hashes, count, seed))
    if count >= len(set(labels)):
        assert {labels[index] for index in chosen} == set(labels)


def test_subset_is_in_proportion():
    labels = np.repeat(["a", "b", "c"], [600, 300, 100])
    random.Random(0).shuffle(labels)
    hashes = [f"{number:064x}" for number in range(1000)]
    chosen = stratified_subset(labels, hashes, 100, seed=1)
    assert Counter(labels[chosen].tolist()) == {"a": 60, "b": 30, "c": 10}
    assert not np.array_equal(chosen, stratified_subset(labels, hashes, 100, seed=2))
    with pytest.raises(ValueError, match="count must be at least 1"):
        stratified_subset(labels, hashes, 0, seed=1)


def test_subset_changes_little_when_images_are_added_and_not_at_all_when_they_are_moved():
    labels = np.repeat(["a", "b", "c"], [600, 300, 100])
    hashes = np.array([f"{number:064x}" for number in range(1000)])
    before = set(hashes[stratified_subset(labels, hashes, 320, seed=1)])
    order = np.random.default_rng(0).permutation(1000)
    assert set(hashes[order][stratified_subset(labels[order], hashes[order], 320, seed=1)]) == before
    more = np.append(hashes, [f"{number:064x}" for number in range(1000, 1010)])
    after = set(more[stratified_subset(np.append(labels, ["a"] * 10), more, 320, seed=1)])
    assert len(after - before) <= 8


# Several names


def named(content, *names, group=None, split=None):
    digest = hashlib.sha256(str(content).encode()).hexdigest()
    name = f"{content}.jpg"
    return ImageFile(Path("photos") / name, name, "|".join(sorted(names)), digest, group, split, tuple(sorted(names)))


def sides_of(folder, splits):
    pairs = zip(folder.images, splits, strict=True)
    return Counter((name, split) for each, split in pairs for name in each.labels)


def many_names(*images):
    return ImageFolder(Path("m.jsonl"), images, tuple(sorted({name for each in images for name in each.labels})))


@st.composite
def named_folders(draw):
    """Every name on five images at least, by itself or beside others; images without any; a few duplicates and groups."""
    names = "abcdef"[: draw(st.integers(1, 6))]
    images = []
    for index, name in enumerate(names):
        for number in range(draw(st.integers(5, 30))):
            more = draw(st.sets(st.sampled_from(names), max_size=2)) if number > 2 else set()
            group = draw(st.sampled_from([None] * 5 + ["p", "q"])) if number > 2 else None
            images.append(named(f"{index}-{number}", *({name} | more), group=group))
    images += [named(f"none-{number}") for number in range(draw(st.integers(1, 20)))]
    return many_names(*images)


@settings(max_examples=60, deadline=None, database=None)
@given(named_folders(), st.integers(0, 100))
def test_every_name_is_learnt_and_tested(folder, seed):
    splits = assign_splits(folder, seed=seed)
    assert set(splits) <= {"train", "val", "test"}
    counted = sides_of(folder, splits)
    for name in folder.class_names:
        assert counted[name, "train"]
        assert counted[name, "test"]
    by_unit = {}
    for each, split in zip(folder.images, splits, strict=True):
        assert by_unit.setdefault(each.group or each.sha256, split) == split
    shuffled = list(folder.images)
    random.Random(seed).shuffle(shuffled)
    again = dict(zip((each.name for each in shuffled), assign_splits(many_names(*shuffled), seed=seed), strict=True))
    assert again == dict(zip((each.name for each in folder.images), splits, strict=True))


def test_frequent_sets_are_stratified_and_rare_ones_fail_nothing():
    sets = [("a",)] * 100 + [("a", "b")] * 40 + [("b", "c")] * 30 + [()] * 50
    rare = [("a", "b", "c"), ("a", "c")]
    folder = many_names(*(named(number, *names) for number, names in enumerate(sets + rare)))
    splits = assign_splits(folder, seed=0)
    counted = Counter((each.label, split) for each, split in zip(folder.images, splits, strict=True))
    for label, size in (("a", 100), ("a|b", 40), ("b|c", 30), ("", 50)):
        assert counted[label, "test"] == pytest.approx(size * 0.2, abs=1)
        assert counted[label, "val"] == pytest.approx(size * 0.15, abs=1)


def test_a_name_of_two_images_is_too_few():
    folder = many_names(*(named(number, "a") for number in range(9)), named("x", "a", "b"), named("y", "b"))
    assert complaint(folder) == (
        "Class 'b' has 2 images; 3 are needed to split into train, validation and test. "
        "Add images or remove the name from m.jsonl."
    )


def test_a_name_may_be_missing_in_the_validation_alone():
    """Three names on three images each, so interwoven that not all can be on three sides."""
    folder = many_names(named(1, "a", "b"), named(2, "a", "b"), named(3, "a", "c"), named(4, "b", "c"), named(5, "c"))
    counted = sides_of(folder, assign_splits(folder, seed=0))
    for name in "abc":
        assert counted[name, "train"]
        assert counted[name, "test"]
    assert not all(counted[name, "val"] for name in "abc")


def test_names_that_cannot_be_on_two_sides():
    """Seven images on the seven lines of the Fano plane: no two colours leave every line with both."""
    lines = ("124", "235", "346", "457", "561", "672", "713")
    folder = many_names(*(named(point, *(f"line{line}" for line in lines if point in line)) for point in "1234567"))
    said = complaint(folder)
    assert said.startswith("Class 'line")
    assert said.endswith(
        "cannot be on every side of the split, since its images also have other names. Add images with that name, or "
        "give the split in the manifest."
    )


def test_given_splits_of_several_names_are_kept():
    sides = ["train"] * 8 + ["val"] * 2 + ["test"] * 2
    images = [
        named(number, *names, split=side) for number, side in enumerate(sides) for names in [("a", "b")[number % 2 :]]
    ]
    assert assign_splits(many_names(*images), seed=0) == tuple(sides)
