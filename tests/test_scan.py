"""From a folder or manifest to an `ImageFolder`: every layout, every hostile file, every complaint's text."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from pathlib import Path

import pytest

from headstart.errors import DataError
from headstart.pictures.decode import decode
from headstart.pictures.folder import Skipped
from headstart.pictures.problems import conflicting_duplicates, duplicates
from headstart.pictures.scan import examine, scan
from pictures_samples import no_privileges, open_folder, picture, sample, write


@pytest.fixture
def photos(tmp_path):
    """Two classes of two pictures each."""
    root = tmp_path / "photos"
    for seed, name in enumerate(("cat/a.png", "cat/b.png", "dog/a.png", "dog/b.png")):
        write(root / name, seed)
    return root


def names(folder):
    return [image.name for image in folder.images]


def reasons(folder):
    return {each.name: each.reason for each in folder.skipped}


def complaint(data):
    with pytest.raises(DataError) as caught:
        scan(data)
    return str(caught.value).replace(f"{Path(data).parent}/", "")


@pytest.mark.parametrize(("takes", "handed_over"), [("long", True), ("no time", False)])
def test_files_that_take_long_are_read_beside_each_other(tmp_path, monkeypatch, takes, handed_over):
    for number in range(40):
        write(tmp_path / "ab"[number % 2] / f"{number}.png", number)
    (tmp_path / "b" / "35.png").write_text("no picture")
    threads = {}

    def watched(image):
        threads[image.name] = threading.current_thread()
        return examine(image)

    expected = scan(tmp_path)
    monkeypatch.setattr("headstart.pictures.scan.examine", watched)
    monkeypatch.setattr("headstart.pictures.scan._WORTH_A_THREAD", 0.0 if takes == "long" else 60.0)
    steps = []
    assert scan(tmp_path, progress=lambda *step: steps.append(step[1:])) == expected
    assert steps == [(32, 40), (40, 40)]
    assert len(expected.images) == 39
    elsewhere = [thread for thread in threads.values() if thread is not threading.current_thread()]
    assert len(elsewhere) == (8 if handed_over else 0)


# Layouts


def test_a_folder_for_each_class(photos):
    folder = scan(str(photos))
    assert names(folder) == ["cat/a.png", "cat/b.png", "dog/a.png", "dog/b.png"]
    assert folder.class_names == ("cat", "dog")
    assert (folder.root, folder.skipped, len(folder)) == (photos, (), 4)
    first = folder.images[0]
    assert (first.path, first.label, first.split, first.group) == (photos / "cat/a.png", "cat", None, None)
    assert first.sha256 == hashlib.sha256((photos / "cat/a.png").read_bytes()).hexdigest()


def test_files_are_found_below_and_classes_are_sorted(photos):
    write(photos / "cat/deep/er/c.png", 9)
    write(photos / "Zebra/z.PNG", 10)
    folder = scan(photos)
    assert "cat/deep/er/c.png" in names(folder)
    assert folder.class_names == ("Zebra", "cat", "dog")


@pytest.mark.parametrize(("val", "test"), [("val", "test"), ("valid", None), ("Validation", "Test"), (None, "test")])
def test_split_folders(tmp_path, val, test):
    given = {"train": "train", val: "val", test: "test"}
    given.pop(None, None)
    for seed, name in enumerate(given):
        write(tmp_path / name / "cat/a.png", seed)
    write(tmp_path / "train/dog/a.png", 7)
    folder = scan(tmp_path)
    assert folder.class_names == ("cat", "dog")
    assert {(image.name, image.label, image.split) for image in folder.images} == {
        ("train/dog/a.png", "dog", "train"),
        *((f"{name}/cat/a.png", "cat", split) for name, split in given.items()),
    }


def test_train_without_val_or_test_is_a_class(tmp_path):
    write(tmp_path / "train/a.png")
    write(tmp_path / "plane/b.png", 1)
    folder = scan(tmp_path)
    assert folder.class_names == ("plane", "train")
    assert {image.split for image in folder.images} == {None}


@pytest.mark.parametrize("name", ["labels.csv", "labels.jsonl"])
def test_a_manifest(photos, name):
    lines = {
        "labels.csv": "file_name,label,group\ncat/a.png,one,g\ndog/b.png,two,\ngone.png,two,\nnote,two,\n",
        "labels.jsonl": '{"file_name": "cat/a.png", "label": "one", "group": "g"}\n'
        '{"file_name": "dog/b.png", "label": "two"}\n{"file_name": "gone.png", "label": "two"}\n'
        '{"file_name": "note", "label": "two"}\n',
    }
    (photos / name).write_text(lines[name])
    (photos / "note").write_text("no picture")
    folder = scan(photos / name)
    assert [(each.name, each.label, each.group) for each in folder.images] == [
        ("cat/a.png", "one", "g"),
        ("dog/b.png", "two", None),
    ]
    assert folder.class_names == ("one", "two")
    assert all(each.sha256 for each in folder.images)
    assert reasons(folder)["gone.png"] == "there is no such file"
    assert reasons(folder)["note"].startswith("not a picture in a format headstart reads")


# What is left out


def test_hidden_files_and_clutter_are_left_out_silently(photos):
    for name in (".DS_Store", ".hidden.png", "Thumbs.db", "desktop.ini", "__MACOSX/._a.png", ".git/x.png"):
        write(photos / "cat" / name, 5)
        write(photos / name, 5)
    folder = scan(photos)
    assert (len(folder), folder.skipped, folder.class_names) == (4, (), ("cat", "dog"))


def test_hostile_files_are_skipped_with_a_reason(photos):
    cat = photos / "cat"
    (cat / "empty.jpg").touch()
    (cat / "text.jpg").write_text("I am no picture")
    (cat / "notes.txt").write_text("about cats")
    (cat / "README").write_text("about cats")
    (cat / "broken.png").symlink_to("nowhere.png")
    (cat / "circle.png").symlink_to("circle.png")
    os.mkfifo(cat / "pipe.png")
    (cat / "cut.png").write_bytes(sample("PNG")[:20])
    (photos / "loose.png").write_bytes(sample("PNG"))
    folder = scan(photos)
    assert len(folder) == 4
    found = reasons(folder)
    assert list(found) == sorted(found)
    readable = "avif, bmp, gif, jpg, png, tiff, webp"
    assert found == {
        "cat/README": f"a name without a suffix is not a picture's; headstart reads {readable}",
        "cat/broken.png": "a broken link: 'nowhere.png' does not exist",
        "cat/circle.png": "a link that leads back to itself",
        "cat/cut.png": "truncated: the file ends before the picture does",
        "cat/empty.jpg": "the file is empty",
        "cat/notes.txt": f"the suffix '.txt' is not a picture's; headstart reads {readable}",
        "cat/pipe.png": "not a regular file (a pipe, a socket or a device)",
        "cat/text.jpg": f"not a picture in a format headstart reads ({readable})",
        "loose.png": "not in a class folder",
    }


def test_a_truncated_jpeg_passes_the_scan_and_fails_in_the_decoder(photos):
    path = photos / "cat/cut.jpg"
    path.write_bytes(sample("JPEG")[:-100])
    folder = scan(photos)
    assert "cat/cut.jpg" in names(folder)
    with pytest.raises(DataError, match="truncated"):
        decode(path.read_bytes(), (8, 8))


def test_content_decides_not_the_suffix(photos):
    picture().save(photos / "cat/c.jpg", "WEBP")
    assert "cat/c.jpg" in names(scan(photos))


@pytest.mark.parametrize("label", ["two words", "new\nline", "Äpfel", "猫", "emoji 🐈", "a'b\"c", "semi;colon", "-rf"])
def test_odd_names(photos, label):
    write(photos / label / f"{label}.png", 9)
    folder = scan(photos)
    assert label in folder.class_names
    assert f"{label}/{label}.png" in names(folder)


def test_a_name_that_is_not_utf8_is_skipped(photos):
    (Path(os.fsdecode(os.fsencode(photos / "cat") + b"/caf\xe9.png"))).write_bytes(sample("PNG"))
    folder = scan(photos)
    assert reasons(folder) == {"cat/caf\\udce9.png": "its name is not valid UTF-8; rename it"}
    "".join((*names(folder), *reasons(folder))).encode()


def test_a_class_name_that_is_not_utf8(photos):
    where = Path(os.fsdecode(os.fsencode(photos) + b"/\xe9"))
    write(where / "a.png")
    assert complaint(photos) == (
        "Class '\\udce9' has no readable image: 1 file was skipped, the first being \\udce9/a.png "
        "(its name is not valid UTF-8; rename it). Add images or remove photos/\\udce9."
    )


# Links between folders


def test_linked_folders_are_followed(photos, tmp_path):
    write(tmp_path / "elsewhere/c.png", 9)
    (photos / "cat/more").symlink_to(tmp_path / "elsewhere")
    (photos / "bird").symlink_to(tmp_path / "elsewhere")
    assert names(scan(photos))[:1] == ["bird/c.png"]
    assert "cat/more/c.png" in names(scan(photos))


def test_links_back_up_are_not_followed(photos):
    (photos / "cat/self").symlink_to(".")
    (photos / "cat/up").symlink_to("..")
    (photos / "cat/top").symlink_to("/")
    (photos / "cat/near").symlink_to(photos.parent)
    assert names(scan(photos)) == ["cat/a.png", "cat/b.png", "dog/a.png", "dog/b.png"]


def test_a_web_of_links_ends(photos):
    for one in range(12):
        write(photos / f"cat/{one}/x.png", 20 + one)
        for other in range(12):
            (photos / f"cat/{one}/to{other}").symlink_to(f"../{other}")
    assert len(scan(photos)) == 16


def test_deeply_nested_folders(photos):
    deep = photos / "cat" / "/".join("d" * 400)
    write(deep / "c.png", 9)
    assert len(scan(photos)) == 5


# Complaints


def test_nothing_there(tmp_path):
    assert complaint(tmp_path / "gone") == (
        "gone does not exist. Expected a folder with one sub-folder per class, or a manifest (.csv, .jsonl, .parquet)."
    )


def test_a_file_that_is_no_manifest(photos):
    assert complaint(photos / "cat/a.png") == (
        "a.png is not a manifest; expected a folder with one sub-folder per class, or a manifest whose name ends in "
        ".csv, .jsonl or .parquet."
    )


def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    assert complaint(tmp_path / "pipe.csv") == (
        "pipe.csv is neither a folder nor a regular file. "
        "Expected a folder with one sub-folder per class, or a manifest (.csv, .jsonl, .parquet)."
    )


def test_names_that_no_file_can_have():
    with pytest.raises(DataError, match=r"does not exist\. Expected"):
        scan("a\0b")
    with pytest.raises(DataError, match=r"cannot be opened: file name too long\."):
        scan("x" * 5_000)


def test_an_empty_folder(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/.hidden").touch()
    assert complaint(tmp_path / "photos") == (
        "The folder photos is empty. Expected one sub-folder per class, such as photos/cat and photos/dog."
    )


def test_a_folder_of_other_files(tmp_path):
    (tmp_path / "a.txt").touch()
    root = tmp_path.name
    assert complaint(tmp_path) == (
        f"The folder {root} has no sub-folders and no pictures. "
        f"Expected one sub-folder per class, such as {root}/cat and {root}/dog."
    )


@pytest.mark.parametrize(("count", "start"), [(1, "1 picture lies"), (3, "3 pictures lie")])
def test_pictures_without_class_folders(tmp_path, count, start):
    for seed in range(count):
        write(tmp_path / "photos" / f"{seed}.jpg", seed)
    expected = "which has no class folders. Expected one sub-folder per class, such as photos/cat and photos/dog."
    assert complaint(tmp_path / "photos") == f"{start} directly in photos, {expected}"
    (tmp_path / "photos/labels.csv").touch()
    assert complaint(tmp_path / "photos").endswith(f"{expected} Did you mean the manifest photos/labels.csv?")


def test_one_class(photos):
    shutil.rmtree(photos / "dog")
    assert complaint(photos) == "photos has one class only, 'cat'; at least 2 are needed to tell apart."


@pytest.mark.parametrize("inner", [("cat", "dog"), ("train", "test")])
def test_the_folder_around_the_right_one(tmp_path, inner):
    for seed, name in enumerate(inner):
        write(tmp_path / "data/photos" / name / "x/a.png", seed)
    assert complaint(tmp_path / "data") == (
        "data has one class only, 'photos'; at least 2 are needed to tell apart. Did you mean data/photos?"
    )


def test_one_class_in_a_manifest(photos):
    (photos / "labels.csv").write_text("file_name,label\ncat/a.png,one\n")
    assert complaint(photos / "labels.csv") == (
        "labels.csv has one class only, 'one'; at least 2 are needed to tell apart."
    )


def test_an_empty_class(photos):
    (photos / "bird/nest").mkdir(parents=True)
    assert complaint(photos) == "Class 'bird' has no files. Add images or remove photos/bird."


def test_a_class_with_no_readable_image(photos):
    for name in ("a.jpg", "b.jpg"):
        write(photos / "bird" / name).write_bytes(b"")
    assert complaint(photos) == (
        "Class 'bird' has no readable image: 2 files were skipped, the first being bird/a.jpg (the file is empty). "
        "Add images or remove photos/bird."
    )


def test_a_class_with_no_readable_image_in_a_manifest(photos):
    (photos / "labels.csv").write_text("file_name,label\ncat/a.png,one\ngone.png,two\n")
    assert complaint(photos / "labels.csv") == (
        "Class 'two' has no readable image: 1 file was skipped, the first being gone.png (there is no such file). "
        "Add images or remove its rows from labels.csv."
    )


def test_a_class_that_misses_from_train(tmp_path):
    for seed, name in enumerate(("train/cat/a.png", "test/cat/a.png", "test/dog/a.png")):
        write(tmp_path / "photos" / name, seed)
    assert complaint(tmp_path / "photos") == (
        "Class 'dog' is in photos/test but not in photos/train; a class needs training images. "
        "Add photos/train/dog or remove photos/test/dog."
    )


def test_split_folders_without_classes(tmp_path):
    write(tmp_path / "photos/train/cat/a.png")
    write(tmp_path / "photos/test/a.png", 1)
    assert complaint(tmp_path / "photos").startswith("1 picture lies directly in photos/test, which has no class")


def test_the_same_split_twice(tmp_path):
    for name in ("train", "val", "valid"):
        write(tmp_path / "photos" / name / "cat/a.png")
    assert complaint(tmp_path / "photos") == (
        "photos has the same split twice: train, val, valid. Keep one folder for each split."
    )


def test_other_folders_beside_the_splits(tmp_path):
    for name in ("train", "val", "plane"):
        write(tmp_path / "photos" / name / "cat/a.png")
    assert complaint(tmp_path / "photos") == (
        "photos has train and val, which are taken as splits, but also plane. Move the other folders elsewhere; or, "
        "if these are classes, rename the folders that look like splits."
    )


def test_a_folder_that_cannot_be_opened():
    with open_folder() as root:
        for seed, name in enumerate(("cat/a.png", "dog/a.png")):
            write(root / "photos" / name, seed)
        (root / "photos/cat").chmod(0)
        with no_privileges():
            assert complaint(root / "photos") == (
                "Class 'cat' has no readable image: 1 file was skipped, the first being cat (a folder that cannot be "
                "opened: no permission to read it). Add images or remove photos/cat."
            )
            assert complaint(root / "photos/cat") == (
                "The folder cat cannot be opened: no permission to read it. Check its permissions."
            )
        (root / "photos/cat").chmod(0o755)


def test_a_file_that_may_not_be_read():
    with open_folder() as root:
        for seed, name in enumerate(("cat/a.png", "cat/b.png", "dog/a.png")):
            write(root / name, seed)
        (root / "cat/b.png").chmod(0)
        with no_privileges():
            assert reasons(scan(root)) == {"cat/b.png": "no permission to read it"}


# The rest


def test_progress_reaches_the_total(photos):
    for seed in range(300):
        write(photos / f"cat/{seed}.png", seed)
    calls = []
    scan(photos, progress=lambda *call: calls.append(call))
    assert calls == [("Reading files", done, 304) for done in (32, 288, 304)]


def test_duplicates(photos):
    write(photos / "cat/c.png", 0)
    write(photos / "dog/c.png", 3)
    write(photos / "dog/d.png", 0)
    folder = scan(photos)
    assert duplicates(folder) == (("cat/a.png", "cat/c.png", "dog/d.png"), ("dog/b.png", "dog/c.png"))
    assert conflicting_duplicates(folder) == (("cat/a.png", "cat/c.png", "dog/d.png"),)


def test_without_moves_failures_to_the_skipped(photos):
    folder = scan(photos)
    failure = Skipped("dog/a.png", "damaged")
    rest = folder.without([failure])
    assert names(rest) == ["cat/a.png", "cat/b.png", "dog/b.png"]
    assert rest.skipped == (failure,)
