"""Comparing networks on pictures: who is judged, on which pictures, what is written, and what happens when time is up."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart import comparing
from headstart.cli import run as run_cli
from headstart.errors import DataError, RunError, UnknownNameError, WeightsError
from headstart.features import feature_pass
from headstart.learning import pacing, pairing, racing
from headstart.networks.catalogue import choose_backbones, find_backbone
from headstart.pictures.scan import scan
from headstart.pictures.split import split_images
from headstart.progress import Budget, TimeIsUpError
from headstart.recipe import Recipe

TWO = "MobileNet,MobileNetV2"
CHOICES = {"backbones": TWO, "weights": "none", "image_size": 33}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """90 noisy pictures, dark, middling and bright, one of them with a name to be careful with."""
    folder = tmp_path_factory.mktemp("where") / "<b>photos"
    random = np.random.default_rng(0)
    for number in range(90):
        name = ("dark", "middling", "bright")[number % 3]
        level = {"dark": 60, "middling": 128, "bright": 190}[name]
        pixels = np.clip(random.normal(level, 60, (24, 24, 3)), 0, 255).astype(np.uint8)
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def compared(photos, tmp_path_factory):
    told = []
    found = headstart.compare(photos, out=tmp_path_factory.mktemp("out") / "found", tell=told.append, **CHOICES)
    return found, told


def test_every_network_is_ranked_with_what_it_costs(compared):
    found, _ = compared
    ranking = found.comparison.ranking
    assert {each.backbone for each in ranking} == {"MobileNet", "MobileNetV2"}
    assert found.best == ranking[0]
    assert found.best.tied_with_best
    for each in ranking:
        assert 0 <= each.accuracy_low <= each.accuracy <= each.accuracy_high <= 1
        assert each.latency_ms > 0
        assert each.seconds > 0
        assert each.image_size == 33
        assert each.weights == "random (none)"
    by_name = {each.backbone: each for each in ranking}
    assert by_name["MobileNetV2"].num_params == 2_257_984, "without the top"
    assert by_name["MobileNetV2"].size_mb == pytest.approx(9.03, abs=0.01)
    assert found.best.accuracy > 0.6, "dark, middling and bright are not hard to tell apart"
    assert "random" in found.comparison.notes[0]


def test_json_is_that_of_the_contract(compared):
    found, _ = compared
    keys = {
        "backbone", "accuracy", "accuracy_low", "accuracy_high", "tied_with_best", "latency_ms", "size_mb",
        "num_params", "seconds",
    }  # fmt: skip
    summary = json.loads(json.dumps(found.summary()))
    assert keys <= set(summary["ranking"][0])
    assert summary["seconds"] > 0
    assert json.loads((found.path / "comparison.json").read_text())["ranking"] == summary["ranking"]


def test_everyone_is_told_of_as_it_is_judged(compared):
    _, told = compared
    assert [each.backbone for each in told[:2]] == ["MobileNetV2", "MobileNet"], "the quickest first"
    assert all(each.num_images == 72 for each in told), "72 of 90 are not for the test"


def test_the_test_images_play_no_part(photos, tmp_path, monkeypatch):
    folder, splits = split_images(scan(photos), seed=0)
    held_back = {image.sha256 for image, split in zip(folder.images, splits, strict=True) if split == "test"}
    seen = set()
    real = racing.learn

    def spy(images, *others):
        seen.update(image.sha256 for image in images)
        return real(images, *others)

    monkeypatch.setattr(racing, "learn", spy)
    headstart.compare(photos, out=tmp_path / "out", **CHOICES)
    assert len(seen) == 72
    assert not seen & held_back


def test_what_is_computed_is_not_computed_again(photos, compared, tmp_path, monkeypatch):
    def fails(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(feature_pass, "decode_ahead", fails)
    again = headstart.compare(photos, out=tmp_path / "again", **CHOICES)
    for one, two in zip(compared[0].comparison.ranking, again.comparison.ranking, strict=True):
        assert (one.backbone, one.accuracy, one.p_value) == (two.backbone, two.accuracy, two.p_value)


def test_a_larger_size_is_tried_for_those_who_are_left(photos, tmp_path, monkeypatch):
    asked = []
    real = racing.learn

    def spy(images, class_names, eyes, candidate, step):
        asked.append(candidate.image_size)
        return real(images, class_names, eyes, candidate, step)

    monkeypatch.setattr(racing, "learn", spy)
    monkeypatch.setattr("headstart.learning.seeing.candidate_sizes", lambda _: (33, 49))
    found = headstart.compare(photos, backbones="MobileNetV2", weights="none", out=tmp_path / "out")
    assert asked[0] == 33
    assert asked[1:3] == [33, 49]
    assert asked[3] == found.best.image_size


def test_pages_are_drawn_from_names_that_are_hostile(compared):
    page = (compared[0].path / "report.html").read_text()
    assert "&lt;b&gt;photos" in page
    assert "<b>photos" not in page
    assert "MobileNetV2" in page
    assert "<svg" in page
    assert "http" not in page.replace('http-equiv="Content', ""), "it asks nobody for anything"


def test_weights_that_cannot_be_had_leave_the_others_in_the_race(photos, tmp_path, monkeypatch):
    real = comparing.find_weights

    def offline(spec, asked, **more):
        if asked == "auto":
            raise WeightsError(f"{spec.name} cannot be fetched.")
        return real(spec, asked, **more)

    monkeypatch.setattr(comparing, "find_weights", offline)
    choices = {**CHOICES, "backbones": "VGG16,MobileNetV2"}
    found = headstart.compare(photos, out=tmp_path / "out", **{**choices, "weights": {"MobileNetV2": "none"}})
    assert [each.backbone for each in found.comparison.ranking] == ["MobileNetV2"]
    assert found.comparison.left_out == {"VGG16": "VGG16 cannot be fetched."}
    assert "VGG16" in (found.path / "report.html").read_text()
    with pytest.raises(WeightsError, match="none of these 2 networks"):
        headstart.compare(photos, out=tmp_path / "none", **{**choices, "weights": "auto"})
    assert not (tmp_path / "none").exists()


def test_a_budget_that_is_used_up_ranks_what_is_known(photos, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(Budget, "left", lambda _: -1.0 if told else 1.0)
    choices = {**CHOICES, "image_size": 35}
    found = headstart.compare(photos, out=tmp_path / "out", budget=1, tell=told.append, **choices)
    assert [each.backbone for each in found.comparison.ranking] == ["MobileNetV2"]
    assert "time was used up" in found.comparison.notes[0]
    assert "MobileNet" in found.comparison.left_out


def test_a_budget_is_kept_for_the_leader_where_it_does_not_suffice_for_all(photos, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(Budget, "left", lambda _: 13.0 if told else 100.0)
    monkeypatch.setattr(racing, "Cost", lambda *_: pacing.Cost(10.0, 10.0))
    found = headstart.compare(photos, out=tmp_path / "out", budget=1, tell=told.append, **CHOICES)
    assert [(each.backbone, each.is_finalist) for each in found.comparison.ranking] == [("MobileNetV2", True)]
    assert len(told) == 2, "on the first rung and on the last"
    reason = "the time was kept for judging the best of the others on more images"
    assert found.comparison.left_out == {"MobileNet": reason}
    assert found.comparison.notes[0] == (
        "The time did not suffice for every network: some of it was kept for judging the best on more images."
    )
    assert reason in (found.path / "report.html").read_text()


def test_what_is_left_of_a_budget_shows_the_leader_a_part_of_the_images(photos, tmp_path, monkeypatch):
    """72 pictures are for learning; of rungs of 24 and 72 the second is out of reach, but 24 + 32 are not."""
    monkeypatch.setattr(racing, "rungs", lambda *_: (24, 72))
    monkeypatch.setattr(racing._Contestant, "latency", lambda one, size: one.latencies.setdefault(size, 1000.0))
    monkeypatch.setattr(racing, "Cost", lambda *_: pacing.Cost(0.0, 1000.0))
    monkeypatch.setattr(Budget, "left", lambda _: 36.0)
    found = headstart.compare(photos, out=tmp_path / "out", budget=1, **{**CHOICES, "backbones": "MobileNetV2"})
    assert found.best.num_images == 24 + 32
    assert found.comparison.notes[0].startswith("The time was used up before")


def test_a_budget_too_small_for_larger_images_leaves_them_out(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("headstart.learning.seeing.candidate_sizes", lambda _: (33, 49))
    monkeypatch.setattr(Budget, "left", lambda _: 5.0)
    monkeypatch.setattr(racing, "Cost", lambda *_: pacing.Cost(8.0, 0.0))
    found = headstart.compare(photos, backbones="MobileNetV2", weights="none", out=tmp_path / "out", budget=1)
    assert found.best.image_size == 33
    assert found.comparison.notes[0] == "There was no time to try larger images."


def test_a_budget_stops_work_that_reports():
    reports = []
    watched = Budget(None).over(lambda *step: reports.append(step))
    watched("a step", 1, 2)
    assert reports == [("a step", 1, 2)]
    with pytest.raises(TimeIsUpError):
        Budget(0.0).over(watched)("a step", 2, 2)


def test_a_budget_too_small_for_anything_is_one_message(photos, tmp_path):
    with pytest.raises(DataError, match=r"No network could be judged\..*time was used up"):
        headstart.compare(photos, out=tmp_path / "out", budget=1e-6, **{**CHOICES, "image_size": 37})
    with pytest.raises(DataError, match="--budget must be more than 0"):
        headstart.compare(photos, budget=0)


def test_wrong_names_are_refused_before_the_folder_is_looked_at():
    with pytest.raises(UnknownNameError, match="Did you mean MobileNetV2"):
        headstart.compare("nowhere", backbones="MobileNetV22")


def test_fit_takes_the_fastest_of_the_best(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(comparing, "choose_backbones", lambda _: choose_backbones(TWO.split(",")))
    run = headstart.fit(photos, backbone="auto", weights="none", image_size=33, views="one", out=tmp_path / "run")
    name = run.facts["summary"]["backbone"]
    assert name in TWO.split(",")
    assert run.facts["notes"][0].startswith(f"{name} at 33 px was chosen on training images: ")
    assert run.facts["seconds"]["compare"] > 0
    assert run.evaluation.accuracy > 0.5
    assert headstart.load(run.path).evaluation == run.evaluation


def test_the_two_best_see_together_where_that_is_better(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(comparing, "choose_backbones", lambda _: choose_backbones(TWO.split(",")))
    monkeypatch.setattr(pairing, "_verdict", lambda names, *_: (True, f"{names} are as good as one could wish."))
    options = ["--backbone", "auto", "--ensemble", "--weights", "none", "--image-size", "33", "--views", "one"]
    assert run_cli(["fit", str(photos), *options, "--out", str(tmp_path / "run")]) == 0
    run = headstart.load(tmp_path / "run")
    networks = run.facts["networks"]
    assert {each["backbone"] for each in networks} == {"MobileNet", "MobileNetV2"}
    assert networks[0]["backbone"] == run.facts["summary"]["backbone"]
    for each in networks:
        assert each["source"] == "random (none)"
        assert len(each["sha256"]) == 64
    assert networks[0]["sha256"] != networks[1]["sha256"]
    assert run.facts["choices"]["backbone"] == " and ".join(each["backbone"] for each in networks)
    assert "are as good as one could wish." in run.facts["head_note"]
    assert any(note.startswith(f"{networks[1]['backbone']} sees with it; its weights: ") for note in run.facts["notes"])
    assert "model.keras, read back from disk" in run.facts["self_check"]
    with (run.path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for said, row in zip(run.classifier.predict([photos / row["path"] for row in rows]), rows, strict=True):
        assert said.label == row["predicted"]
        assert said.probability == pytest.approx(float(row["probability"]), abs=1e-4)
    assert run.facts["summary"]["features"]["computed"] == len(rows), "the others were known from the comparison"


def test_without_a_second_network_one_sees_and_the_report_says_so(photos, monkeypatch):
    monkeypatch.setattr(comparing, "choose_backbones", lambda _: choose_backbones(["MobileNetV2"]))
    folder, splits = split_images(scan(photos), seed=0)
    asked = Recipe(backbone="auto", weights="none", image_size=33, ensemble=True)
    settled = comparing.settle(asked, folder, splits)
    assert settled.partner is None
    assert settled.notes[-1] == "There is no second network that MobileNetV2 could be tried together with."


def test_with_the_flatten_head_auto_keeps_the_networks_own_size(photos, monkeypatch):
    monkeypatch.setattr(comparing, "choose_backbones", lambda _: choose_backbones(["MobileNetV2"]))
    monkeypatch.setattr("headstart.learning.seeing.candidate_sizes", lambda _: (33, 49))
    folder, splits = split_images(scan(photos), seed=0)
    recipe = comparing.settle(Recipe(backbone="auto", weights="none", head="flatten"), folder, splits).recipe
    assert (recipe.backbone, recipe.image_size) == ("MobileNetV2", None)
    recipe = comparing.settle(Recipe(backbone="auto", weights="none"), folder, splits).recipe
    assert recipe.image_size in (33, 49)


def test_a_comparison_is_no_run(compared, photos):
    with pytest.raises(RunError, match="holds a comparison and no classifier"):
        headstart.load(compared[0].path)
    with pytest.raises(RunError, match="would be lost"):
        headstart.compare(photos, out=compared[0].path, **{**CHOICES, "seed": 5})


def test_the_command_prints_a_table_and_json(photos, tmp_path, capsys):
    options = ["--backbones", TWO, "--weights", "none", "--image-size", "33", "--out", str(tmp_path / "out"), "--json"]
    assert run_cli(["compare", str(photos), *options]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0].split() == [
        "network", "pictures", "px", "right", "%", "95", "%", "interval", "ms", "MB", "seconds",
    ]  # fmt: skip
    assert {lines[1].split()[0], lines[2].split()[0]} == {"MobileNet", "MobileNetV2"}
    assert json.loads(lines[-1])["path"] == str(tmp_path / "out")
    assert "of 72 pictures right" in shown.err
    assert "Report: " in shown.err


def test_size_is_a_number_or_auto(photos, capsys):
    assert run_cli(["compare", str(photos), "--image-size", "huge"]) == 2
    assert "neither a number of pixels nor auto" in capsys.readouterr().err
    assert run_cli(["fit", str(photos / "nowhere"), "--image-size", "auto"]) == 1


def test_names_of_one_network_are_the_same_network():
    assert choose_backbones(["mobilenetv2", "MobileNetV2"]) == (find_backbone("MobileNetV2"),)
