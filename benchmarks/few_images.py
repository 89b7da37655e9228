"""Which head for how many images? Accuracy of each family, and of the one that is chosen without the test images.

From 5, 20 or 100 training images of each class, drawn ten times; all other images are the test. Features of frozen
MobileNetV2 with ImageNet weights, computed once.

    python benchmarks/few_images.py --seeds 10
    python benchmarks/few_images.py --seeds 10 --mlp        # with the slow one
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from table import row

from headstart.features.extract import Extractor
from headstart.features.pooling import pooled_blocks
from headstart.learning.heads import LabelledFeatures, fit_mlp_head
from headstart.learning.logistic import fit_linear_head
from headstart.learning.nearest import fit_nearest_head
from headstart.networks.catalogue import find_backbone
from headstart.networks.planned import PlannedBackbone
from headstart.networks.weights import find_weights
from headstart.pictures.published import fetch_images, solar_cell_rows
from headstart.pictures.scan import scan

COUNTS = (5, 20, 100)
SETS = {"textile": 385, "solar-cells": 225}


def look(name: str, size: int) -> tuple[np.ndarray, np.ndarray, int, tuple[int, ...]]:
    """Features, class numbers, how many classes, and the blocks of the features."""
    data = fetch_images(name)
    with tempfile.TemporaryDirectory() as folder:
        if name == "solar-cells":
            rows = solar_cell_rows(data.parent)
            data = write_manifest(data.parent, rows, Path(folder) / "cells.csv")
        images = scan(data)
    spec = find_backbone("MobileNetV2")
    plan = PlannedBackbone(spec, find_weights(spec), size)
    features = Extractor(plan).extract(images.images)
    labels = np.array([images.class_names.index(image.label) for image in images.images])
    return features.values, labels, len(images.class_names), pooled_blocks(plan.stages, has_token=False)


def write_manifest(folder: Path, rows: list, path: Path) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("file_name", "label"))
        writer.writerows(
            (folder / name, "defective" if probability >= 0.5 else "sound") for name, probability, _ in rows
        )
    return path


def mlp(features: np.ndarray, labels: np.ndarray, num_classes: int, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """A fifth of the images, at least one of each class, says when to stop."""
    random = np.random.default_rng(seed)
    is_val = np.zeros(len(labels), bool)
    for each in range(num_classes):
        members = random.permutation(np.flatnonzero(labels == each))
        is_val[members[: max(1, len(members) // 5)]] = True
    train, val = (LabelledFeatures(features[side], labels[side]) for side in (~is_val, is_val))
    return fit_mlp_head(train, val, num_classes, epochs=20, seed=seed).probabilities


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--mlp", action="store_true")
    options = parser.parse_args()
    everything: dict[str, list[float]] = {}
    for name, size in SETS.items():
        features, labels, num_classes, blocks = look(name, size)
        for count in COUNTS:
            scores: dict[str, list[float]] = {}
            for seed in range(options.seeds):
                order = np.random.default_rng(seed).permutation(len(labels))
                train = np.concatenate([order[labels[order] == each][:count] for each in range(num_classes)])
                test = np.setdiff1d(order, train)
                given = (features[train], labels[train], num_classes, np.arange(len(train)))
                heads = {
                    "linear": fit_linear_head(*given, seed=seed, blocks=blocks),
                    "nearest": fit_nearest_head(*given, seed=seed, blocks=blocks),
                }
                answers = {family: head.probabilities for family, head in heads.items()}
                chosen = min(heads, key=lambda family: heads[family].held_out.loss)
                answers["chosen"] = answers[chosen]
                if options.mlp:
                    answers["mlp"] = mlp(features[train], labels[train], num_classes, seed)
                for family, answer in answers.items():
                    right = answer(features[test]).argmax(axis=1) == labels[test]
                    scores.setdefault(family, []).append(float(right.mean()))
            figures = ", ".join(f"{family} {np.mean(each):.1%}" for family, each in scores.items())
            row(f"{name}, {count} of each class, {options.seeds} draws", figures)
            for family, each in scores.items():
                everything.setdefault(family, []).append(float(np.mean(each)))
    means = {family: float(np.mean(each)) for family, each in everything.items()}
    best = max(mean for family, mean in means.items() if family != "chosen")
    figures = ", ".join(f"{family} {mean:.1%}" for family, mean in means.items())
    row("all of these, on average", figures)
    row("the chosen head below the best single family", f"{100 * (best - means['chosen']):.2f} points", "0.5 points")


if __name__ == "__main__":
    main()
