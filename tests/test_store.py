from __future__ import annotations

import dataclasses
import json
import threading

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headstart.features.store import FeatureKey, FeatureStore

KEY = FeatureKey("MobileNetV2", "f" * 64, "torch", 225, "pooled", "1", "keras 3", "as_is")
HASHES = st.text("0123456789abcdef", min_size=64, max_size=64)
FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)


def same(found, expected):
    return found.keys() == expected.keys() and all(found[n].tobytes() == row.tobytes() for n, row in expected.items())


def rows_of(*names, width=3):
    return {name: np.full(width, number + 0.1, np.float32) for number, name in enumerate(names)}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_gives_back_every_bit(tmp_path_factory, data):
    width = data.draw(st.integers(1, 5))
    rows = st.dictionaries(HASHES, arrays.arrays(np.float32, width, elements=FLOATS), max_size=6)
    store = FeatureStore(KEY, tmp_path_factory.mktemp("store"))
    expected = {}
    for shard in data.draw(st.lists(rows, max_size=3)):
        new = {name: row for name, row in shard.items() if name not in expected}
        store.add(new)
        expected |= new
    assert same(store.load(list(expected)), expected)
    asked = data.draw(st.lists(HASHES | st.sampled_from(sorted(expected)) if expected else HASHES))
    assert same(store.load(asked), {name: expected[name] for name in asked if name in expected})


def test_each_part_of_the_key_has_its_own_features(tmp_path):
    FeatureStore(KEY, tmp_path).add(rows_of("a"))
    for field in dataclasses.fields(KEY):
        value = getattr(KEY, field.name)
        other = dataclasses.replace(KEY, **{field.name: value + 1 if isinstance(value, int) else value + "x"})
        assert FeatureStore(other, tmp_path).load(["a"]) == {}
    assert same(FeatureStore(KEY, tmp_path).load(["a"]), rows_of("a"))


def test_nothing_is_written_before_something_is_added(tmp_path):
    store = FeatureStore(KEY, tmp_path / "new")
    assert store.load(["a"]) == {}
    store.add({})
    assert not (tmp_path / "new").exists()


def test_the_key_lies_beside_its_features_as_plain_text(tmp_path):
    FeatureStore(KEY, tmp_path).add(rows_of("a"))
    assert json.loads((tmp_path / KEY.digest() / "key.json").read_text()) == KEY.fields()


def test_only_what_a_mended_network_computes_has_another_key():
    assert KEY.digest() == "bac2c5ae0f8418c7d3c676925c317dab"  # Features that are stored are found again.
    mended = dataclasses.replace(KEY, graph="2")
    assert mended.digest() != KEY.digest()
    assert mended.fields() == {**KEY.fields(), "graph": "2"}


def damage_first_byte(path):
    path.write_bytes(b"?" + path.read_bytes()[1:])


def damage_last_byte(path):
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def tear(path):
    path.write_bytes(path.read_bytes()[:-20])


def empty(path):
    path.write_bytes(b"")


def remove(path):
    path.unlink()


@pytest.mark.parametrize("kind", ["npy", "json"])
@pytest.mark.parametrize("harm", [damage_first_byte, tear, empty, remove])
def test_a_damaged_shard_counts_as_not_there(tmp_path, kind, harm):
    store = FeatureStore(KEY, tmp_path)
    store.add(rows_of("a", "b"))
    (path,) = (each for each in (tmp_path / KEY.digest()).glob(f"*.{kind}") if each.name != "key.json")
    store.add(rows_of("c"))
    harm(path)
    assert same(store.load(["a", "b", "c"]), rows_of("c"))
    store.add(rows_of("a", "b"))
    assert same(store.load(["a", "b", "c"]), rows_of("a", "b") | rows_of("c"))


def test_one_flipped_bit_is_found_out(tmp_path):
    store = FeatureStore(KEY, tmp_path)
    store.add(rows_of("a"))
    (path,) = (tmp_path / KEY.digest()).glob("*.npy")
    damage_last_byte(path)
    assert store.load(["a"]) == {}


@pytest.mark.parametrize("text", ["[]", "1", "null", '{"images": 3}', '{"images": ["a"]}', '{"images": [["a"]]}',
                                  '{"sha256": 1, "images": ["a"]}', "\x00"])  # fmt: skip
def test_an_index_of_something_else_counts_as_not_there(tmp_path, text):
    store = FeatureStore(KEY, tmp_path)
    store.add(rows_of("b"))
    (tmp_path / KEY.digest() / "00.json").write_text(text)
    assert same(store.load(["a", "b"]), rows_of("b"))


def test_an_index_that_names_more_images_than_there_are_rows(tmp_path):
    store = FeatureStore(KEY, tmp_path)
    store.add(rows_of("a"))
    (index,) = (each for each in (tmp_path / KEY.digest()).glob("*.json") if each.name != "key.json")
    index.write_text(json.dumps({**json.loads(index.read_text()), "images": ["a", "z"]}))
    assert "z" not in store.load(["a", "z"])


def test_several_writers_fill_one_store(tmp_path):
    expected = [rows_of(*(f"{writer}-{number}" for number in range(5))) for writer in range(4)]
    threads = [threading.Thread(target=FeatureStore(KEY, tmp_path).add, args=(rows,)) for rows in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = {name: row for rows in expected for name, row in rows.items()}
    assert same(FeatureStore(KEY, tmp_path).load(list(together)), together)
