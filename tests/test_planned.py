"""A planned backbone: known without being built, and never believed where it is wrong."""

from __future__ import annotations

import dataclasses

import pytest

from headstart.errors import CacheError
from headstart.networks import planned
from headstart.networks.backbone import FLIPS, build_backbone
from headstart.networks.catalogue import find_backbone
from headstart.networks.planned import PlannedBackbone
from headstart.networks.stages import Stage
from headstart.networks.weights import find_weights

SIZE = 33


@pytest.fixture
def spec():
    return find_backbone("MobileNetV2")


@pytest.fixture
def weights(tmp_path, spec, empty_cache):
    path = tmp_path / "own.weights.h5"
    model = build_backbone(spec, find_weights(spec, "none"), SIZE, seed=1).model
    model.save_weights(path)
    return find_weights(spec, str(path))


@pytest.fixture
def builds(monkeypatch):
    """The sizes that were built."""
    built = []

    def build(spec, weights, size, **more):
        built.append(size)
        return build_backbone(spec, weights, size, **more)

    monkeypatch.setattr(planned, "build_backbone", build)
    return built


def test_the_second_time_nothing_is_built_to_know_the_weights(spec, weights, builds):
    first = PlannedBackbone(spec, weights, SIZE)
    assert first.fingerprint == build_backbone(spec, weights, SIZE).fingerprint
    again = PlannedBackbone(spec, weights, SIZE)
    assert again.fingerprint == first.fingerprint
    assert again.stages == first.stages == build_backbone(spec, weights, SIZE).stages
    assert again.ends_in_tokens is first.ends_in_tokens is False
    assert builds == [SIZE]
    assert again.build(FLIPS).views == FLIPS
    assert again.build(FLIPS) is again.build(FLIPS)
    assert builds == [SIZE, SIZE]


def test_another_size_file_or_version_of_the_code_is_another_plan(spec, weights, builds, monkeypatch):
    assert PlannedBackbone(spec, weights, SIZE).fingerprint
    assert PlannedBackbone(spec, weights, SIZE + 1).fingerprint
    other = dataclasses.replace(weights, sha256="0" * 64)
    assert PlannedBackbone(spec, other, SIZE).fingerprint
    monkeypatch.setattr(planned, "_CODE", "of other code")
    assert PlannedBackbone(spec, weights, SIZE).fingerprint
    assert builds == [SIZE, SIZE + 1, SIZE, SIZE]


def test_random_weights_are_never_remembered(spec, builds, empty_cache):
    random = find_weights(spec, "none")
    first, second = (PlannedBackbone(spec, random, SIZE, seed=seed).fingerprint for seed in (1, 2))
    assert first != second
    assert len(builds) == 2
    assert not list(empty_cache.rglob("weights-*.json"))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"fingerprint": 3, "sha256": ""}', "\x00\x00"])
def test_a_damaged_note_is_no_note(spec, weights, builds, empty_cache, content):
    fingerprint = PlannedBackbone(spec, weights, SIZE).fingerprint
    (note,) = empty_cache.rglob("weights-*.json")
    note.write_text(content)
    assert PlannedBackbone(spec, weights, SIZE).fingerprint == fingerprint
    assert len(builds) == 2
    note.write_text(note.read_text().replace(fingerprint, "0" + fingerprint[1:]))
    assert PlannedBackbone(spec, weights, SIZE).fingerprint == fingerprint
    assert len(builds) == 3


def test_a_note_that_contradicts_the_network_stops_the_run_and_is_removed(spec, weights, empty_cache):
    wrong = PlannedBackbone(spec, weights, SIZE)
    wrong._remember(planned._Note("of something else", (), False, 1))
    assert wrong.fingerprint == "of something else"
    with pytest.raises(CacheError, match=r"MobileNetV2 has other weights than .*run the same command again"):
        wrong.build()
    assert not list(empty_cache.rglob("weights-*.json"))
    assert PlannedBackbone(spec, weights, SIZE).build().fingerprint


def test_a_network_whose_layers_were_numbered_otherwise_is_the_same():
    note = planned._Note("f", (Stage("stage1", "add_2", 96),), False, 1)
    assert note.is_of(dataclasses.replace(note, stages=(Stage("stage1", "add_20", 96),)))
    assert not note.is_of(dataclasses.replace(note, stages=(Stage("stage1", "add_2", 95),)))
    assert not note.is_of(dataclasses.replace(note, fingerprint="g"))


def test_a_cache_that_cannot_be_written_costs_time_alone(spec, weights, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "file"))
    assert PlannedBackbone(spec, weights, SIZE).fingerprint == build_backbone(spec, weights, SIZE).fingerprint
