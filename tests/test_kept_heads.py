"""A head that was fitted before is not fitted again, and is what it was; one that anything else decides is fitted."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest

from headstart.cache import cache_folder
from headstart.features.blocks import Unheard
from headstart.learning import kept_heads
from headstart.learning.class_weights import ClassWeights
from headstart.learning.kept_heads import linear_head
from headstart.learning.logistic import Restraint, fit_linear_head
from headstart.learning.seeing import Lesson

NUM_CLASSES = 3


@pytest.fixture(autouse=True)
def own_cache(empty_cache):
    return empty_cache


@pytest.fixture
def fits(monkeypatch):
    """How often a head was fitted."""
    counted = []

    def counting(*given, **more):
        counted.append(given)
        return fit_linear_head(*given, **more)

    monkeypatch.setattr(kept_heads, "fit_linear_head", counting)
    return counted


def lesson(**changes):
    random = np.random.default_rng(0)
    labels = np.arange(60) % NUM_CLASSES
    features = random.normal(size=(60, 2, 8)).astype(np.float32)
    features[..., 0] += labels[:, None]
    plain = {
        "features": features, "labels": labels, "num_classes": NUM_CLASSES, "units": np.arange(60), "seed": 0,
        "blocks": (4, 4), "restraint": Restraint(),
    }  # fmt: skip
    return {**plain, **changes}


def several_names():
    labels = lesson()["labels"]
    return lesson(labels=np.stack([labels == 0, labels != 1, labels == 2], axis=1).astype(np.int64))


def assert_same(one, other):
    """In every field, bit for bit."""
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if dataclasses.is_dataclass(a):
            assert_same(a, b)
        elif isinstance(a, np.ndarray):
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), field.name
        else:
            assert (type(a), a) == (type(b), b), field.name


def heads():
    return sorted(cache_folder("heads").iterdir())


@pytest.mark.parametrize(
    "given",
    [
        lesson(),
        several_names(),
        lesson(labels=np.array([0, 1, 2] + [0] * 57)),  # Too few to cross-validate.
        lesson(restraint=Restraint(0.1, 1e-2, ClassWeights(np.array([0.5, 1.0, 1.5]), is_corrected=True))),
    ],
    ids=["plain", "several names", "few", "restrained"],
)
def test_is_fitted_once_and_is_the_same_in_every_field(given, fits):
    first, second = linear_head(**given), linear_head(**given)
    assert len(fits) == 1
    assert_same(first, fit_linear_head(**given))
    assert_same(second, first)


def test_the_shipped_head_comes_from_here(fits):
    given = lesson()
    learnt = Lesson(given["features"], given["labels"], NUM_CLASSES, given["units"], given["blocks"])
    assert_same(learnt.linear_head(0), learnt.linear_head(0))
    assert_same(learnt.cross_validated(0), learnt.cross_validated(0))
    assert len(fits) == 1
    learnt.linear_head(1)
    assert len(fits) == 2


def nudged(array, by=1):
    """One value is the next one."""
    array = array.copy()
    flat = array.reshape(-1)
    flat[7] = np.nextafter(flat[7], np.float32(np.inf)) if array.dtype.kind == "f" else flat[7] + by
    return array


PLAIN = lesson()
WEIGHED = ClassWeights(np.array([0.5, 1.0, 1.5]))
OTHERS = {
    "a feature": lesson(features=nudged(PLAIN["features"])),
    "another shape": lesson(features=PLAIN["features"].reshape(60, 1, 16), blocks=(8, 8)),
    "float64": lesson(features=PLAIN["features"].astype(np.float64)),
    "a label": lesson(labels=nudged(PLAIN["labels"])),
    "a unit": lesson(units=nudged(PLAIN["units"])),
    "a seed": lesson(seed=1),
    "other blocks": lesson(blocks=(2, 6)),
    "no blocks": lesson(blocks=()),
    "a block unheard": lesson(blocks=(4, Unheard(4))),
    "least spread": lesson(restraint=Restraint(least_spread=0.04)),
    "most strength": lesson(restraint=Restraint(most_strength=1.0)),
    "weights": lesson(restraint=Restraint(class_weights=WEIGHED)),
    "weights corrected": lesson(restraint=Restraint(class_weights=dataclasses.replace(WEIGHED, is_corrected=True))),
    "weights in judging": lesson(restraint=Restraint(class_weights=dataclasses.replace(WEIGHED, in_judging=True))),
    "other weights": lesson(
        restraint=Restraint(class_weights=ClassWeights(np.array([0.5, 1.0, np.nextafter(1.5, 2)])))
    ),
}


def test_whatever_decides_a_head_makes_another(fits):
    linear_head(**PLAIN)
    for number, (name, given) in enumerate(OTHERS.items(), 2):
        made = linear_head(**given)
        assert (len(fits), len(heads())) == (number, number), name
        assert_same(made, fit_linear_head(**given))
    for given in (PLAIN, *OTHERS.values()):
        linear_head(**given)
    assert len(fits) == len(OTHERS) + 1


def test_no_field_of_a_restraint_is_forgotten():
    """A field that is added to one of these must have its line above."""
    assert [field.name for field in dataclasses.fields(Restraint)] == ["least_spread", "most_strength", "class_weights"]
    assert [field.name for field in dataclasses.fields(ClassWeights)] == ["weights", "is_corrected", "in_judging"]


@pytest.mark.parametrize("part", ["_CODE", "np", "scipy"])
def test_other_code_fits_anew(part, fits, monkeypatch):
    linear_head(**PLAIN)
    if part == "_CODE":
        monkeypatch.setattr(kept_heads, part, ("1.0", "0" * 64))
    else:
        monkeypatch.setattr(f"headstart.learning.kept_heads.{part}.__version__", "99")
    linear_head(**PLAIN)
    assert len(fits) == 2


def test_how_features_lie_in_memory_is_no_matter(fits):
    first = linear_head(**PLAIN)
    second = linear_head(**lesson(features=np.asfortranarray(PLAIN["features"])))
    assert len(fits) == 1
    assert_same(first, second)


def test_a_seed_may_be_a_number_of_numpy(fits):
    assert_same(linear_head(**lesson(seed=np.int64(0))), linear_head(**PLAIN))
    assert len(fits) == 1


def test_the_least_recently_used_go_where_there_are_too_many(fits, monkeypatch):
    for seed in range(4):
        linear_head(**lesson(seed=seed))
        for number, path in enumerate(heads()):
            os.utime(path, (100 + number, 100 + number))
    oldest, older, *kept = heads()
    monkeypatch.setattr(kept_heads, "_MOST_BYTES", 3 * oldest.stat().st_size)
    linear_head(**lesson(seed=4))
    assert len(heads()) == 3
    assert set(kept) < set(heads())
    assert {oldest, older}.isdisjoint(heads())


def test_features_of_more_rows_than_are_hashed_at_once(fits, monkeypatch):
    monkeypatch.setattr(kept_heads, "_ROWS_AT_ONCE", 7)
    linear_head(**PLAIN)
    linear_head(**OTHERS["a feature"])
    linear_head(**PLAIN)
    assert len(fits) == 2


# --- break it ---------------------------------------------------------------------------------------------------------


def test_whatever_byte_is_changed_the_head_is_right_and_the_file_mended(fits):
    expected = linear_head(**PLAIN)
    (path,) = heads()
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    places = [0, 31, 32, len(whole) - 1, *random.integers(0, len(whole), 60)]
    for number, place in enumerate(places, 2):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << number % 8]) + whole[place + 1 :])
        assert_same(linear_head(**PLAIN), expected)
        assert len(fits) == number
        assert_same(linear_head(**PLAIN), expected)
        assert len(fits) == number


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 500, -1])
def test_torn_at_any_length(length, fits):
    expected = linear_head(**PLAIN)
    (path,) = heads()
    path.write_bytes(path.read_bytes()[:length])
    assert_same(linear_head(**PLAIN), expected)
    assert len(fits) == 2


def test_a_head_under_the_name_of_another_is_not_taken(fits):
    linear_head(**PLAIN)
    (mine,) = heads()
    other = OTHERS["a label"]
    expected = linear_head(**other)
    (its,) = set(heads()) - {mine}
    its.write_bytes(mine.read_bytes())
    assert_same(linear_head(**other), expected)
    assert len(fits) == 3


@pytest.mark.parametrize("trouble", ["a file for the folder", "a folder for the file", "full", "unreadable"])
def test_a_cache_that_does_not_serve_costs_time_and_nothing_else(trouble, fits, own_cache, monkeypatch):
    linear_head(**PLAIN)
    (path,) = heads()

    def refuse(*_):
        raise OSError(28, "No space left on device")

    if trouble == "a file for the folder":
        path.unlink()
        path.parent.rmdir()
        path.parent.write_text("mine")
    elif trouble == "a folder for the file":
        path.unlink()
        path.mkdir()
    elif trouble == "full":
        path.unlink()
        monkeypatch.setattr(kept_heads, "write_sealed", refuse)
    else:
        monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    for number in (2, 3):
        assert_same(linear_head(**PLAIN), fit_linear_head(**PLAIN))
        assert len(fits) == number


def test_a_cache_that_may_not_be_written_still_serves(fits, monkeypatch):
    linear_head(**PLAIN)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.utime", refuse)
    monkeypatch.setattr(kept_heads, "write_sealed", refuse)
    linear_head(**PLAIN)
    assert len(fits) == 1


def test_interrupted_while_it_fits_keeps_nothing(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(kept_heads, "fit_linear_head", interrupted)
    with pytest.raises(KeyboardInterrupt):
        linear_head(**PLAIN)
    assert not cache_folder("heads").exists()
