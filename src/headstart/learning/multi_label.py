"""Heads for images of several names: a logistic regression for each name, and how such images are dealt into folds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headstart.errors import DataError
from headstart.learning.held_out import HeldOut
from headstart.pictures.folder import ImageFolder
from headstart.recipe import Recipe

Matrix = npt.NDArray[np.floating]
Labels = npt.NDArray[np.int64]


def check_recipe(recipe: Recipe, folder: ImageFolder) -> None:
    """Refuse what is made for images of one name each.

    Raises:
        DataError: the images may have several, and the recipe cannot do that.
    """
    if not folder.is_multi_label:
        return
    if recipe.head == "nearest":
        raise DataError(
            f"--head nearest answers with one name for a picture, but those of {folder.root} may have several. Use "
            "--head linear or mlp."
        )
    if recipe.fine_tune != "off":
        raise DataError(
            f"--fine-tune {recipe.fine_tune} is not there yet for pictures with several names, as those of "
            f"{folder.root} are. Use --fine-tune off, which is the default; a better network may help: --backbone auto."
        )
    check_weights(recipe.class_weights)


def check_weights(choice: str) -> None:
    """Refuse to weigh classes of images that may have several: there is nothing that all of them sum to.

    Raises:
        DataError: it was asked for.
    """
    if choice == "balanced":
        raise DataError(
            "--class-weights balanced is for pictures with one name each; these may have several, of which each is a "
            "question of its own. Leave it out."
        )


def misfit_and_error(logits: Matrix, targets: Matrix) -> tuple[Matrix, Matrix]:
    """The log loss of each image, summed over the names, and its slope.

    Args:
        logits: (k, ..., n), a row for each name.
        targets: 1 where an image has a name, else 0; of the same shape, or one that fits it.

    Returns:
        (..., n) and (k, ..., n).
    """
    small = np.exp(-np.abs(logits))
    misfit = (np.log1p(small) + np.maximum(logits, 0) - logits * targets).sum(axis=0)
    return misfit, np.where(logits >= 0, 1, small) / (1 + small) - targets


def held_out(logits: Matrix, targets: Labels) -> HeldOut:
    """What logits (k, n) say of images (n, k): log losses, summed over the names; right where every name is."""
    misfit, _ = misfit_and_error(logits.astype(np.float64), targets.T.astype(np.float64))
    return HeldOut(misfit.astype(np.float64), ((logits > 0) == targets.T).all(axis=0))


def deal(targets: Labels, units: Labels, num_folds: int, *, seed: int) -> Labels:
    """A fold for each image: names, and sets of names, dealt out evenly, no unit in two folds; all 0 where too few.

    Name after name, the rarest first, each unit goes to the fold that has the fewest of it (Sechidis, Tsoumakas and
    Vlahavas 2011, "On the stratification of multi-label data", https://doi.org/10.1007/978-3-642-23808-6_10); of
    equals to the one with the fewest of its set, then of all its names. Having no name counts as one.

    Args:
        targets: (n, k), 1 where an image has a name.
        units: (n,) numbers.
        num_folds: at most; no more than there are units of the commonest name.
        seed: another seed, other folds.
    """
    first, unit = np.unique(units, return_index=True, return_inverse=True)[1:]
    counts = np.zeros((len(first), targets.shape[1] + 1), np.int64)
    np.add.at(counts, unit, np.column_stack([targets, targets.sum(axis=1) == 0]))
    num_folds = min(num_folds, int((counts > 0).sum(axis=0).max()))
    if num_folds < 2:
        return np.zeros(len(targets), np.int64)
    sets = np.unique(counts, axis=0, return_inverse=True)[1].ravel()
    order = np.random.default_rng(seed).permutation(len(first))
    of_names = np.zeros((num_folds, counts.shape[1]), np.int64)
    of_sets = np.zeros((num_folds, sets.max() + 1), np.int64)
    fold_of_unit = np.full(len(first), -1)
    for name in np.argsort((counts > 0).sum(axis=0), kind="stable"):
        for one in order[(counts[order, name] > 0) & (fold_of_unit[order] < 0)]:
            its = counts[one] > 0
            wanting = np.lexsort(
                (of_names.sum(axis=1), of_names[:, its].sum(axis=1), of_sets[:, sets[one]], of_names[:, name])
            )
            fold_of_unit[one] = wanting[0]
            of_names[wanting[0]] += counts[one]
            of_sets[wanting[0], sets[one]] += 1
    found: Labels = fold_of_unit[unit]
    return found
