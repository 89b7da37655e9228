"""Manifests: what is read, and the text of every complaint."""

from __future__ import annotations

import csv
import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.errors import DataError
from headstart.pictures import manifest
from headstart.pictures.manifest import read_manifest
from pictures_samples import no_privileges, open_folder


def rows(path, text, name="m.csv"):
    where = path / name
    where.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [(each.name, each.label, each.split, each.group) for each in read_manifest(where)]


def complaint(path, text, name="m.csv"):
    with pytest.raises(DataError) as caught:
        rows(path, text, name)
    return str(caught.value).replace(f"{path}/", "")


def test_csv_with_every_column(tmp_path):
    text = '\ufefffile_name, label ,split,group,other\r\na.jpg, cat ,Train,p1,x\r\n\r\n"b, c.jpg",dog,validation,,y\r\n'
    assert rows(tmp_path, text) == [("a.jpg", "cat", "train", "p1"), ("b, c.jpg", "dog", "val", None)]


def test_paths_are_relative_to_the_manifest_or_absolute(tmp_path):
    (tmp_path / "m.csv").write_text("label,file_name\ncat,./sub/a.jpg\ndog,/data/b.jpg\n")
    images = read_manifest(tmp_path / "m.csv")
    assert [image.name for image in images] == ["sub/a.jpg", "/data/b.jpg"]
    assert [str(image.path) for image in images] == [f"{tmp_path}/sub/a.jpg", "/data/b.jpg"]
    assert {image.sha256 for image in images} == {""}


def test_names_with_newlines_and_other_letters(tmp_path):
    assert rows(tmp_path, 'file_name,label\n"猫\n1.jpg","grüne\nKatze"\n')[0][:2] == ("猫\n1.jpg", "grüne\nKatze")


def test_jsonl(tmp_path):
    lines = [
        {"file_name": "a.jpg", "label": "cat", "split": "valid", "group": 7, "box": [1, 2]},
        {"label": 3, "file_name": "b.jpg", "split": "TEST", "group": None},
    ]
    text = "\n\n".join(json.dumps(line) for line in lines)
    assert rows(tmp_path, text, "m.JSONL") == [("a.jpg", "cat", "val", "7"), ("b.jpg", "3", "test", None)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "m.csv is empty; expected a first line with the column names file_name,label."),
        ("\n\n", "m.csv is empty; expected a first line with the column names file_name,label."),
        ("file_name,label\n", "m.csv has no rows; expected one for each picture, with file_name and label."),
        (
            "path,label\na.jpg,cat\n",
            "m.csv has no column file_name; its columns are: path, label. "
            "Expected file_name and label, optionally split and group.",
        ),
        (
            "file_name;label\na.jpg;cat\n",
            "m.csv has no column file_name and no column label; its columns are: file_name;label. "
            "Expected file_name and label, optionally split and group. Separate the columns with commas.",
        ),
        ("file_name,label,label\na,b,c\n", "m.csv has the column label twice. Remove one of them."),
        (
            "file_name,label,split\na.jpg,cat,train\nb.jpg,cat,holdout\n",
            "m.csv, line 3: unknown split 'holdout'; expected train, val or test.",
        ),
        ("file_name,label\na.jpg,\n", "m.csv, line 2: label is empty. Fill it in or remove the line."),
        ("file_name,label\na.jpg\n", "m.csv, line 2: label is empty. Fill it in or remove the line."),
        ("file_name,label\na.jpg,cat\n,cat\n", "m.csv, line 3: file_name is empty. Fill it in or remove the line."),
        (
            "file_name,label\na,b.jpg,cat\n",
            "m.csv, line 2: 3 values for 2 columns. Put double quotes around a value that holds a comma.",
        ),
        (
            "file_name,label,split\na.jpg,cat,train\nb.jpg,cat,\n",
            "m.csv: split is empty in line 3; give every row a split or none.",
        ),
        (
            "file_name,label\na.jpg,cat\nb.jpg,cat\n./a.jpg,cat\n",
            "m.csv, lines 2 and 4: duplicate row for './a.jpg'. Remove one of them.",
        ),
        (
            "file_name,label\na.jpg,cat\na.jpg,dog\n",
            "m.csv, lines 2 and 3: 'a.jpg' is labelled 'cat' and 'dog'. Keep one of them.",
        ),
        (
            "file_name,label\na.jpg,käse\n".encode("latin-1"),
            "m.csv, line 2: byte 0xe4 is not UTF-8. Save the manifest as UTF-8 text.",
        ),
        (
            "file_name,label\na.jpg,cat\n".encode("utf-16-le"),
            "m.csv, line 1: holds a NUL byte. Save the manifest as UTF-8 text.",
        ),
        (
            "file_name,label\na.jpg," + "x" * 200_000,
            "m.csv, line 2: not CSV as expected (field larger than field limit (131072)).",
        ),
        (
            'file_name,label\n"a.jpg,cat\nb.jpg,dog\n',
            "m.csv, line 3: not CSV as expected (unexpected end of data).",
        ),
        ("a" * 1_000_001, "m.csv, line 1: longer than 1,000,000 bytes. Is this a manifest?"),
    ],
)
def test_complaints_about_csv(tmp_path, text, expected):
    assert complaint(tmp_path, text) == expected


GOOD = '{"file_name": "a.jpg", "label": "cat"}\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\n", "m.jsonl has no rows; expected one for each picture, with file_name and label."),
        (
            GOOD + "[1]",
            'm.jsonl, line 2: not a JSON object; expected one such as {"file_name": "a.jpg", "label": "cat"}.',
        ),
        (GOOD + "{a}", "m.jsonl, line 2: not JSON ("),
        (GOOD + "[" * 100_000, "m.jsonl, line 2: not JSON ("),
        (GOOD + '{"label": ' + "9" * 10_000 + "}", "m.jsonl, line 2: not JSON ("),
        (
            GOOD + '{"path": "b.jpg", "label": "cat"}',
            "m.jsonl, line 2: no key file_name; its keys are: path, label. "
            "Expected file_name and label, optionally split and group.",
        ),
        ('{"file_name": "a.jpg", "label": [["a"]]}', 'm.jsonl, line 1: label is ["a"]; expected a name.'),
        (
            '{"file_name": "a.jpg", "label": ["a", " "]}',
            "m.jsonl, line 1: label is empty. Fill it in or remove the line.",
        ),
        (
            GOOD + '{"file_name": "b.jpg", "label": []}\n{"file_name": "c.jpg", "label": "x|y"}',
            "m.jsonl, line 3: the name 'x|y' holds '|', which parts the names of pictures that have several. "
            "Give it another name.",
        ),
        (
            '{"file_name": "a.jpg", "label": ["x", "y"]}\n{"file_name": "a.jpg", "label": ["x"]}',
            "m.jsonl, lines 1 and 2: 'a.jpg' is labelled 'x|y' and 'x'. Keep one of them.",
        ),
        ('{"file_name": "a.jpg", "label": {"a": 1}}', 'm.jsonl, line 1: label is {"a": 1}; expected a name.'),
        ('{"file_name": "a.jpg", "label": true}', "m.jsonl, line 1: label is true; expected a name."),
        ('{"file_name": null, "label": "x"}', "m.jsonl, line 1: file_name is empty. Fill it in or remove the line."),
        ('{"file_name": "a", "label": "\\ud800"}', "m.jsonl, line 1: label is not valid Unicode text."),
    ],
)
def test_complaints_about_jsonl(tmp_path, text, expected):
    assert complaint(tmp_path, text, "m.jsonl").startswith(expected)


def label_sets(path, text, name):
    where = path / name
    where.write_text(text)
    return [(each.label, each.label_set, each.labels) for each in read_manifest(where)]


def test_several_names_in_csv(tmp_path):
    text = "file_name,label\na.jpg,b | a\nb.jpg,a\nc.jpg,|\nd.jpg,a|a|\n"
    assert label_sets(tmp_path, text, "m.csv") == [
        ("a|b", ("a", "b"), ("a", "b")),
        ("a", ("a",), ("a",)),
        ("", (), ()),
        ("a", ("a",), ("a",)),
    ]


def test_several_names_in_jsonl(tmp_path):
    rows = [["dog", "cat"], [], "cat", [7]]
    text = "\n".join(json.dumps({"file_name": f"{number}.jpg", "label": row}) for number, row in enumerate(rows))
    assert [each[1] for each in label_sets(tmp_path, text, "m.jsonl")] == [("cat", "dog"), (), ("cat",), ("7",)]


def test_lists_of_one_name_are_plain_labels_whatever_is_in_it(tmp_path):
    text = '{"file_name": "a.jpg", "label": ["x|y"]}\n{"file_name": "b.jpg", "label": "z"}'
    assert label_sets(tmp_path, text, "m.jsonl") == [("x|y", None, ("x|y",)), ("z", None, ("z",))]


def test_other_suffixes(tmp_path):
    assert complaint(tmp_path, "x", "m.txt") == (
        "m.txt is not a manifest; expected a folder with one sub-folder per class, or a manifest whose name ends in "
        ".csv, .jsonl or .parquet."
    )


def test_too_large_a_manifest(tmp_path):
    with (tmp_path / "m.csv").open("wb") as file:
        file.truncate(manifest.MAX_BYTES + 1)  # sparse: takes no room on the disk
    with pytest.raises(DataError, match=r"is larger than 1 GB, the limit for a manifest\. Split it into several\."):
        read_manifest(tmp_path / "m.csv")


def test_a_manifest_that_cannot_be_opened():
    with open_folder() as root:
        path = root / "m.csv"
        with pytest.raises(DataError, match=r"m\.csv cannot be read: there is no such file\."):
            read_manifest(path)
        path.touch(0)
        with no_privileges(), pytest.raises(DataError, match=r"m\.csv cannot be read: no permission to read it\."):
            read_manifest(path)


@settings(max_examples=100, deadline=None, database=None)
@given(st.binary(max_size=200), st.sampled_from(["m.csv", "m.jsonl"]), st.booleans())
def test_no_bytes_raise_anything_but_data_error(tmp_path_factory, body, name, headed):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(b"file_name,label,split,group\n" * headed + body)
    try:
        read_manifest(path)
    except DataError as error:
        assert str(path) in str(error)


@settings(max_examples=50, deadline=None, database=None)
@given(st.lists(st.text(string.printable.strip() + "é猫 "), min_size=1))
def test_what_the_csv_module_writes_is_read(tmp_path_factory, texts):
    path = tmp_path_factory.getbasetemp() / "written.csv"
    names = [f"{index}{text.replace('/', '_')}" for index, text in enumerate(texts)]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("file_name", "label"), *((name, "cat") for name in names)])
    assert [image.path.name for image in read_manifest(path)] == names
