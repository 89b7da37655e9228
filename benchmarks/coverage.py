"""Do the 95 % intervals cover the truth? Simulated data sets, of which the truth is known.

Each data set is drawn from classes that overlap; a head is fitted on it as `fit` and `compare` do, and asked about
20,000 fresh rows. How often it is right there is the truth, against which two intervals are held: that of a test set
of its own (`fit`, `evaluate`), and that of its cross-validation (`compare`). What Wilson's plain interval of the
cross-validation would cover is printed too.

    python benchmarks/coverage.py --sets 1000
"""

from __future__ import annotations

import argparse

import numpy as np
from table import row

from headstart.learning.logistic import fit_linear_head
from headstart.learning.ridge import gain_from_all
from headstart.scoring.intervals import cross_validated, wilson

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=1000)
    options = parser.parse_args()
    for num_images, width, num_classes, apart in SETTINGS:
        covered = {"a test set": 0, "cross-validation": 0, "cross-validation, if it were a test": 0}
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
            tested = right[random.choice(NUM_FRESH, NUM_TEST, replace=False)]
            validated = head.held_out.right
            gain = gain_from_all(features, labels, num_classes, np.arange(num_images), seed=seed)
            intervals = (
                wilson(int(tested.sum()), NUM_TEST),
                cross_validated(int(validated.sum()), num_images, gain),
                wilson(int(validated.sum()), num_images),
            )
            for name, (low, high) in zip(covered, intervals, strict=True):
                covered[name] += low <= truth <= high
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
