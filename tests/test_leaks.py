"""Leaks that are planted: pictures whose labels are tossed, so that only a leak could tell them."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

import headstart

NUM_EACH = 40
CHOICES = {"weights": "none", "image_size": 33}


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (24, 24, 3)).astype(np.uint8)


def plant(folder, rows):
    """Write a manifest of rows (name, label, split, group)."""
    path = folder / "data.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file_name", "label", "split", "group"))
        writer.writerows(rows)
    return path


def tossed():
    """A label for each of two sides of pictures."""
    return np.random.default_rng(0).permutation(["heads", "tails"] * NUM_EACH).reshape(2, NUM_EACH)


def leaking(folder, kind):
    """Half of the pictures are test; each has a near or exact twin in train, under the same label."""
    rows = []
    for number, (label, test_label) in enumerate(tossed().T):
        Image.fromarray(noise(number)).save(folder / f"train{number}.png")
        rows.append((f"train{number}.png", label, "train", f"own{number}"))
        test = noise(1000 + number)
        Image.fromarray(test).save(folder / f"test{number}.png")
        twin = test if kind == "duplicate" else np.clip(test.astype(int) + 1, 0, 255).astype(np.uint8)
        Image.fromarray(twin).save(folder / f"twin{number}.png")
        group = f"g{number}" if kind == "group" else ""
        rows.append((f"test{number}.png", test_label, "test", group))
        rows.append((f"twin{number}.png", test_label, "train", group))
    return plant(folder, rows)


@pytest.mark.parametrize("kind", ["duplicate", "group"])
def test_a_leak_into_the_test_is_caught_and_the_score_is_without_it(tmp_path, kind):
    run = headstart.fit(leaking(tmp_path, kind), out=tmp_path / "run", views="one", **CHOICES)
    skipped = {each["name"]: each["reason"] for each in run.facts["skipped"]}
    assert set(skipped) == {f"twin{number}.png" for number in range(NUM_EACH)}
    assert set(skipped.values()) == {"the same picture or group is among the test images, so it was not trained on"}
    assert run.evaluation.num_images == NUM_EACH
    assert run.evaluation.accuracy < 0.75, "nobody can tell tossed labels"


def test_the_leak_would_have_been_seen(tmp_path):
    """Near twins whom nothing declares to be a group: the score is too good to be true, so the test above can fail."""
    run = headstart.fit(leaking(tmp_path, "undeclared"), out=tmp_path / "run", views="one", **CHOICES)
    assert run.evaluation.accuracy > 0.8


def test_twins_stay_in_one_fold_of_a_comparison(tmp_path):
    rows = []
    for number, label in enumerate(tossed().ravel()):
        for copy in "ab":
            Image.fromarray(noise(number)).save(tmp_path / f"{number}{copy}.png")
            rows.append((f"{number}{copy}.png", label, "", ""))
    found = headstart.compare(plant(tmp_path, rows), backbones="MobileNetV2", out=tmp_path / "out", **CHOICES)
    assert found.best.num_images == 128
    assert found.best.accuracy < 0.7
