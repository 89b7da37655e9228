"""Do the 95 % intervals cover the truth? Simulated data sets, of which the truth is known.

Each data set is drawn from classes that overlap; a head is fitted on it as `fit` and `compare` do, and asked about
20,000 fresh rows. Two intervals are held against the truth:

* that of a test set (`fit`, `evaluate`), against how often this very head is right;
* that of the cross-validation (`compare`), against what it estimates: how often the five heads are right that learnt
  from four fifths each (Bayle et al. 2020, "Cross-validation confidence intervals for test error",
  https://arxiv.org/abs/2007.12671). The head that learns from all is a little better, so its own accuracy is covered
  less often; that is printed too.

    python benchmarks/coverage.py --sets 1000
"""

from __future__ import annotations

import argparse

import numpy as np
from table import row

from headstart.learning import logistic
from headstart.learning.basis import Basis
from headstart.learning.logistic import LinearHead, assign_folds, fit_linear_head
from headstart.scoring.intervals import wilson

SETTINGS = (  # Images, features, classes, how far the classes are apart.
    (100, 20, 2, 0.5),
    (300, 60, 3, 0.4),
    (300, 400, 3, 0.4),
    (1000, 60, 5, 0.3),
)
NUM_FRESH = 20_000
NUM_TEST = 200


def draw(random: np.random.Generator, count: int, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(count) % len(centres)
    rows = random.normal(size=(count, 1, centres.shape[1])) + centres[labels][:, None]
    return rows.astype(np.float32), labels


def of_four_fifths(features: np.ndarray, labels: np.ndarray, head: LinearHead, seed: int) -> list[tuple]:
    """The kernels and biases of the five heads whose answers the cross-validation gave."""
    basis, folds = Basis.of(features), assign_folds(labels, np.arange(len(labels)), seed=seed)
    targets = np.eye(labels.max() + 1, dtype=np.float32)[labels]
    trained_on = folds[:, None] != np.arange(folds.max() + 1)
    solution = logistic._solve(basis, targets, trained_on, head.strength, None, logistic._TOLERANCE)
    return [basis.unfold(solution[:, fold]) for fold in range(trained_on.shape[1])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=1000)
    options = parser.parse_args()
    for num_images, width, num_classes, apart in SETTINGS:
        covered = {"a test set": 0, "cross-validation": 0, "cross-validation, of the head of all images": 0}
        truths, claims = [], []
        for seed in range(options.sets):
            random = np.random.default_rng(seed)
            centres = np.zeros((num_classes, width))
            centres[:, :20] = random.normal(size=(num_classes, 20)) * apart
            features, labels = draw(random, num_images, centres)
            head = fit_linear_head(features, labels, num_classes, np.arange(num_images), seed=seed)
            fresh, their_labels = draw(random, NUM_FRESH, centres)
            right = head.probabilities(fresh).argmax(axis=1) == their_labels
            truth = right.mean()
            heads = of_four_fifths(features, labels, head, seed)
            by_folds = np.mean([((fresh[:, 0] @ k + b).argmax(axis=1) == their_labels).mean() for k, b in heads])
            tested = right[random.choice(NUM_FRESH, NUM_TEST, replace=False)]
            validated = head.held_out.right
            for name, seen, target in zip(
                covered, (tested, validated, validated), (truth, by_folds, truth), strict=True
            ):
                low, high = wilson(int(seen.sum()), len(seen))
                covered[name] += low <= target <= high
            truths.append(truth)
            claims.append(head.held_out.accuracy)
        what = f"{num_images} images, {width} features, {num_classes} classes, {np.mean(truths):.1%} right"
        for name, count in covered.items():
            row(
                f"95 % intervals from {name}: {what}",
                f"{count / options.sets:.1%}",
                "" if "," in name else "93 to 97 %",
            )
        print(f"    cross-validated less true accuracy: {100 * (np.mean(claims) - np.mean(truths)):+.2f} points")


if __name__ == "__main__":
    main()
