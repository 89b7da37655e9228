"""Do weights of classes pay where one class is rare? Log loss, accuracy and macro F1 of a head without and with them.

Half of the images are for training, drawn ten times, and one class is thinned to a tenth there; the other half is the
test, in which each image of that class counts a tenth, so that it is as rare as in training. Features of frozen
MobileNetV2 with ImageNet weights, computed once.

    python benchmarks/class_weights.py --seeds 10
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
from few_images import SETS, look
from table import row

from headstart.learning.class_weights import ClassWeights
from headstart.learning.logistic import LinearHead, Restraint, fit_linear_head
from headstart.learning.weighing import fit_weighed

SHARE = 0.1
RARE = {"textile": (0, 1), "solar-cells": (0,)}


def thinned(labels: np.ndarray, rare: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The images to learn from and those of the test."""
    random = np.random.default_rng(seed)
    train, test = [], []
    for each in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == each))
        half = len(members) // 2
        train.append(members[: max(2, round(half * SHARE)) if each == rare else half])
        test.append(members[half:])
    return np.concatenate(train), np.concatenate(test)


def scores(probabilities: np.ndarray, labels: np.ndarray, counted: np.ndarray) -> tuple[float, float, float]:
    """Log loss, accuracy and macro F1, each image counted so much."""
    said = probabilities.argmax(axis=1)
    losses = -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12))
    f1 = []
    for each in np.unique(labels):
        right = counted[(said == each) & (labels == each)].sum()
        f1.append(2 * right / (counted[said == each].sum() + counted[labels == each].sum()))
    return (
        float(np.average(losses, weights=counted)),
        float(np.average(said == labels, weights=counted)),
        float(np.mean(f1)),
    )


def heads(features: np.ndarray, labels: np.ndarray, num_classes: int, blocks: tuple, seed: int) -> tuple[dict, str]:
    """The head for each choice, and what "auto" took. What "auto" tried stands beside the choices."""
    fitted: dict[tuple | None, LinearHead] = {}

    def fit(weights: ClassWeights | None) -> LinearHead:
        key = None if weights is None else (*weights.weights, weights.is_corrected, weights.in_judging)
        if key not in fitted:
            fitted[key] = fit_linear_head(
                features,
                labels,
                num_classes,
                np.arange(len(labels)),
                seed=seed,
                blocks=blocks,
                restraint=Restraint(class_weights=weights),
            )
        return fitted[key]

    auto = fit_weighed("auto", labels, num_classes, fit)
    found = {choice: fit_weighed(choice, labels, num_classes, fit).head for choice in ("off", "balanced")}
    weights = ClassWeights.balanced(labels, num_classes).weights
    tried = {
        "weighed": fit(ClassWeights(weights)),
        "weighed, corrected back": fit(ClassWeights(weights, is_corrected=True)),
    }
    taken = next(name for name, head in {"off": found["off"], **tried}.items() if head is auto.head)
    return {"off": found["off"], "auto": auto.head, "balanced": found["balanced"], **tried}, taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    for name, size in SETS.items():
        features, labels, num_classes, blocks = look(name, size)
        for rare in RARE[name]:
            found: dict[str, list[tuple[float, float, float]]] = {}
            took: Counter[str] = Counter()
            sizes = []
            for seed in range(options.seeds):
                train, test = thinned(labels, rare, seed)
                sizes.append(np.bincount(labels[train]).tolist())
                fitted, taken = heads(features[train], labels[train], num_classes, blocks, seed)
                took[taken] += 1
                counted = np.where(labels[test] == rare, SHARE, 1.0)
                for choice, head in fitted.items():
                    said = head.probabilities(features[test])
                    found.setdefault(choice, []).append(scores(said, labels[test], counted))
            print(f"{name}, class {rare} rare: {sizes[0]} to learn from; auto took {dict(took)}", flush=True)
            off = np.array(found["off"])
            for choice, each in found.items():
                loss, right, f1 = np.mean(each, axis=0)
                gap = np.array(each)[:, 0] - off[:, 0]
                error = gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else float("nan")
                row(
                    f"{name}, class {rare} thinned to a tenth, {choice}",
                    f"log loss {loss:.4f} ({gap.mean():+.4f} +- {error:.4f}), accuracy {right:.2%}, macro F1 {f1:.3f}",
                )


if __name__ == "__main__":
    main()
