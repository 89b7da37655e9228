from __future__ import annotations

import numpy as np
import pytest

from headstart.errors import RunError
from headstart.learning.keeper import Keeper


def keeper(folder, identity="this training"):
    return Keeper(folder, ".tuning", identity)


def save(keeper, number):
    keeper.save({"step": number}, {"weights": [np.full(5, number, np.float32), np.array(number)], "none": []})


def files(folder):
    return sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)


@pytest.fixture
def two(tmp_path):
    """Two generations: 1, then 2."""
    mine = keeper(tmp_path)
    for number in (1, 2):
        save(mine, number)
    return tmp_path


def test_gives_back_the_newest(two):
    assert len(files(two)) == 2
    found = keeper(two).load()
    assert found.facts == {"step": 2}
    assert not found.fallback
    assert found.arrays["none"] == []
    np.testing.assert_array_equal(found.arrays["weights"][0], np.full(5, 2, np.float32))
    assert found.arrays["weights"][1].shape == ()


def test_writes_over_the_older_after_a_restart(two):
    again = keeper(two)
    again.load()
    save(again, 3)
    save(again, 4)
    assert len(files(two)) == 2
    assert keeper(two).load().facts == {"step": 4}


def test_nothing_is_nothing(tmp_path):
    assert keeper(tmp_path).load() is None


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", ["flip", "zero", "cut", "empty", "gone"])
def test_falls_back_to_the_generation_before(two, damage):
    newest = files(two)[-1]
    size = newest.stat().st_size
    if damage == "flip":
        flip(newest, size // 2)
    elif damage == "zero":
        newest.write_bytes(newest.read_bytes()[: size - 200] + bytes(200))
    elif damage == "cut":
        newest.write_bytes(newest.read_bytes()[: size // 3])
    elif damage == "empty":
        newest.write_bytes(b"")
    else:
        newest.unlink()
    found = keeper(two).load()
    assert found.facts == {"step": 1}
    assert found.fallback == (damage != "gone")


def test_any_flipped_byte_is_found(two):
    newest = files(two)[-1]
    whole = newest.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(whole), 100):
        flip(newest, place)
        assert keeper(two).load().facts == {"step": 1}, place
        newest.write_bytes(whole)
    assert keeper(two).load().facts == {"step": 2}


def test_says_so_where_both_are_damaged(two):
    for path in files(two):
        flip(path, 40)
    with pytest.raises(
        RunError, match=r"^The state of an interrupted training is damaged: .* Delete them to train from"
    ):
        keeper(two).load()


def test_never_reads_the_state_of_another_training(two):
    assert keeper(two, "another").load() is None


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RunError, match=r"^The state of the training cannot be written to .*missing"):
        save(keeper(tmp_path / "file" / "missing"), 1)
