"""`headstart cache list`, `verify` and `prune`, and what they do to those who read and add meanwhile."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import threading
import time

import numpy as np
import pytest

from headstart import terminal
from headstart.cache import locked, write_sealed
from headstart.errors import CacheError
from headstart.features import upkeep
from headstart.features.store import FeatureKey, FeatureStore, shard_indexes
from headstart.features.upkeep import compiled_networks, fitted_heads, list_stores, prune, stores_folder, verify
from journey import call

KEY = FeatureKey("MobileNetV2", "f" * 64, "torch", 225, "pooled", "1", "keras 3", "as_is")
VIEWS = ("as_is", "mirrored", "turned")


@pytest.fixture(autouse=True)
def own_cache(empty_cache):
    return empty_cache


def sha(name):
    return hashlib.sha256(str(name).encode()).hexdigest()


def row(name):
    return np.random.default_rng(int(sha(name)[:8], 16)).normal(size=100).astype(np.float32)


def rows_of(*names):
    return {sha(name): row(name) for name in names}


def store_of(view):
    return FeatureStore(dataclasses.replace(KEY, view=view))


def fill(*, start=1_700_000_000):
    """Three stores of two shards, the first used longest ago."""
    stores = [store_of(view) for view in VIEWS]
    for number, store in enumerate(stores):
        store.add(rows_of("a", "b"))
        store.add(rows_of("c"))
        os.utime(store.folder / "key.json", (start + number, start + number))
    return stores


def is_whole(store):
    found = store.load(rows_of("a", "b", "c"))
    return len(found) == 3 and all(
        found[name].tobytes() == row.tobytes() for name, row in rows_of("a", "b", "c").items()
    )


def bytes_in(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.suffix != ".lock" and path.is_file())


def flip_last_byte(path):
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def age(path, seconds=4000):
    os.utime(path, (time.time() - seconds,) * 2)


# --- list -------------------------------------------------------------------------------------------------------------


def test_lists_each_key_with_what_it_takes_last_used_first():
    stores = fill()
    rows = list_stores()
    assert [row.key["view"] for row in rows] == ["turned", "mirrored", "as_is"]
    assert [row.last_used for row in rows] == [1_700_000_002, 1_700_000_001, 1_700_000_000]
    assert rows[0].key == dataclasses.replace(KEY, view="turned").fields()
    for row, store in zip(rows, reversed(stores), strict=True):
        assert (row.folder, row.num_images, row.num_bytes) == (store.folder, 3, bytes_in(store.folder))


def test_looking_something_up_is_using_it():
    first, *_ = fill()
    assert list_stores()[-1].folder == first.folder
    first.find([sha("unknown")])
    assert list_stores()[0].folder == first.folder
    assert time.time() - list_stores()[0].last_used < 100


def test_looking_something_up_in_a_cache_that_may_not_be_written(monkeypatch):
    store, *_ = fill()

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "utime", refuse)
    assert is_whole(store)


def test_an_image_in_two_shards_counts_once():
    store = store_of("as_is")
    store.add(rows_of("a", "b"))
    store.add(rows_of("a", "c"))
    assert list_stores()[0].num_images == 3


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"view": "as_is"}', None])
def test_features_whose_key_is_damaged_are_listed_and_stay_in_use(text):
    store, *_ = fill()
    path = store.folder / "key.json"
    path.write_text(text) if text is not None else path.unlink()
    (row,) = (row for row in list_stores() if row.folder == store.folder)
    assert (row.key, row.num_images) == ({}, 3)
    assert is_whole(store)
    assert [each.path for each in verify().damaged] == ([path] if text is not None else [])
    prune(damaged=True)
    assert not path.exists()
    assert is_whole(store)
    store.add(rows_of("d"))
    assert not verify().damaged
    assert all(row.key for row in list_stores())


def test_what_is_not_a_store_is_let_be():
    fill()
    other = stores_folder() / "my notes"
    other.mkdir()
    (other / "notes.json").write_text("{}")
    note = next(iter(stores_folder().glob("?" * 32))) / "notes.txt"
    note.write_text("mine")
    assert len(list_stores()) == 3
    assert len(prune(0).stores) == 3
    assert list_stores() == []
    assert (other / "notes.json").read_text() == "{}"
    assert note.read_text() == "mine"


def test_command_lists_for_people_and_for_programs(monkeypatch):
    stores = fill()
    answer = call("cache", "list")
    header, *lines = answer.out.splitlines()
    assert header.split("  ")[0] == "backbone"
    assert [line.split()[:3] for line in lines] == [["MobileNetV2", "225", view] for view in reversed(VIEWS)]
    assert f"3 sets of features, 0.0 MB: {stores_folder()}" in answer.err
    plain = call("cache", "list", "--json").json
    assert plain["bytes"] == sum(row["bytes"] for row in plain["stores"]) == sum(bytes_in(s.folder) for s in stores)
    assert plain["stores"][2] == {
        "path": str(stores[0].folder), "key": dataclasses.replace(KEY, view="as_is").fields(),
        "num_images": 3, "bytes": bytes_in(stores[0].folder), "last_used": "2023-11-14T22:13:20+00:00",
    }  # fmt: skip


def test_table_fits_the_window(monkeypatch, capsys):
    fill()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    terminal.show_stores(list_stores())
    said = capsys.readouterr()
    assert max(map(len, said.out.splitlines())) <= 80
    assert said.err.startswith("For want of room without: weights")


# --- verify -----------------------------------------------------------------------------------------------------------


def test_verify_reads_everything_and_says_how_far_it_is():
    fill()
    steps = []
    found = verify(progress=lambda *step: steps.append(step))
    total = sum(path.stat().st_size for path in stores_folder().rglob("*.npy"))
    assert (found.num_shards, found.num_bytes, found.damaged) == (6, total, ())
    assert len(steps) == 6
    assert 0 < steps[0][1] < steps[1][1] < total == steps[0][2]
    assert steps[-1][1:] == (total, total)


@pytest.mark.parametrize("harm", ["shard", "no shard", "index", "torn index"])
def test_command_names_what_is_damaged_and_what_to_do(harm):
    store = fill()[1]
    index = shard_indexes(store.folder)[0]
    bad = index if "index" in harm else index.with_suffix(".npy")
    if harm == "no shard":
        bad.unlink()
    elif harm == "torn index":
        bad.write_bytes(bad.read_bytes()[:-1])
    else:
        flip_last_byte(bad)
    answer = call("cache", "verify", "--json")
    assert answer.code == 1
    problem = "missing" if harm == "no shard" else "not what was written"
    assert answer.json["damaged"] == [{"path": str(bad), "problem": problem}]
    assert f"BAD  {bad}: {problem}\n" in answer.err
    assert f"error: 1 file damaged, the first being {bad}." in answer.err
    assert "headstart cache prune --damaged" in answer.err
    done = call("cache", "prune", "--damaged", "--json")
    assert done.code == 0
    assert done.json["damaged"] == answer.json["damaged"]
    assert not index.exists()
    assert not index.with_suffix(".npy").exists()
    after = call("cache", "verify", "--json")
    assert (after.code, after.json["num_files"], after.json["damaged"]) == (0, 5, [])
    store.add(
        {name: row for name, row in rows_of("a", "b", "c").items() if name not in store.load(rows_of("a", "b", "c"))}
    )
    assert is_whole(store)


def test_what_is_removed_while_it_is_verified_is_not_damaged(monkeypatch):
    store, *_ = fill()
    index = shard_indexes(store.folder)[1]  # The second to be read.

    def remove(step, done, total):
        index.unlink(missing_ok=True)
        index.with_suffix(".npy").unlink(missing_ok=True)

    assert verify(progress=remove).damaged == ()


# --- prune ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(4))
def test_prune_removes_whole_keys_least_recently_used_first(number):
    stores = fill()
    sizes = [bytes_in(store.folder) for store in stores]
    done = prune(sum(sizes[number:]))
    assert done.stores == tuple(store.folder for store in stores[:number])
    assert (done.freed_bytes, done.kept_bytes) == (sum(sizes[:number]), sum(sizes[number:]))
    assert [store.folder.exists() for store in stores] == [False] * number + [True] * (3 - number)
    assert all(is_whole(store) for store in stores[number:])
    for store in stores[:number]:
        assert store.load(rows_of("a")) == {}
        store.add(rows_of("a", "b", "c"))
        assert is_whole(store)


def test_prune_by_a_byte_too_few_removes_one():
    sizes = [bytes_in(store.folder) for store in fill()]
    assert len(prune(sum(sizes) - 1).stores) == 1


def test_prune_goes_by_use_and_not_by_age():
    stores = fill()
    stores[0].find([sha("a")])
    done = prune(bytes_in(stores[0].folder))
    assert done.stores == (stores[1].folder, stores[2].folder)


def test_prune_removes_what_killed_writers_left_once_it_is_old():
    store, *_ = fill()
    shard, index = (store.folder / f"{'0' * 32}{suffix}" for suffix in (".npy", ".json"))
    left = [shard, store.folder / ".key.json.abc.part", store.folder / ".0000.npy.xyz.part"]
    for path in left:
        path.write_bytes(b"half")
    assert prune().num_leftovers == 0  # Someone may be writing them.
    assert all(path.exists() for path in left)
    for path in left:
        age(path)
    index.write_text("{}")
    assert prune().num_leftovers == 2  # It has an index: damaged, perhaps, but no leftover.
    index.unlink()
    done = prune()
    assert (done.num_leftovers, done.freed_bytes, done.stores) == (1, 4, ())
    assert not any(path.exists() for path in left)
    assert is_whole(store)


def test_prune_of_nothing_writes_nothing(own_cache):
    answer = call("cache", "prune", "--max-size", "0", "--damaged", "--json")
    assert answer.code == 0
    assert answer.json == {
        "folder": str(stores_folder()), "removed": [], "damaged": [], "num_networks": 0, "num_heads": 0, "num_leftovers": 0, "freed_bytes": 0, "bytes": 0
    }  # fmt: skip
    assert call("cache", "verify").code == call("cache", "list").code == 0
    assert not own_cache.exists()


@pytest.mark.parametrize(
    ("size", "left"), [("0", 0), ("0MB", 0), ("1KB", 0), ("3kb", 1), ("0.0064 MB", 3), ("2GB", 3), (" 1TB ", 3)]
)
def test_sizes_as_people_write_them(size, left):
    stores = fill()
    assert all(2000 < bytes_in(store.folder) < 2130 for store in stores)
    answer = call("cache", "prune", "--max-size", size, "--json")
    assert answer.code == 0, answer.err
    assert sum(store.folder.exists() for store in stores) == left
    assert answer.json["removed"] == [str(store.folder) for store in stores[: 3 - left]]


@pytest.mark.parametrize("size", ["500", "", "MB", "-1GB", "1e3MB", "2 PB", "0x0", "nan", "inf GB", "٣MB", "00"])
def test_a_size_without_its_unit_removes_nothing(size):
    stores = fill()
    said = call("cache", "prune", f"--max-size={size}").complaint()
    assert said == f"--max-size must be a number with KB, MB, GB or TB, such as 500MB, or 0; got '{size}'."
    assert all(map(is_whole, stores))


def test_prune_waits_for_who_is_adding():
    first, *_ = fill()
    waits, done = threading.Event(), threading.Event()

    def remove():
        prune(0, progress=lambda step, *_: waits.set() if step.startswith("Waiting") else None)
        done.set()

    with locked(first.folder, lambda: None):
        thread = threading.Thread(target=remove)
        thread.start()
        assert waits.wait(10)
        assert not done.wait(0.2)
        assert is_whole(first)
    thread.join()
    assert done.is_set()
    assert list_stores() == []


def test_a_cache_that_may_not_be_written_is_one_message(monkeypatch):
    stores = fill()
    unlink = upkeep.Path.unlink

    def refuse(path, **options):
        if path.suffix == ".json":
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, **options)

    monkeypatch.setattr(upkeep.Path, "unlink", refuse)
    said = call("cache", "prune", "--max-size", "0").complaint()
    assert said.startswith(f"{stores[0].folder}/")
    assert "Permission denied" in said
    assert "HEADSTART_CACHE" in said
    assert all(map(is_whole, stores))


def test_who_reads_while_others_prune_and_add_gets_right_rows_or_the_error():
    names = [f"image {number}" for number in range(30)]
    expected = rows_of(*names)
    hashes = list(expected)
    counts = {"whole": 0, "part": 0, "error": 0, "wrong": 0}
    store, stop = store_of("as_is"), threading.Event()

    def read():
        while not stop.is_set():
            found = store.find(hashes)
            here = [name for name in hashes if name in found]
            try:
                rows = found.rows(here)
            except CacheError:
                counts["error"] += 1
                continue
            right = all(row.tobytes() == expected[name].tobytes() for name, row in zip(here, rows, strict=True))
            counts[("whole" if len(here) == 30 else "part") if right else "wrong"] += 1

    def add():
        for number in itertools.cycle(range(0, 30, 3)):
            if stop.is_set():
                return
            store.add({name: expected[name] for name in hashes[number : number + 3]})

    problems = []

    def watched(work):
        try:
            work()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=watched, args=(work,)) for work in (read, read, add, add)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        prune(0)
        list_stores()
        verify()
        time.sleep(0.02)
    stop.set()
    for thread in threads:
        thread.join()
    assert not problems
    assert counts["wrong"] == 0
    assert counts["part"]
    assert counts["error"]
    store.add(expected)
    assert json.loads((store.folder / "key.json").read_text())["view"] == "as_is"
    assert not verify().damaged


def spare(folder, name, when, data=bytes(968)):
    """A network or a head of 1,000 bytes."""
    path = stores_folder().with_name(folder) / name
    write_sealed(path, data)
    os.utime(path, (when, when))
    return path


def test_networks_and_heads_go_before_features_by_their_last_use():
    store = store_of("as_is")
    store.add(rows_of("a"))
    os.utime(store.folder / "key.json", (0, 0))
    size = bytes_in(store.folder)
    late, early, later = (spare("engines", f"{when}.blob", when) for when in (20, 10, 40))
    head = spare("heads", "30.head", 30)
    assert compiled_networks() == [early, late, later]
    assert fitted_heads() == [head]
    assert prune().kept_bytes == size + 4000
    done = prune(size + 1500)
    assert (done.num_networks, done.num_heads, done.stores) == (2, 1, ())
    assert (done.freed_bytes, done.kept_bytes) == (3000, size + 1000)
    assert compiled_networks() == [later]
    assert fitted_heads() == []
    done = prune(0)
    assert (done.num_networks, done.num_heads, len(done.stores), done.kept_bytes) == (1, 0, 1, 0)


def test_commands_count_networks_and_heads():
    store_of("as_is").add(rows_of("a"))
    spare("engines", "a.blob", 10)
    spare("heads", "b.head", 20)
    spare("heads", "c.head", 30)
    answer = call("cache", "list", "--json")
    plain = answer.json
    assert (plain["num_networks"], plain["network_bytes"], plain["num_heads"], plain["head_bytes"]) == (
        1,
        1000,
        2,
        2000,
    )
    assert f"2 fitted heads, 0.0 MB: {stores_folder().with_name('heads')}" in answer.err
    answer = call("cache", "verify", "--json")
    assert answer.json["num_files"] == 4
    assert "1 file of features and 3 of networks and heads, 0.0 MB, read in" in answer.err
    answer = call("cache", "prune", "--max-size", "0", "--json")
    assert (answer.json["num_networks"], answer.json["num_heads"]) == (1, 2)
    assert "1 compiled network, 2 fitted heads; 0.0 MB." in answer.err


@pytest.mark.parametrize(("folder", "name"), [("engines", "a.blob"), ("heads", "a.head")])
@pytest.mark.parametrize("harm", ["flipped", "torn", "empty"])
def test_a_damaged_network_or_head_is_named_and_removed(folder, name, harm):
    path, whole = spare(folder, name, 10), spare(folder, f"whole {name}", 20)
    if harm == "flipped":
        flip_last_byte(path)
    else:
        path.write_bytes(path.read_bytes()[:-1] if harm == "torn" else b"")
    assert prune().freed_bytes == 0
    answer = call("cache", "verify", "--json")
    assert answer.code == 1
    assert answer.json["damaged"] == [{"path": str(path), "problem": "not what was written"}]
    assert call("cache", "prune", "--damaged").code == 0
    assert (path.exists(), whole.exists()) == (False, True)
    assert call("cache", "verify").code == 0


def test_prune_removes_networks_and_heads_that_were_never_finished_once_they_are_old():
    head = spare("heads", "a.head", 10)
    parts = [head.with_name(".b.head.xyz.part"), stores_folder().with_name("engines") / ".a.blob.xyz.part"]
    for part in parts:
        part.parent.mkdir(exist_ok=True)
        part.write_bytes(b"half")
    assert prune().num_leftovers == 0
    for part in parts:
        age(part)
    done = prune()
    assert (done.num_leftovers, done.freed_bytes) == (2, 8)
    assert not any(part.exists() for part in parts)
    assert head.exists()
