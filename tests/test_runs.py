import dataclasses
import errno
import json
from pathlib import Path

import pytest

from headstart.errors import RunError
from headstart.pictures.folder import ImageFile, ImageFolder
from headstart.reporting import runs

IDENTITY = {"recipe": {"seed": 0}, "data": "abc"}


def image(name, sha256="00", label="a", **more):
    return ImageFile(Path("photos") / name, name, label, sha256, **more)


def folder_at(root):
    return ImageFolder(root, (image("a.png"),), ("a", "b"))


@pytest.fixture
def run(tmp_path):
    """A folder that looks finished."""
    path = runs.start_run(tmp_path / "run", folder_at(tmp_path / "photos"), IDENTITY)
    for name in ("evaluation.json", "model.keras", "report.html", "README.md"):
        (path / name).write_text(name)
    runs.write_table(path / "split.csv", ("path", "label"), [("a,\n.png", "ä")])
    runs.write_table(path / "predictions.csv", ("path",), [])
    runs.finish_run(path)
    return path


def change_manifest(run, change):
    hashes = json.loads((run / "MANIFEST.json").read_bytes())["sha256"]
    change(hashes)
    (run / "MANIFEST.json").write_text(json.dumps({"sha256": hashes}))


# --- opening ----------------------------------------------------------------------------------------------------------


def test_finished_run_opens(run):
    assert runs.open_run(run) == {"identity": IDENTITY, "finished": False}
    assert runs.open_run(str(run)) == runs.open_run(run)
    assert runs.read_table(run / "split.csv") == [{"path": "a,\n.png", "label": "ä"}]


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(RunError) as caught:
        runs.open_run(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} is not a run folder: it has no run.json. Expected one that 'headstart fit' made."
    )


def test_unfinished_run_is_said(run):
    (run / "MANIFEST.json").unlink()
    with pytest.raises(RunError) as caught:
        runs.open_run(run)
    assert str(caught.value) == f"{run} is unfinished: it has no MANIFEST.json. Run the same 'headstart fit' again."


@pytest.mark.parametrize("name", ["run.json", "split.csv", "predictions.csv", "evaluation.json", "model.keras"])
def test_changed_file_is_named(run, name):
    with (run / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(RunError) as caught:
        runs.open_run(run)
    assert str(caught.value) == f"{run / name} is not what the run wrote: its hash differs from MANIFEST.json."


def test_missing_file_is_named(run):
    (run / "model.keras").unlink()
    with pytest.raises(RunError, match=r"is damaged: .*model\.keras"):
        runs.open_run(run)


@pytest.mark.parametrize("name", ["report.html", "README.md"])
def test_report_and_card_may_be_edited(run, name):
    (run / name).write_text("edited")
    assert runs.open_run(run)
    (run / name).unlink()
    assert runs.open_run(run)


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/hostname", "sub/file", ".."])
def test_manifest_cannot_lead_out_of_the_folder(run, name):
    (run.parent / "outside.txt").write_text("outside")
    from headstart.cache import file_sha256

    change_manifest(run, lambda hashes: hashes.update({name: file_sha256(run.parent / "outside.txt")}))
    with pytest.raises(RunError, match=r"is not what the run wrote|is damaged"):
        runs.open_run(run)


@pytest.mark.parametrize("name", ["run.json", "split.csv", "predictions.csv", "evaluation.json"])
def test_manifest_has_to_vouch_for_what_is_read(run, name):
    change_manifest(run, lambda hashes: hashes.pop(name))
    with pytest.raises(RunError) as caught:
        runs.open_run(run)
    assert str(caught.value) == f"{run} is damaged: MANIFEST.json does not list {name}."


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"sha256": []}', '{"sha256": null}', "{}", "\udce9"])
def test_garbage_in_the_manifest_is_a_run_error(run, content):
    (run / "MANIFEST.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(RunError, match="is damaged"):
        runs.open_run(run)


@pytest.mark.parametrize("content", ["", "{", "[]", "3"])
def test_garbage_in_run_json_is_a_run_error(run, content):
    (run / "run.json").write_text(content)
    with pytest.raises(RunError, match=r"run\.json is not what the run wrote"):
        runs.open_run(run)
    runs.finish_run(run)  # Even where somebody made the manifest say so.
    with pytest.raises(RunError, match="is damaged"):
        runs.open_run(run)


def test_table_that_cannot_be_read_is_a_run_error(run):
    (run / "split.csv").write_bytes(b"path\n\xff\n")
    with pytest.raises(RunError, match=r"split\.csv cannot be read"):
        runs.read_table(run / "split.csv")


# --- starting ---------------------------------------------------------------------------------------------------------


def test_default_names_are_numbered_and_harmless(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos = tmp_path / "my photos, 2024!"
    photos.mkdir()
    for expected in ("my-photos-2024", "my-photos-2024-2", "my-photos-2024-3"):
        path = runs.start_run(None, folder_at(photos), IDENTITY)
        assert path == Path("runs") / expected
        (path / "MANIFEST.json").write_text("{}")
    manifest = tmp_path / "list.csv"
    manifest.write_text("")
    assert runs.start_run(None, folder_at(manifest), IDENTITY) == Path("runs") / "list"


def test_unfinished_run_of_the_same_goes_on_and_of_another_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos = folder_at(tmp_path / "photos")
    first = runs.start_run(None, photos, IDENTITY)
    assert runs.start_run(None, photos, IDENTITY) == first
    assert runs.start_run(None, photos, {**IDENTITY, "data": "other"}) == Path("runs") / "photos-2"
    (first / "run.json").write_text("garbage")
    assert runs.start_run(None, photos, IDENTITY) == Path("runs") / "photos-3"


def test_finished_run_stays_finished_until_there_is_something_new(run):
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert runs.start_run(run, folder_at(run.parent / "photos"), IDENTITY) == run
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    runs.discard_run(run)
    assert runs.open_run(run)
    runs.reopen_run(run, IDENTITY)
    with pytest.raises(RunError, match="is unfinished"):
        runs.open_run(run)


def test_other_run_in_the_way_is_kept(run):
    with pytest.raises(RunError, match="holds a finished run of other images or another recipe, which would be lost"):
        runs.start_run(run, folder_at(run.parent / "photos"), {**IDENTITY, "data": "other"})
    assert runs.open_run(run)


def test_discarding_takes_only_what_came_to_nothing(tmp_path):
    path = runs.start_run(tmp_path / "new", folder_at(tmp_path / "photos"), IDENTITY)
    runs.discard_run(path)
    assert not path.exists()
    runs.discard_run(path)
    path = runs.start_run(tmp_path / "old", folder_at(tmp_path / "photos"), IDENTITY)
    (path / "model.keras").write_text("")
    runs.discard_run(path)
    assert sorted(each.name for each in path.iterdir()) == ["model.keras", "run.json"]


def test_file_in_the_way_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunError) as caught:
            runs.start_run(out, folder_at(tmp_path / "photos"), IDENTITY)
        expected = f"The run folder {out} cannot be written: a file is in the way. Choose another place with --out."
        assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full. Free some space, or choose another place with --out."),
        (errno.EROFS, "the disk is read-only. Choose another place with --out."),
        (errno.EACCES, "you may not write there. Choose another place with --out."),
        (errno.EDQUOT, "your quota of the disk is used up. Choose another place with --out."),
        (errno.EIO, "Input/output error."),
    ],
)
def test_what_goes_wrong_with_the_disk_is_said(number, words):
    import os

    with pytest.raises(RunError) as caught, runs.writing(Path("run")):
        raise OSError(number, os.strerror(number))
    assert str(caught.value) == f"The run folder run cannot be written: {words}"


# --- what identifies the data -----------------------------------------------------------------------------------------


def test_data_hash_is_of_contents_labels_groups_and_splits():
    images = (image("a.png", "01"), image("b.png", "02", "b"))
    plain = ImageFolder(Path("photos"), images, ("a", "b"))
    renamed = (image("x/y.png", "02", "b"), image("z.png", "01"))
    assert runs.data_hash(plain) == runs.data_hash(ImageFolder(Path("elsewhere"), renamed, ("a", "b")))
    for change in ({"sha256": "03"}, {"label": "b"}, {"group": "g"}, {"split": "test"}):
        other = (dataclasses.replace(images[0], **change), images[1])
        assert runs.data_hash(dataclasses.replace(plain, images=other)) != runs.data_hash(plain), change


def test_split_table(tmp_path):
    runs.write_split(tmp_path, [image('a "1".png', "01"), image("b\n.png", "02", "b")], ["train", "test"])
    assert runs.read_table(tmp_path / "split.csv") == [
        {"path": 'a "1".png', "label": "a", "split": "train", "sha256": "01"},
        {"path": "b\n.png", "label": "b", "split": "test", "sha256": "02"},
    ]
