"""One flipped byte anywhere in a stored shard or its index, or a torn file: found out, never a wrong row."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.errors import CacheError
from headstart.features.store import FeatureKey, FeatureStore, shard_indexes
from headstart.features.upkeep import verify
from tiny import flip

KEY = FeatureKey("MobileNetV2", "f" * 64, "torch", 225, "pooled", "1", "keras 3", "as_is")


@pytest.fixture
def small(tmp_path):
    """A store with one shard of three images, and what is in it."""
    store = FeatureStore(KEY, tmp_path / "store")
    values = np.random.default_rng(0).normal(size=(3, 20)).astype(np.float32)
    rows = {f"{number:064x}": row for number, row in enumerate(values, 0xABC)}
    store.add(rows)
    (index,) = shard_indexes(store.folder)
    return store, rows, index


def only_right(store, rows):
    """How many of the rows are there; none may be wrong."""
    found = store.load(rows)
    assert all(found[name].tobytes() == rows[name].tobytes() for name in found)
    return len(found)


@pytest.mark.parametrize("bits", [0x01, 0x02, 0x20, 0x80, 0xFF])
def test_a_flipped_byte_anywhere_in_a_shard_is_found(small, bits):
    store, rows, index = small
    shard = index.with_suffix(".npy")
    whole = shard.read_bytes()
    for place in range(len(whole)):  # Magic, version, length and text of the header, every float.
        flip(shard, place, bits)
        assert only_right(store, rows) == 0
        shard.write_bytes(whole)
    assert only_right(store, rows) == 3


@pytest.mark.parametrize("bits", [0x01, 0x02, 0x20, 0x80, 0xFF])
def test_a_flipped_byte_anywhere_in_an_index_is_found(small, bits):
    """Also where it makes one image's hash another's: those of ``small`` are one bit apart."""
    store, rows, index = small
    whole = index.read_bytes()
    for place in range(len(whole)):  # Braces, quotes, names, the hash of the shard, the hashes of the images.
        flip(index, place, bits)
        assert only_right(store, rows) == 0
        assert len(verify(store.folder.parent).damaged) == 1
        index.write_bytes(whole)
    assert only_right(store, rows) == 3


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_a_file_torn_anywhere_is_found(small, suffix):
    store, rows, index = small
    path = index.with_suffix(suffix)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert only_right(store, rows) == 0
        assert len(verify(store.folder.parent).damaged) == 1
    for more in (b"\0", b"}", whole):
        path.write_bytes(whole + more)
        assert only_right(store, rows) == 0
    path.write_bytes(whole)
    assert only_right(store, rows) == 3


def test_shards_that_changed_places_are_found(small):
    store, rows, _ = small
    more = {f"{number:064x}": row + 1 for number, row in enumerate(rows.values())}
    store.add(more)
    first, second = (index.with_suffix(".npy") for index in shard_indexes(store.folder))
    first_bytes = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(first_bytes)
    assert only_right(store, {**rows, **more}) == 0


def test_a_flipped_byte_in_the_key_changes_nothing(small):
    store, rows, _ = small
    for place in range(len((store.folder / "key.json").read_bytes())):
        flip(store.folder / "key.json", place)
        assert only_right(store, rows) == 3
        assert [each.path.name for each in verify(store.folder.parent).damaged] == ["key.json"]
        flip(store.folder / "key.json", place)


@pytest.mark.parametrize("harm", ["flipped", "torn", "gone"])
@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_what_is_damaged_after_it_was_found_is_an_error_and_no_row(small, suffix, harm):
    store, rows, index = small
    found, path = store.find(rows), index.with_suffix(suffix)
    if harm == "gone":
        path.unlink()
    elif harm == "torn":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        flip(path, 20)
    with pytest.raises(CacheError, match="was removed or damaged while it was in use") as caught:
        found.rows(list(rows))
    assert str(index.with_suffix(".npy")) in str(caught.value)
