"""Whether classes are weighed: only where they are unbalanced, only where it helps beyond noise, and what is said."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.errors import DataError
from headstart.learning.held_out import HeldOut
from headstart.learning.logistic import LinearHead, Restraint, fit_linear_head
from headstart.learning.weighing import fit_weighed
from test_class_weights import unbalanced

RARE = np.repeat([0, 1], [90, 10])


class Heads:
    """Heads whose held-out losses are made up: the plain one, the weighed one, the one corrected back."""

    def __init__(self, plain, weighed, corrected, num_images=100):
        noise = np.random.default_rng(0).normal(0, 0.01, num_images)
        self.losses = {name: loss + noise * (1 + place) for place, (name, loss) in enumerate(
            {"plain": plain, "weighed": weighed, "corrected": corrected}.items())}  # fmt: skip
        self.asked = []

    def fit(self, weights):
        name = "plain" if weights is None else "corrected" if weights.is_corrected else "weighed"
        self.asked.append(name if weights is None or not weights.in_judging else "balanced")
        losses = self.losses[name]
        held_out = HeldOut(losses, losses < 0.7)
        return LinearHead(np.zeros((1, 2), np.float32), np.zeros(2, np.float32), 1.0, held_out)


def test_off_and_balanced_ask_for_one_fit():
    heads = Heads(0.5, 0.3, 0.3)
    assert fit_weighed("off", RARE, 2, heads.fit).sentence == ""
    assert heads.asked == ["plain"]
    heads = Heads(0.5, 0.3, 0.3)
    found = fit_weighed("balanced", RARE, 2, heads.fit)
    assert heads.asked == ["balanced"]
    assert found.sentence == "Each class counted alike, however many images it has."


@pytest.mark.parametrize(("counts", "tries"), [((29, 10), False), ((30, 10), True), ((10, 10), False)])
def test_weights_are_tried_from_three_times_on(counts, tries):
    heads = Heads(0.5, 0.5, 0.5, sum(counts))
    found = fit_weighed("auto", np.repeat([0, 1], counts), 2, heads.fit)
    assert heads.asked == (["plain", "weighed", "corrected"] if tries else ["plain"])
    assert bool(found.sentence) is tries


@pytest.mark.parametrize(
    ("losses", "taken"),
    [
        ((0.5, 0.4, 0.45), "weighed"),
        ((0.5, 0.45, 0.4), "weighed and corrected back"),
        ((0.5, 0.5, 0.6), ""),
        ((0.5, 0.4995, 0.4999), ""),
    ],
)
def test_the_weighed_head_is_taken_only_where_it_is_better_beyond_noise(losses, taken):
    found = fit_weighed("auto", RARE, 2, Heads(*losses).fit)
    assert found.head.held_out.loss == pytest.approx(
        {"": losses[0], "weighed": losses[1]}.get(taken, losses[2]), abs=0.01
    )
    verdict = f"taken: {taken}" if taken else "no surer gain than noise, so each image counts like any other"
    assert found.sentence.startswith(
        "The largest class has 9 times the images of the smallest, so weights by the inverse of its frequency were "
        "tried for each class: cross-validated log loss 0.5"
    )
    assert found.sentence.endswith(f"weighed and corrected back; {verdict}.")


def test_too_few_images_to_cross_validate_are_said_to_be():
    head = LinearHead(np.zeros((1, 2), np.float32), np.zeros(2, np.float32), 1.0, HeldOut.nothing())
    found = fit_weighed("auto", np.array([0, 0, 0, 1]), 2, lambda weights: head)
    assert found.head is head
    assert found.sentence == (
        "The largest class has 3 times the images of the smallest, but there are too few images to try weights."
    )


def test_with_real_heads_auto_is_never_behind_by_cross_validation():
    for seed in range(5):
        features, labels = unbalanced(40, seed=seed, counts=(80, 40, 8))

        def fit(weights, features=features, labels=labels):
            restraint = Restraint(class_weights=weights)
            return fit_linear_head(features, labels, 3, np.arange(len(labels)), seed=0, restraint=restraint)

        auto, off = (fit_weighed(choice, labels, 3, fit).head for choice in ("auto", "off"))
        assert auto.held_out.loss <= off.held_out.loss


def test_images_of_several_names_are_not_weighed():
    several = np.array([[1, 0], [1, 1], [1, 0], [1, 0], [0, 0]])
    heads = Heads(0.5, 0.3, 0.3)
    assert fit_weighed("auto", several, 2, heads.fit).sentence == ""
    assert heads.asked == ["plain"]
    with pytest.raises(DataError, match=r"^--class-weights balanced is for pictures with one name each;"):
        fit_weighed("balanced", several, 2, heads.fit)
