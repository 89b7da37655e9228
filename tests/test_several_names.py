"""Pictures with several names, from a manifest to the report, by the command line and from Python."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart.errors import DataError
from headstart.reporting.runs import data_hash, read_table
from headstart.scoring.multi_label import MultiLabelEvaluation
from headstart.workflow import predict
from journey import FAST, RUN_FILES, call, finished

NAMES = ["bright", "red", "striped"]


def draw(path, random, there):
    """A small noisy picture: bright or dark, with a red square or without, with stripes or without."""
    bright, red, striped = there
    pixels = random.normal(170 if bright else 80, 25, (24, 24, 3))
    if red:
        pixels[6:18, 6:18] = random.normal((230, 30, 30), 20, (12, 12, 3))
    if striped:
        pixels[::4] = 0
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    random = np.random.default_rng(0)
    rows = []
    for number in range(60):
        there = random.random(3) < (0.5, 0.4, 0.3)
        draw(folder / f"{number:03}.png", random, there)
        label = [name for name, its in zip(NAMES, there, strict=True) if its]
        rows.append({"file_name": f"{number:03}.png", "label": label})
    (folder / "parts.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder / "parts.jsonl"


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def fitted(manifest, tmp_path_factory):
    run = tmp_path_factory.mktemp("run") / "run"
    answer = call("fit", manifest, *FAST, "--out", run, "--json")
    assert answer.code == 0, answer.err
    return run, answer


def truth(manifest):
    rows = map(json.loads, manifest.read_text(encoding="utf-8").splitlines())
    return {row["file_name"]: row["label"] for row in rows}


def test_fit_learns_every_name(fitted):
    run, answer = fitted
    assert {path.name for path in run.iterdir()} == RUN_FILES
    assert (answer.json["class_names"], answer.json["multi_label"]) == (NAMES, True)
    test = answer.json["test"]
    assert test["accuracy_low"] > 0.4
    assert test["hamming_accuracy"] > 0.9
    assert "of 100 new pictures have every name right" in answer.err
    assert "Logistic regression for each name on" in answer.err
    assert "Always answering “" in answer.err
    assert json.loads((run / "labels.json").read_bytes()) == {"class_names": NAMES, "multi_label": True}


def test_the_score_is_that_of_the_tables(fitted, manifest):
    run, answer = fitted
    rows, names = read_table(run / "predictions.csv"), truth(manifest)
    assert [row["label"] for row in rows] == ["|".join(names[row["path"]]) for row in rows]
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert answer.json["test"]["accuracy"] == pytest.approx(right / len(rows))
    for row in rows:
        assert row["predicted"] == "|".join(name for name in NAMES if float(row[f"p({name})"]) >= 0.5)
    assert {row["path"]: row["label"] for row in read_table(run / "split.csv")} == {
        path: "|".join(label) for path, label in names.items()
    }


def test_the_model_is_plain_keras_and_ends_in_a_sigmoid(fitted, manifest):
    import keras

    run, _ = fitted
    model = keras.models.load_model(run / "model.keras")
    assert model.layers[-1].name == "probabilities"
    assert model.layers[-1].activation is keras.activations.sigmoid
    rows = read_table(run / "predictions.csv")
    pictures = [Image.open(manifest.parent / row["path"]).resize((64, 64), Image.Resampling.BICUBIC) for row in rows]
    answers = model.predict(np.stack([np.asarray(each, np.uint8) for each in pictures]), verbose=0)
    stored = np.array([[float(row[f"p({name})"]) for name in NAMES] for row in rows])
    assert np.abs(answers - stored).max() < 1e-4


def test_predict(fitted, manifest, tmp_path):
    run, _ = fitted
    files = [manifest.parent / row["path"] for row in read_table(run / "predictions.csv")]
    (tmp_path / "broken.png").write_bytes(b"no picture")
    said = call("predict", run, *files, tmp_path / "broken.png", "--json").json
    assert set(said[-1]) == {"path", "error"}
    for each in said[:-1]:
        assert each["label"] == "|".join(each["labels"])
        assert each["labels"] == [name for name, share in each["probabilities"].items() if share >= 0.5]
        sure = np.prod([max(share, 1 - share) for share in each["probabilities"].values()])
        assert each["probability"] == pytest.approx(sure)
    lines = call("predict", run, *files).out.splitlines()
    assert [line.split("\t")[1] for line in lines] == [each["label"] or "(none)" for each in said[:-1]]
    first = predict(run, files[:1])[0]
    assert first.is_multi_label
    assert first.labels == tuple(said[0]["labels"])


def test_predictions_of_one_name_are_as_they_were():
    journey = finished()
    assert json.loads((journey.run / "labels.json").read_bytes()) == {"class_names": ["blue", "green", "red"]}
    assert "multi_label" not in journey.answer.json
    assert "multi_label" not in (journey.run / "evaluation.json").read_text()
    file = journey.photos / "red" / "000.png"
    said = call("predict", journey.run, file, "--json").json[0]
    assert set(said) == {"path", "label", "probability", "probabilities"}
    assert predict(journey.run, [file])[0].labels == (said["label"],)


def test_report_and_card(fitted):
    run, _ = fitted
    page = (run / "report.html").read_text(encoding="utf-8")
    for words in ("of 100 new pictures have every name right", "What gets missed", "Name by name", "tossing a coin"):
        assert words in page
    for words in ("Confusion matrix", "taken for", "Class by class"):
        assert words not in page
    card = (run / "README.md").read_text(encoding="utf-8")
    assert (
        "It says which of 3 names belong to a picture, any number of them or none: “bright”, “red”, “striped”." in card
    )
    assert "if probability >= 0.5])" in card
    assert "name: every name right" in card
    answer = call("report", run, "--json")
    assert answer.code == 0
    assert "have every name right" in answer.err


def test_evaluate(fitted, manifest, tmp_path):
    run, answer = fitted
    rows = {row["path"]: row["split"] for row in read_table(run / "split.csv")}
    said = call("evaluate", run, manifest, "--json").json
    assert said["num_left_out"] == sum(split != "test" for split in rows.values())
    assert said["test"]["accuracy"] == answer.json["test"]["accuracy"]
    random = np.random.default_rng(9)
    for number, name in enumerate(NAMES * 2):
        draw(tmp_path / f"{number}.png", random, [name == each for each in NAMES])
    lines = [f"{number}.png,{name}" for number, name in enumerate(NAMES * 2)]
    (tmp_path / "one.csv").write_text("\n".join(["file_name,label", *lines]))
    found = headstart.evaluate(run, tmp_path / "one.csv").evaluation
    assert isinstance(found, MultiLabelEvaluation), "one name each is a set like any other"
    assert found.num_images == 6
    (tmp_path / "one.csv").write_text("\n".join(["file_name,label", *lines[:-1], "5.png,blue|red"]))
    with pytest.raises(DataError, match=r"The run does not know the class 'blue'\. It knows: bright, red, striped\."):
        headstart.evaluate(run, tmp_path / "one.csv")


def test_a_run_of_one_name_is_not_scored_on_several(manifest):
    with pytest.raises(DataError) as caught:
        headstart.evaluate(finished().run, manifest)
    assert str(caught.value) == (
        f"Pictures of {manifest} have several names or none, but the run answers with one for each. Expected a "
        "manifest with one name for each picture, or a run that 'headstart fit' made of pictures with several."
    )


@pytest.mark.parametrize("head", ["mlp", "flatten"])
def test_heads_that_keras_trains(manifest, tmp_path, head):
    run = headstart.fit(manifest, out=tmp_path / "run", weights="none", image_size=64, views="one", head=head, epochs=3)
    last = run.classifier.model.layers[-1]
    assert (last.name, last.activation.__name__) == ("probabilities", "sigmoid")
    assert run.evaluation.hamming_accuracy > 0.5
    assert "every name" in call("report", run.path).err


def test_what_is_refused_is_refused_before_any_work(manifest, tmp_path):
    for options in (("--head", "nearest"), ("--fine-tune", "auto")):
        said = call("fit", manifest, *FAST, *options, "--out", tmp_path / "run").complaint()
        assert said.startswith(f"{' '.join(options)} ")
    assert not (tmp_path / "run").exists()


def test_compare(manifest, tmp_path):
    """Both the quick look and the cross-validation."""
    found = headstart.compare(
        manifest, out=tmp_path / "c", backbones="MobileNet,MobileNetV2", weights="none", image_size=33
    ).comparison
    assert {each.backbone for each in found.ranking} == {"MobileNet", "MobileNetV2"}
    assert found.best.accuracy > 0.4
    assert found.notes[-1] == "A picture counts as right where every name is."


def test_size_and_views_can_be_chosen(manifest, tmp_path):
    run = headstart.fit(manifest, out=tmp_path / "run", weights="none", image_size=33)
    assert "chosen by cross-validated log loss" in run.facts["head_note"]


# --- the scan ---------------------------------------------------------------------------------------------------------


def scanned(manifest, *rows):
    path = manifest.parent / "other.jsonl"
    path.write_text("\n".join(json.dumps({"file_name": name, "label": label}) for name, label in rows))
    return headstart.scan(path)


def test_scan_of_several_names(manifest):
    folder = headstart.scan(manifest)
    assert folder.is_multi_label
    assert folder.class_names == tuple(NAMES)
    assert {image.name: list(image.labels) for image in folder.images} == truth(manifest)
    as_one = scanned(manifest, ("000.png", "a"), ("001.png", ["b"]))
    assert not as_one.is_multi_label
    assert data_hash(scanned(manifest, ("000.png", ["a", "b"]), ("001.png", []))) != data_hash(
        scanned(manifest, ("000.png", "a|b"), ("001.png", "c"))
    )


def test_one_name_is_enough_where_some_have_it_and_some_do_not(manifest):
    folder = scanned(manifest, ("000.png", ["a"]), ("001.png", []))
    assert folder.class_names == ("a",)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            [("000.png", ["a", "b"]), ("001.png", ["b", "a"])],
            "All pictures of other.jsonl have the same names, a, b; at least 2 sets of names are needed to tell apart.",
        ),
        (
            [("000.png", []), ("001.png", [])],
            "All pictures of other.jsonl have no name; at least 2 sets of names are needed to tell apart.",
        ),
        (
            [("000.png", ["a"]), ("gone.png", ["b", "c"])],
            "Class 'b' has no readable image: 1 file was skipped, the first being gone.png (there is no such file). "
            "Add images or remove the name from other.jsonl.",
        ),
    ],
)
def test_complaints_of_the_scan(manifest, rows, expected):
    with pytest.raises(DataError) as caught:
        scanned(manifest, *rows)
    assert str(caught.value).replace(f"{manifest.parent}/", "") == expected
