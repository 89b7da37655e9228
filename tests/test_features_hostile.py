"""A full disk, a read-only cache, damage, another decoder, exchanged images: never a wrong feature.

Every byte of a shard is flipped in test_store_damage.py; what kills and several processes do is in
test_features_killed.py, what pruning does to readers in test_upkeep.py.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from headstart import cache, workflow
from headstart.errors import CacheError
from headstart.features import store as store_module
from headstart.features.extract import Extractor
from headstart.features.store import FeatureKey, FeatureStore, shard_indexes
from headstart.features.upkeep import list_stores, prune, stores_folder, verify
from headstart.pictures.scan import scan
from journey import call, paint_folder
from tiny import flip, tiny_backbone, write_images

VIEWS = ("as_is", "mirrored")


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.fixture(scope="module")
def extractor(backbone):
    return Extractor(backbone)


@pytest.fixture
def images(tmp_path, empty_cache):
    return write_images(tmp_path / "photos", 6)


def afresh(extractor, images, folder):
    """The right features, computed in an empty cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(folder))
        shutil.rmtree(folder, ignore_errors=True)
        found = extractor.extract(images, VIEWS)
        assert len(found.computed) == len(images)
        return found.values.tobytes()


# --- the disk is full -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def full_disk(after):
    """So many files still find room."""
    number, put = itertools.count(), cache.put_in_place

    def put_if_there_is_room(finished, path):
        if next(number) >= after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(finished, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "put_in_place", put_if_there_is_room)
        yield


@pytest.mark.parametrize("after", range(6))
def test_a_full_disk_is_one_message_and_nothing_is_wrong_later(extractor, images, tmp_path, after):
    expected = afresh(extractor, images, tmp_path / "afresh")
    early = extractor.extract(images[:2], VIEWS)
    with full_disk(after % 4), pytest.raises((OSError, CacheError)) as caught:
        extractor.extract(images, VIEWS)
    assert "No space left on device" in str(caught.value)
    assert str(stores_folder()) in str(caught.value)
    assert not list(stores_folder().rglob("*.part"))
    assert not verify().damaged
    found = extractor.extract(images, VIEWS)
    assert found.values.tobytes() == expected
    assert {image.name for image in images[:2]}.isdisjoint(found.computed)
    assert found.values[:2].tobytes() == early.values.tobytes()
    assert extractor.extract(images, VIEWS).num_passes == 0


@pytest.mark.parametrize("after", range(6))
def test_a_disk_that_is_full_before_the_first_shard(extractor, images, tmp_path, after):
    """Two views: two keys, each with key.json, a shard and its index."""
    expected = afresh(extractor, images, tmp_path / "afresh")
    with full_disk(after), pytest.raises((OSError, CacheError), match="No space left on device"):
        extractor.extract(images, VIEWS)
    found = extractor.extract(images, VIEWS)
    assert found.values.tobytes() == expected
    assert len(found.computed) == len(images)
    assert sum(store.num_images for store in list_stores()) == 2 * len(images)


def command_says(extractor, images, monkeypatch):
    """What a person is told whose features cannot be kept."""
    monkeypatch.setattr(workflow, "fit", lambda *_, **__: extractor.extract(images, VIEWS))
    return call("fit", "photos").complaint()


def test_a_full_disk_is_one_line_at_the_command_line(extractor, images, monkeypatch):
    with full_disk(1):
        said = command_says(extractor, images, monkeypatch)
    assert said.startswith(f"{stores_folder()}/")
    assert "No space left on device" in said
    assert "HEADSTART_CACHE can name another folder" in said


# --- the cache may not be written -------------------------------------------------------------------------------------


def test_a_cache_that_cannot_be_made_is_one_line_that_says_what_to_do(extractor, images, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "file"))
    said = command_says(extractor, images, monkeypatch)
    assert said.startswith(f"{tmp_path / 'file'}/features/")
    assert "HEADSTART_CACHE can name another folder" in said
    assert (tmp_path / "file").read_text() == ""


def test_another_files_problem_says_nothing_of_the_cache(monkeypatch, empty_cache, tmp_path):
    def fit(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "run" / "run.json"))

    monkeypatch.setattr(workflow, "fit", fit)
    assert "HEADSTART_CACHE" not in call("fit", "photos").complaint()


@contextlib.contextmanager
def read_only():
    def refuse(path, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((store_module, "locked"), (store_module, "write_atomically"), (os, "utime")):
            patch.setattr(module, name, refuse)
        yield


def test_a_read_only_cache_that_holds_everything_is_enough(extractor, images, tmp_path):
    before = extractor.extract(images, VIEWS)
    with read_only():
        again = extractor.extract(images, VIEWS)
    assert again.num_passes == 0
    assert again.values.tobytes() == before.values.tobytes()


def test_a_read_only_cache_that_lacks_something_is_one_line(extractor, images, monkeypatch, tmp_path):
    extractor.extract(images[:3], VIEWS)
    with read_only():
        said = command_says(extractor, images, monkeypatch)
    assert said.startswith(f"{stores_folder()}/")
    assert "Read-only file system" in said
    assert "HEADSTART_CACHE can name another folder" in said
    monkeypatch.undo()
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    assert len(extractor.extract(images, VIEWS).computed) == 3


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("harm", ["first", "middle", "last", "torn", "empty"])
def test_damage_is_mended_by_computing_again(extractor, images, tmp_path, suffix, harm):
    expected = afresh(extractor, images, tmp_path / "afresh")
    extractor.extract(images[:3], VIEWS)
    extractor.extract(images, VIEWS)
    for store in list_stores():
        path = shard_indexes(store.folder)[0].with_suffix(suffix)
        data = path.read_bytes()
        if harm in {"torn", "empty"}:
            path.write_bytes(data[: len(data) // 2] if harm == "torn" else b"")
        else:
            flip(path, {"first": 0, "middle": len(data) // 2, "last": -1}[harm])
    found = extractor.extract(images, VIEWS)
    assert found.values.tobytes() == expected
    assert found.computed
    assert extractor.extract(images, VIEWS).num_passes == 0


@pytest.mark.parametrize("harm", ["first", "middle", "torn"])
def test_a_damaged_engine_on_disk_computes_nothing_wrong(backbone, images, tmp_path, empty_cache, harm):
    expected = Extractor(backbone).extract(images, VIEWS).values.tobytes()
    files = list((empty_cache / "engines").glob("*.*"))
    if not files:
        pytest.skip("this engine keeps nothing on disk")
    for path in files:
        data = path.read_bytes()
        if harm == "torn":
            path.write_bytes(data[: len(data) // 2])
        else:
            flip(path, {"first": 0, "middle": len(data) // 2}[harm])
    prune(0)
    found = Extractor(backbone).extract(images, VIEWS)
    assert len(found.computed) == len(images)
    assert found.values.tobytes() == expected


# --- two decoders -----------------------------------------------------------------------------------------------------


def test_another_decoder_computes_anew_and_both_are_kept(backbone, images):
    first = Extractor(backbone).extract(images, VIEWS)
    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):  # Whoever has taken the name from the decoder's module.
            if name.startswith("headstart.") and "DECODER_VERSION" in vars(module):
                patch.setattr(module, "DECODER_VERSION", "another")
        other = Extractor(backbone).extract(images, VIEWS)
        assert len(other.computed) == len(images)
        assert Extractor(backbone).extract(images, VIEWS).num_passes == 0
    again = Extractor(backbone).extract(images, VIEWS)
    assert again.num_passes == 0
    assert again.values.tobytes() == first.values.tobytes()
    stores = list_stores()
    assert len({store.key["decoder"] for store in stores}) == 2
    assert [store.num_images for store in stores] == [len(images)] * 4


# --- exchanged images -------------------------------------------------------------------------------------------------


def test_another_image_of_the_same_name_size_and_time_is_another_image(extractor, tmp_path, empty_cache):
    folder = paint_folder(tmp_path / "photos", 3)
    for path in list(folder.rglob("*.png")):  # Every BMP of one shape is of one size.
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    before = scan(folder)
    extractor.extract(before.images, VIEWS)
    path = before.images[4].path
    status = path.stat()
    Image.fromarray(np.random.default_rng(9).integers(0, 256, (24, 24, 3), np.uint8)).save(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    after = scan(folder)
    found = extractor.extract(after.images, VIEWS)
    assert found.computed == {before.images[4].name}
    assert found.values.tobytes() == afresh(extractor, after.images, tmp_path / "afresh")


def test_an_image_exchanged_after_the_scan_gets_no_feature(extractor, images, tmp_path):
    other = write_images(tmp_path / "other", 1, start=77)[0]
    shutil.copy2(other.path, images[2].path)
    found = extractor.extract(images, VIEWS)
    assert [failure.name for failure in found.failures] == [images[2].name]
    assert len(found.values) == len(images) - 1
    stored = {
        image
        for store in list_stores()
        for image in FeatureStore(FeatureKey(**store.key)).find([images[2].sha256, other.sha256])
    }
    assert not stored


# --- pruned meanwhile -------------------------------------------------------------------------------------------------


def test_extracting_while_another_prunes_gives_right_features_or_the_error(extractor, images, tmp_path):
    expected = afresh(extractor, images, tmp_path / "afresh")
    stop = threading.Event()

    def prune_all_the_time():
        while not stop.is_set():
            prune(0)
            time.sleep(0.03)

    thread = threading.Thread(target=prune_all_the_time)
    thread.start()
    right = 0
    try:
        for _ in range(30):
            with contextlib.suppress(CacheError):
                assert extractor.extract(images, VIEWS).values.tobytes() == expected
                right += 1
    finally:
        stop.set()
        thread.join()
    assert right
    assert extractor.extract(images, VIEWS).values.tobytes() == expected
