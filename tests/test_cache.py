from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import platformdirs
import pytest

from headstart.cache import (
    cache_folder,
    code_sha256,
    file_sha256,
    read_kept,
    read_sealed,
    write_atomically,
    write_sealed,
)


def test_lies_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "here"))
    assert cache_folder("weights") == tmp_path / "here" / "weights"
    assert not (tmp_path / "here").exists()
    monkeypatch.setenv("HEADSTART_CACHE", "~/there")
    assert cache_folder("features") == Path.home() / "there" / "features"
    for unset in ("", None):
        monkeypatch.setenv("HEADSTART_CACHE", unset) if unset is not None else monkeypatch.delenv("HEADSTART_CACHE")
        assert cache_folder("weights") == platformdirs.user_cache_path("headstart", appauthor=False) / "weights"


def test_writes_a_whole_file_and_makes_its_folder(tmp_path):
    path = tmp_path / "a" / "b" / "file.bin"
    for data in (b"first", b"second, and longer"):
        with write_atomically(path) as file:
            file.write(data)
        assert path.read_bytes() == data
    assert list(path.parent.iterdir()) == [path]


def test_nothing_is_there_before_all_of_it_is(tmp_path):
    path = tmp_path / "file.bin"
    with write_atomically(path) as file:
        file.write(b"data")
        file.flush()
        assert not path.exists()
    assert path.exists()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_failed_write_leaves_what_was_there(tmp_path, error, old):
    path = tmp_path / "file.bin"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(error), write_atomically(path) as file:
        file.write(b"half of it")
        raise error
    assert [(each, each.read_bytes()) for each in tmp_path.iterdir()] == ([(path, old)] if old else [])


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, step):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OSError, match="No space left"), write_atomically(path) as file:
        file.write(b"new")
    assert [(each, each.read_bytes()) for each in tmp_path.iterdir()] == [(path, b"old")]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_others_may_read_it_as_the_umask_says(tmp_path, mask):
    before = os.umask(mask)
    try:
        with write_atomically(tmp_path / "file.bin") as file:
            file.write(b"data")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file.bin").stat().st_mode) == 0o666 & ~mask


def test_very_long_names_are_written(tmp_path):
    path = tmp_path / ("n" * 250)
    with write_atomically(path) as file:
        file.write(b"data")
    assert path.read_bytes() == b"data"


def test_hashes_a_file(tmp_path):
    data = bytes(range(256)) * 5000
    (tmp_path / "file.bin").write_bytes(data)
    assert file_sha256(tmp_path / "file.bin") == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 5])
def test_what_is_sealed_is_read_back_and_nothing_else_is(tmp_path, data):
    path = tmp_path / "new" / "file"
    assert read_sealed(path) is None
    write_sealed(path, memoryview(data))
    assert read_sealed(path) == data
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        assert read_sealed(path) is None
    for other in (whole[:-1], whole + b"x", whole[:31], b""):
        path.write_bytes(other)
        assert read_sealed(path) is None


def test_what_is_sealed_and_cannot_be_read_counts_as_not_there(tmp_path, monkeypatch):
    assert read_sealed(tmp_path) is None
    write_sealed(tmp_path / "file", b"data")
    os.utime(tmp_path / "file", (10, 10))
    assert read_kept(tmp_path / "file") == b"data"
    assert (tmp_path / "file").stat().st_mtime > 1_000_000  # It was used now.

    def refuse(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.utime", refuse)
    assert read_kept(tmp_path / "file") == b"data"
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert read_kept(tmp_path / "file") is None


def test_any_change_of_the_code_is_another_hash(tmp_path):
    def hash_of(folder, **files):
        (tmp_path / folder).mkdir()
        for name, text in files.items():
            (tmp_path / folder / f"{name}.py").write_text(text)
        return code_sha256(tmp_path / folder)

    assert hash_of("one", a="1", b="2") == hash_of("the same", a="1", b="2")
    others = ({"a": "1", "b": "3"}, {"a": "1", "c": "2"}, {"a": "1"}, {"a": "12"}, {"a": "", "b": "12"}, {})
    assert len({hash_of(f"other {number}", **files) for number, files in enumerate(others)}) == len(others)
