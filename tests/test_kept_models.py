"""A model that was saved and asked before is copied, byte for byte; one that anything else decides is made."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import headstart
from headstart.cache import cache_folder
from headstart.errors import CacheError
from headstart.learning import kept_models, trained
from headstart.learning.kept_models import copy_model, find_kept, identity_of, keep
from headstart.networks.backbone import build_backbone
from headstart.networks.catalogue import find_backbone
from headstart.networks.weights import find_weights
from journey import paint_folder

IDENTITY = "ab" * 32
DATA = bytes(range(256)) * 40


@pytest.fixture
def saved(empty_cache, tmp_path):
    """A file that was kept."""
    path = tmp_path / "run" / "model.keras"
    path.parent.mkdir()
    path.write_bytes(DATA)
    keep(IDENTITY, path, "It was asked.")
    return path


def copy_kept(identity, target):
    """The note of what was found and copied, or None."""
    kept = find_kept(identity)
    return kept if kept and copy_model(kept, target) else None


def note():
    (path,) = cache_folder("heads").iterdir()
    return path


def test_is_copied_byte_for_byte(saved, tmp_path):
    target = tmp_path / "new" / "model.keras"
    kept = copy_kept(IDENTITY, target)
    assert (kept.path, kept.check) == (str(saved), "It was asked.")
    assert target.read_bytes() == DATA
    assert not target.samefile(saved)
    assert copy_kept("0" * 64, tmp_path / "other") is None
    assert not (tmp_path / "other").exists()


def test_onto_itself_nothing_is_written(saved, monkeypatch):
    monkeypatch.setattr(kept_models, "write_atomically", None)
    kept = find_kept(IDENTITY)
    assert copy_model(kept, saved)
    assert saved.read_bytes() == DATA
    saved.write_bytes(DATA[:-1])
    assert not copy_model(kept, saved)


def test_a_relative_path_is_found_from_elsewhere(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(saved.parent)
    keep(IDENTITY, kept_models.Path("model.keras"), "It was asked.")
    monkeypatch.chdir(tmp_path)
    assert copy_kept(IDENTITY, tmp_path / "copy").path == str(saved)


@pytest.mark.parametrize("found", [True, False], ids=["after it was found", "before"])
@pytest.mark.parametrize("harm", ["gone", "flipped", "longer", "shorter", "a folder", "a file for its folder"])
def test_a_file_that_is_not_what_was_written_is_not_taken(saved, tmp_path, harm, found):
    kept = find_kept(IDENTITY)
    if harm == "flipped":
        saved.write_bytes(DATA[:5000] + bytes([DATA[5000] ^ 4]) + DATA[5001:])
    elif harm in {"longer", "shorter"}:
        saved.write_bytes(DATA + b"x" if harm == "longer" else DATA[:-1])
    else:
        saved.unlink()
        if harm == "a folder":
            saved.mkdir()
        elif harm != "gone":
            saved.parent.rmdir()
            saved.parent.write_text("mine")
    target = tmp_path / "new" / "model.keras"
    assert copy_model(kept, target) is False if found else find_kept(IDENTITY) is None
    assert not target.exists()
    assert not list(tmp_path.glob("new/*"))


@pytest.mark.parametrize("when", ["opened", "read"])
def test_trouble_with_what_an_earlier_run_lies_on_costs_time_alone(saved, tmp_path, monkeypatch, when):
    kept = find_kept(IDENTITY)
    real = kept_models.Path.open

    class Stale:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def read(self, _):
            raise OSError(116, "Stale file handle")

    def open_stale(path, *given, **more):
        if path != saved:
            return real(path, *given, **more)
        if when == "opened":
            raise OSError(40, "Too many levels of symbolic links")
        return Stale()

    monkeypatch.setattr(kept_models.Path, "open", open_stale)
    assert copy_model(kept, tmp_path / "new") is False
    assert not (tmp_path / "new").exists()
    if when == "opened":
        assert find_kept(IDENTITY) is None


def test_trouble_with_the_new_run_is_said(saved, tmp_path):
    (tmp_path / "new").write_text("mine")
    with pytest.raises(OSError, match="new"):
        copy_model(find_kept(IDENTITY), tmp_path / "new" / "model.keras")


def test_whatever_byte_of_a_note_is_changed_it_is_not_believed(saved, tmp_path):
    whole = note().read_bytes()
    for place in range(len(whole)):
        note().write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        assert copy_kept(IDENTITY, tmp_path / "new") is None
    note().write_bytes(whole)
    assert copy_kept(IDENTITY, tmp_path / "new")


def test_a_note_under_the_name_of_another_is_not_believed(saved, tmp_path):
    other = "cd" * 32
    note().rename(note().with_name(f"{other[:32]}.saved"))
    assert copy_kept(other, tmp_path / "new") is None


def test_a_cache_that_cannot_be_written_or_read_costs_time_alone(saved, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(kept_models, "write_sealed", refuse)
    keep("cd" * 32, saved, "It was asked.")
    monkeypatch.setattr("os.utime", refuse)
    assert copy_kept(IDENTITY, tmp_path / "new")
    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    assert copy_kept(IDENTITY, tmp_path / "new") is None


def test_an_identity_is_of_every_fact_and_of_code_and_versions(monkeypatch):
    facts = ("a", (1, "b"), b"c", True)
    others = [("b", (1, "b"), b"c", True), ("a", (2, "b"), b"c", True), ("a", (1, "b"), b"d", True)]
    others += [("a", (1, "b"), b"c", False), facts[:3], ("a", (1, "b"), "c", True), (*facts, b"")]
    assert identity_of(*facts) == identity_of(*facts)
    made = {identity_of(*facts), *(identity_of(*other) for other in others)}
    for name in ("keras_version", "backend_name", "backend_version", "version"):
        with monkeypatch.context() as patch:
            patch.setattr(kept_models, name, lambda *_, name=name: f"another {name}")
            made.add(identity_of(*facts))
    monkeypatch.setattr(kept_models, "_CODE", ["another"])
    assert len({*made, identity_of(*facts)}) == len(others) + 6


# --- the whole line ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """A folder of pictures, a file of weights and a cache in which a first fit left what it had."""
    here = tmp_path_factory.mktemp("line")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(here / "cache"))
        spec = find_backbone("MobileNetV2")
        build_backbone(spec, find_weights(spec, "none"), 64, seed=1).model.save_weights(here / "own.weights.h5")
        paint_folder(here / "photos", 12)
        fit(here, "first")
        yield here


def fit(here, name, **choices):
    usual = {"weights": str(here / "own.weights.h5"), "image_size": 64, "views": "one"}
    return headstart.fit(here / "photos", out=here / name, **{**usual, **choices})


def model(here, name):
    return (here / name / "model.keras").read_bytes()


COPIED = "(It is, byte for byte, "


@pytest.mark.backend
def test_a_second_fit_imports_no_keras_and_leaves_the_same(line):
    code = f"""
import sys
sys.path.insert(0, {str(line)!r})
import headstart
choices = {{"weights": {str(line / "own.weights.h5")!r}, "image_size": 64, "views": "one"}}
run = headstart.fit({str(line / "photos")!r}, out={str(line / "second")!r}, **choices)
print([name for name in ("keras", "tensorflow", "jax", "torch", "openvino") if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "[]\n" or os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow"
    first, second = (json.loads((line / name / "run.json").read_text()) for name in ("first", "second"))
    assert model(line, "second") == model(line, "first")
    for name in ("labels.json", "evaluation.json", "predictions.csv", "split.csv", "history.csv"):
        assert (line / "second" / name).read_bytes() == (line / "first" / name).read_bytes()
    assert second["self_check"].startswith(f"{first['self_check']} {COPIED}that of an earlier run, SHA-256 ")
    assert second["versions"] == first["versions"]
    picture = next((line / "photos").rglob("*.png"))
    (one,), (two,) = (headstart.load(line / name).classifier.predict([picture]) for name in ("first", "second"))
    assert one == two


@pytest.mark.parametrize("harm", ["gone", "damaged"])
def test_it_is_made_again_where_what_was_saved_is(line, harm):
    seed = len(harm)  # Of its own, so that no other run has its model.
    path = fit(line, f"{harm} 1", seed=seed).path / "model.keras"
    whole = path.read_bytes()
    path.unlink() if harm == "gone" else path.write_bytes(whole[:-9] + b"!" + whole[-8:])
    run = fit(line, f"{harm} 2", seed=seed)
    assert COPIED not in run.facts["self_check"]
    assert "read back from disk" in run.facts["self_check"]
    assert COPIED in fit(line, f"{harm} 3", seed=seed).facts["self_check"]
    assert model(line, f"{harm} 3") == model(line, f"{harm} 2")


@pytest.mark.parametrize("choice", [{"views": "flips"}, {"image_size": 96}, {"head": "nearest"}, {"seed": 1}], ids=str)
def test_another_choice_is_another_model(line, choice):
    name = str(choice)
    run = fit(line, name, **choice)
    assert COPIED not in run.facts["self_check"]
    assert model(line, name) != model(line, "first")


def test_other_test_images_are_asked_anew(line, monkeypatch):
    """The same head, but the question is another: what was answered then says nothing of it."""
    from headstart.learning.trained import Trained

    asked = Trained._asked
    monkeypatch.setattr(Trained, "_asked", lambda trained: asked(trained)[:2])
    run = fit(line, "fewer asked")
    assert COPIED not in run.facts["self_check"]
    assert "(2)" in run.facts["self_check"]


@pytest.mark.parametrize("trouble", [KeyboardInterrupt, CacheError("other weights"), OSError(5, "Input/output error")])
def test_a_model_that_cannot_be_made_leaves_the_earlier_run_as_it_was(line, monkeypatch, trouble):
    """The same run again, which is finished, and whose model would be made anew."""
    name = f"trouble {type(trouble).__name__}"
    before = {path.name: path.read_bytes() for path in fit(line, name).path.iterdir()}

    def refuse(*_, **__):
        raise trouble

    monkeypatch.setattr(trained, "find_kept", lambda _: None)
    monkeypatch.setattr("headstart.networks.planned.build_backbone", refuse)
    with pytest.raises(trouble if isinstance(trouble, type) else type(trouble)):
        fit(line, name)
    assert {path.name: path.read_bytes() for path in (line / name).iterdir()} == before
    if trouble is not KeyboardInterrupt:
        with pytest.raises(type(trouble)):
            fit(line, f"new {name}")
        assert not (line / f"new {name}").exists()


def test_the_same_run_again_in_its_own_folder(line):
    first = fit(line, "again")
    whole = model(line, "again")
    assert COPIED in fit(line, "again").facts["self_check"]
    assert model(line, "again") == whole
    assert headstart.load(first.path).facts["finished"]


def test_new_names_for_the_classes_are_not_the_old_ones(line, tmp_path):
    for folder in (line / "photos").iterdir():
        target = tmp_path / "photos" / f"new {folder.name}"
        target.mkdir(parents=True)
        for path in folder.iterdir():
            (target / path.name).write_bytes(path.read_bytes())
    usual = {"weights": str(line / "own.weights.h5"), "image_size": 64, "views": "one"}
    run = headstart.fit(tmp_path / "photos", out=tmp_path / "run", **usual)
    assert run.classifier.class_names == tuple(f"new {name}" for name in ("blue", "green", "red"))
