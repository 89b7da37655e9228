"""Manifests in Parquet: the same rows and the same complaints as in JSONL, and nothing but DataError for damaged ones."""

from __future__ import annotations

import sys

import pytest

from headstart.errors import DataError, MissingExtraError
from headstart.pictures import parquet as module
from headstart.pictures import parquet_reader
from headstart.pictures.manifest import read_manifest
from tiny import damaged

pa = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402


def write(folder, **columns):
    where = folder / "m.parquet"
    parquet.write_table(pa.table(columns), where)
    return where


def rows(where):
    return [(each.name, each.label, each.label_set, each.split, each.group) for each in read_manifest(where)]


def complaint(where):
    with pytest.raises(DataError) as caught:
        read_manifest(where)
    return str(caught.value).replace(f"{where.parent}/", "")


def test_one_name_each(tmp_path):
    kinds = (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()))
    for kind in kinds:
        label = pa.array(["cat", "a|b"], pa.string()).cast(kind)
        where = write(tmp_path, file_name=["a.jpg", "b.jpg"], label=label, split=["Train", "test"], group=[7, None])
        expected = [("a.jpg", "cat", None, "train", "7"), ("b.jpg", "a|b", None, "test", None)]
        assert rows(where) == expected


def test_several_names(tmp_path):
    label = pa.array([["dog", "cat"], [], ["cat"]], pa.list_(pa.string()))
    where = write(tmp_path, file_name=["a.jpg", "b.jpg", "c.jpg"], label=label, width=[1.5, 2.5, 3.5])
    assert [row[1:3] for row in rows(where)] == [("cat|dog", ("cat", "dog")), ("", ()), ("cat", ("cat",))]


def test_more_rows_than_are_read_at_once(tmp_path):
    number = 2 * parquet_reader._ROWS_AT_ONCE + 1
    names = [f"{each}.jpg" for each in range(number)]
    assert [row[0] for row in rows(write(tmp_path, file_name=names, label=["x"] * number))] == names


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (
            {"path": ["a"], "label": ["x"]},
            "m.parquet has no column file_name; its columns are: path, label. "
            "Expected file_name and label, optionally split and group.",
        ),
        (
            {"file_name": ["a", "b"], "label": ["x", None]},
            "m.parquet, row 2: label is empty. Fill it in or remove the row.",
        ),
        ({"file_name": ["a", "b"], "label": [True, False]}, "m.parquet, row 1: label is true; expected a name."),
        (
            {"file_name": ["a", "b"], "label": [b"x", b"y"]},
            'm.parquet, row 1: label is {"bytes": "b\'x\'"}; expected a name.',
        ),
        (
            {"file_name": ["a", "a"], "label": ["x", "x"]},
            "m.parquet, rows 1 and 2: duplicate row for 'a'. Remove one of them.",
        ),
        (
            {"file_name": ["a", "b"], "label": ["x", "y"], "split": ["train", None]},
            "m.parquet: split is empty in row 2; give every row a split or none.",
        ),
        (
            {"file_name": pa.array([], pa.string()), "label": pa.array([], pa.string())},
            "m.parquet has no rows; expected one for each picture, with file_name and label.",
        ),
    ],
)
def test_complaints(tmp_path, columns, expected):
    assert complaint(write(tmp_path, **columns)) == expected


@pytest.mark.parametrize("content", [b"", b"PAR1", b"file_name,label\n", b"PAR1" + bytes(100) + b"PAR1"])
def test_what_is_no_parquet(tmp_path, content):
    where = tmp_path / "m.parquet"
    where.write_bytes(content)
    said = complaint(where)
    assert said.startswith("m.parquet cannot be read as Parquet: ")
    assert said.endswith(". Write it again, or use .csv or .jsonl.")


def test_more_than_the_limits(tmp_path, monkeypatch):
    where = write(tmp_path, file_name=["a", "b"], label=["x", "y"])
    monkeypatch.setattr(module, "MAX_ROWS", 1)
    assert complaint(where) == (
        "m.parquet holds 2 rows and 0 MB; the limits for a manifest are 1 rows and 1,000 MB. Split it into several."
    )


def test_damaged_files_raise_nothing_but_data_error(tmp_path):
    names = [f"{each}.jpg" for each in range(40)]
    where = write(tmp_path, file_name=names, label=[["x"], ["x", "y"]] * 20)
    refused = 0
    for broken in damaged(where.read_bytes(), 12):
        where.write_bytes(broken)
        try:
            read_manifest(where)
        except DataError as error:
            refused += 1
            assert str(where) in str(error)
    assert refused


def test_a_file_that_ends_its_reader(tmp_path, monkeypatch):
    """Arrow's C++ code can end the process."""
    where = write(tmp_path, file_name=["a", "b"], label=["x", "y"])
    reader = tmp_path / "reader.py"
    reader.write_text("import os\nos.abort()\n")
    monkeypatch.setattr(module, "_READER", reader)
    assert complaint(where) == (
        "m.parquet cannot be read as Parquet: it is damaged in a way that ended its reader. "
        "Write it again, or use .csv or .jsonl."
    )


def test_without_pyarrow(tmp_path, monkeypatch):
    where = write(tmp_path, file_name=["a", "b"], label=["x", "y"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError) as caught:
        read_manifest(where)
    assert str(caught.value) == (
        "Reading a Parquet manifest needs pyarrow, which is not installed. Run: pip install 'headstart[parquet]'"
    )
