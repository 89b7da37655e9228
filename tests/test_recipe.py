"""Recipe: what it refuses, and that it can be written down."""

from __future__ import annotations

import dataclasses
import json

import pytest

from headstart.errors import DataError, UnknownNameError
from headstart.recipe import CLASS_WEIGHTS, HEADS, VIEWS, Recipe, candidate_sizes


def test_a_recipe_is_plain_values_and_comes_back():
    recipe = Recipe(backbone="VGG16", image_size=96, views="flips", seed=7)
    assert Recipe(**json.loads(json.dumps(recipe.to_json()))) == recipe


def test_a_recipe_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().seed = 1


@pytest.mark.parametrize("size", [32, 2048, None])
def test_sizes_that_are_possible(size):
    assert Recipe(image_size=size).image_size == size


@pytest.mark.parametrize("size", [-1, 0, 31, 2049])
def test_sizes_that_are_not(size):
    with pytest.raises(DataError) as caught:
        Recipe(image_size=size)
    assert str(caught.value) == (f"--image-size must be from 32 to 2048 pixels, or left out to be chosen; got {size}.")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"epochs": 0}, "--epochs must be at least 1; got 0."),
        ({"seed": -1}, "--seed must be from 0 to 4294967295; got -1."),
        ({"seed": 2**32}, "--seed must be from 0 to 4294967295; got 4294967296."),
        ({"lr": 1e-3}, "--lr and --optimizer are for --fine-tune, which is off. Add --fine-tune auto, or leave them."),
        ({"lr": 0.0, "fine_tune": "all"}, "--lr must be above 0, such as 1e-4; got 0.0."),
        ({"lr": float("nan"), "fine_tune": "all"}, "--lr must be above 0, such as 1e-4; got nan."),
        ({"lr": "fast", "fine_tune": "all"}, "--lr must be a learning rate such as 1e-4, or auto; got 'fast'."),
        (
            {"ensemble": True, "backbone": "VGG16"},
            "--ensemble takes the two best networks of a comparison; got --backbone VGG16. Use --backbone auto with it.",
        ),
        (
            {"ensemble": True, "backbone": "auto", "head": "mlp"},
            "--ensemble puts a linear head on two networks; got --head mlp. Leave out one.",
        ),
        (
            {"ensemble": True, "backbone": "auto", "fine_tune": "auto"},
            "--ensemble is for networks that stay frozen; got --fine-tune auto. Leave out one.",
        ),
        ({"views": "several"}, "--views must be one of auto, one, flips, many; got 'several'."),
    ],
)
def test_other_choices_that_make_no_sense(choice, message):
    with pytest.raises(DataError) as caught:
        Recipe(**choice)
    assert str(caught.value) == message


@pytest.mark.parametrize(("native", "larger"), [(224, 352), (299, 480)])
def test_the_larger_size_is_the_one_that_papers_take(native, larger):
    assert candidate_sizes(native) == (native, larger)


def test_every_head_and_view_is_a_choice_and_no_other():
    for head in HEADS:
        for views in VIEWS:
            Recipe(head=head, views=views)
    with pytest.raises(UnknownNameError) as caught:
        Recipe(head="flaten")
    assert str(caught.value) == "There is no head 'flaten'. Did you mean flatten?"


def test_class_weights_are_a_choice():
    for choice in CLASS_WEIGHTS:
        assert Recipe(class_weights=choice).class_weights == choice
    with pytest.raises(UnknownNameError) as caught:
        Recipe(class_weights="balance")
    assert str(caught.value) == "There is no way to weigh classes 'balance'. Did you mean balanced?"
