"""Labels as numbers, and what images with several names are stratified by."""

from __future__ import annotations

from pathlib import Path

from headstart.pictures.folder import ImageFile, ImageFolder
from headstart.pictures.labels import class_numbers, multi_hot, strata, stratum


def image(*names):
    return ImageFile(Path("x"), "x", "|".join(names), "", label_set=names)


def plain(name):
    return ImageFile(Path("x"), "x", name, "")


def test_numbers():
    assert class_numbers([plain("b"), plain("a")], ("a", "b")).tolist() == [1, 0]
    assert class_numbers([image("a", "c"), image()], ("a", "b", "c")).tolist() == [[1, 0, 1], [0, 0, 0]]
    assert multi_hot([plain("b"), plain("a")], ("a", "b")).tolist() == [[0, 1], [1, 0]]


def test_a_folder_says_whether_pictures_have_several_names():
    assert not ImageFolder(Path("x"), (plain("a|b"),), ("a|b",)).is_multi_label
    folder = ImageFolder(Path("m.csv"), (image("a"),), ("a", "b"))
    assert folder.is_multi_label
    assert folder.remedy("a") == "the name from m.csv"
    assert (plain("a|b").labels, image().labels) == (("a|b",), ())


def test_plain_labels_are_their_own_strata():
    images = [plain("a|b"), plain("a")] * 20
    assert strata(images) == [("a|b",), ("a",)] * 20
    assert stratum(images) == ["a|b", "a"] * 20


def test_frequent_sets_count_by_themselves_and_rare_ones_by_their_names():
    images = [image("a", "b")] * 10 + [image("a", "c"), image("c"), image()]
    assert strata(images)[0] == ("a", "b", "a|b|")
    assert strata(images)[10:] == [("a", "c"), ("c",), ("|",)]
    assert stratum(images)[9:] == ["a|b|", "c", "c", "|"], "of a rare set the rarest name"
