import csv
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import headstart
from headstart import workflow
from headstart.errors import DataError, RunError, UnknownNameError
from headstart.learning.classifier import Classifier
from headstart.learning.trained import Trained
from headstart.pictures.scan import scan
from headstart.pictures.split import split_images
from headstart.reporting import runs
from journey import FAST, RUN_FILES, call, finished, paint, paint_folder, spawn

CHOICES = {"weights": "none", "image_size": 64, "views": "one"}


@pytest.fixture(scope="module")
def journey():
    return finished()


@pytest.fixture(scope="module")
def again(journey, tmp_path_factory):
    """The same command three times, without --out: on the same folder; renamed and grown; and with other head."""
    here = tmp_path_factory.mktemp("again")
    grown = here / "grown" / "photos"
    for path in sorted(journey.photos.rglob("*.png")):
        target = grown / path.parent.name / f"renamed {path.stem}é.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    paint_folder(grown, 1, start=500)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setenv("HEADSTART_CACHE", str(journey.cache))
        same = call("fit", journey.photos, *FAST, "--json")
        more = call("fit", grown, *FAST, "--json")
        flat = call("fit", journey.photos, *FAST, "--head", "flatten", "--epochs", "2", "--out", "flat", "--json")
    return here, same, more, flat


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- once, ever -------------------------------------------------------------------------------------------------------


def test_second_fit_computes_no_features(journey, again):
    _, same, _, _ = again
    assert same.json["features"] == {"computed": 0, "reused": 36, "images_per_second": 0.0}
    assert same.json["test"] == journey.answer.json["test"]
    assert "Features: none computed, 36 reused from the store." in same.err


def test_only_new_images_are_computed_whatever_files_are_called(again):
    _, _, more, _ = again
    assert more.json["num_images"] == 39
    assert more.json["features"]["computed"] == 3
    assert more.json["features"]["reused"] == 36


def test_default_run_folders_are_numbered(again):
    here, same, more, _ = again
    assert same.json["run"] == str(Path("runs") / "photos")
    assert more.json["run"] == str(Path("runs") / "photos-2")
    assert {path.name for path in (here / "runs" / "photos-2").iterdir()} == RUN_FILES


def test_flatten_head_writes_its_history(again):
    here, _, _, flat = again
    assert (flat.code, flat.json["head"]) == (0, "flatten")
    history = table(here / "flat" / "history.csv")
    assert [row["epoch"] for row in history] == ["1", "2"]
    assert set(history[0]) == {"epoch", "loss", "accuracy", "val_loss", "val_accuracy"}
    assert "Trained for 2 epochs" in flat.err


# --- the saved model --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["linear", "flatten"])
def test_saved_model_gives_the_stored_probabilities(journey, again, which):
    """With nothing of headstart: Pillow decodes a 24-pixel PNG here as the decoder does."""
    import keras
    from PIL import Image

    run = journey.run if which == "linear" else again[0] / "flat"
    model = keras.models.load_model(run / "model.keras")
    rows = table(run / "predictions.csv")
    pictures = [Image.open(journey.photos / row["path"]).resize((64, 64), Image.Resampling.BICUBIC) for row in rows]
    answers = model.predict(np.stack([np.asarray(each, np.uint8) for each in pictures]), verbose=0)
    names = json.loads((run / "labels.json").read_bytes())["class_names"]
    stored = np.array([[float(row[f"p({name})"]) for name in names] for row in rows])
    assert np.abs(answers - stored).max() < 1e-4
    assert [names[number] for number in answers.argmax(1)] == [row["predicted"] for row in rows]


def test_score_is_that_of_what_predict_says(journey):
    rows = table(journey.run / "predictions.csv")
    said = call("predict", journey.run, *(journey.photos / row["path"] for row in rows), "--json").json
    assert [each["label"] for each in said] == [row["predicted"] for row in rows]
    right = sum(each["label"] == row["label"] for each, row in zip(said, rows, strict=True))
    assert journey.answer.json["test"]["accuracy"] == pytest.approx(right / len(rows))
    for each, row in zip(said, rows, strict=True):
        assert each["probability"] == pytest.approx(float(row["probability"]), abs=1e-4)
    report = (journey.run / "report.html").read_text(encoding="utf-8")
    assert (
        "model.keras, read back from disk, was asked about the test images of which it is least certain (4)" in report
    )


# --- the same place again ---------------------------------------------------------------------------------------------


def test_finished_run_can_be_made_again_but_not_be_replaced(journey, again, monkeypatch):
    here, _, _, _ = again
    monkeypatch.chdir(here)
    out = here / "runs" / "photos"
    said = call("fit", journey.photos, *FAST, "--seed", "1", "--out", out).complaint()
    assert said == (
        f"{out} holds a finished run of other images or another recipe, which would be lost. Choose another place with "
        "--out, or delete it."
    )
    headstart.load(out)
    answer = call("fit", journey.photos, *FAST, "--out", out, "--json")
    assert answer.code == 0
    assert answer.json["test"] == journey.answer.json["test"]
    assert {path.name for path in out.iterdir()} == RUN_FILES


def test_folder_of_something_else_is_refused(journey, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    said = call("fit", journey.photos, *FAST, "--out", tmp_path).complaint()
    assert said == f"{tmp_path} is not empty and is not a run folder. Choose another place with --out."
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_run_folder_among_the_pictures_is_refused(journey, monkeypatch):
    monkeypatch.chdir(journey.photos)
    said = call("fit", ".", *FAST).complaint()
    assert said == (
        "The run folder runs/photos would lie inside . and be taken for a class the next time. Choose another place "
        "with --out."
    )
    assert not (journey.photos / "runs").exists()


def test_run_that_fails_leaves_no_folder_and_no_harm(journey, tmp_path, monkeypatch):
    """Neither an empty run folder, nor a finished run that is finished no more."""
    choices = {**CHOICES, "weights": str(tmp_path / "gone.h5")}
    with pytest.raises(headstart.WeightsError, match="there is no such file"):
        headstart.fit(journey.photos, out=tmp_path / "new", **choices)
    assert list(tmp_path.iterdir()) == []
    run = shutil.copytree(journey.run, tmp_path / "run")

    def fails(*_, **__):
        raise headstart.WeightsError("no weights")

    monkeypatch.setattr("headstart.learning.training.train", fails)
    with pytest.raises(headstart.WeightsError, match="no weights"):
        headstart.fit(journey.photos, out=run, **CHOICES)
    assert headstart.load(run).evaluation.num_images == 6


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------

# A job that a shell put into the background inherits an ignored SIGINT; at a terminal, as meant here, it is not ignored.
TERMINAL = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
TALKATIVE = (
    TERMINAL + "from headstart import terminal\nterminal._PLAIN_SECONDS = 0.0\nfrom headstart.cli import main\nmain()"
)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_interrupted_run_goes_on_where_it_was(tmp_path):
    photos = paint_folder(tmp_path / "photos", 100, names=("blue", "red"), side=12)
    command = ["fit", str(photos), "--weights", "none", "--image-size", "96", "--views", "one", "--seed", "7"]
    command += ["--out", str(tmp_path / "run"), "--json"]
    with subprocess.Popen(
        [sys.executable, "-c", TALKATIVE, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr:
            if line.startswith("Computing features at 96 px: ") and ": 0 of" not in line:
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    complaints = [line for line in err.splitlines() if not line.startswith("Computing")]
    assert complaints == ["error: Interrupted. What was computed is kept: the same command goes on from there."]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]
    assert "is unfinished: it has no MANIFEST.json" in call("report", tmp_path / "run").complaint()
    answer = call(*command)
    assert answer.code == 0, answer.err
    features = answer.json["features"]
    assert features["reused"] > 0
    assert features["computed"] + features["reused"] == 200
    assert {path.name for path in (tmp_path / "run").iterdir()} == RUN_FILES


# --- Python -----------------------------------------------------------------------------------------------------------


def test_python_api_of_the_contract(journey, tmp_path):
    """From a manifest, whose splits are respected, with a leak in it."""
    manifest = tmp_path / "photos.csv"
    lines = ["file_name,label,split"]
    sides = ["train"] * 7 + ["val"] * 2 + ["test"] * 3
    for name in ("blue", "red"):
        for number, side in enumerate(sides):
            lines.append(f"{journey.photos / name / f'{number:03}.png'},{name},{side}")
    copy = shutil.copy(journey.photos / "blue" / "011.png", tmp_path / "copy.png")
    manifest.write_text("\n".join([*lines, "copy.png,blue,train"]) + "\n", encoding="utf-8")
    images = headstart.scan(manifest)
    run = headstart.fit(images, out=tmp_path / "run", backbone="mobilenetv2", **CHOICES)
    assert run.path == tmp_path / "run"
    assert 0 <= run.evaluation.accuracy_low <= run.evaluation.accuracy <= run.evaluation.accuracy_high <= 1
    assert run.evaluation.num_images == 6
    skipped = json.loads((run.path / "run.json").read_bytes())["skipped"]
    assert [each["name"] for each in skipped] == ["copy.png"]
    assert "not trained on" in skipped[0]["reason"]
    split = {Path(row["path"]).name for row in table(run.path / "split.csv") if row["split"] == "test"}
    assert split == {"009.png", "010.png", "011.png"}
    (said,) = run.classifier.predict([copy])
    assert (said.path, said.error) == (str(copy), "")
    classifier = headstart.Classifier.load(run.path)
    assert classifier.class_names == ("blue", "red")
    assert type(classifier.model).__module__.startswith("keras.")
    assert classifier.predict([copy]) == [said]
    assert run.summary()["test"] == run.evaluation.summary()
    assert headstart.load(run.path).evaluation == run.evaluation


def test_import_costs_nothing_and_every_name_is_there():
    code = (
        "import sys, headstart\n"
        "names = ('keras', 'tensorflow', 'jax', 'torch', 'numpy', 'PIL', 'typer')\n"
        "assert not [name for name in names if name in sys.modules], sys.modules\n"
        "headstart.scan; headstart.fit; headstart.DataError\n"
        "assert 'keras' not in sys.modules\n"
        "for name in headstart.__all__: getattr(headstart, name)\n"
    )
    answer = spawn(code=code)
    assert answer.code == 0, answer.err


def test_wrong_names_are_refused_before_the_folder_is_looked_at():
    with pytest.raises(UnknownNameError, match=r"There is no backbone 'VGG61'\. Did you mean VGG19 or VGG16"):
        headstart.fit("nowhere", backbone="VGG61")
    with pytest.raises(UnknownNameError, match="There is no head 'mpl'"):
        headstart.fit("nowhere", head="mpl")


# --- pieces -----------------------------------------------------------------------------------------------------------


def test_predict_looks_below_folders_but_not_into_hidden_ones(journey, tmp_path):
    paint(tmp_path / "deep" / "er" / "a.png", (200, 30, 30), 1)
    paint(tmp_path / ".hidden" / "b.png", (200, 30, 30), 2)
    paint(tmp_path / "deep" / "._c.png", (200, 30, 30), 3)
    (tmp_path / "deep" / "notes.txt").write_text("no picture")
    said = workflow.predict(journey.run, [tmp_path])
    assert [each.path for each in said] == [str(tmp_path / "deep" / "er" / "a.png")]
    with pytest.raises(DataError, match=r"There is no picture in an empty list\."):
        workflow.predict(journey.run, [])


def test_split_images_drops_what_is_also_in_the_test(tmp_path):
    for side, seeds in (("train", range(4)), ("val", range(4, 6)), ("test", range(6, 8))):
        for index, name in enumerate(("a", "b")):
            for seed in seeds:
                paint(tmp_path / side / name / f"{seed}.png", (90, 90, 90), 100 * index + seed)
    shutil.copy(tmp_path / "test" / "a" / "6.png", tmp_path / "train" / "a" / "leak.png")
    folder, splits = split_images(scan(tmp_path), seed=0)
    assert len(folder) == len(splits) == 16
    assert [each.name for each in folder.skipped] == ["train/a/leak.png"]


def test_clock_adds_up():
    clock = workflow.Clock()
    for _ in range(2):
        with clock.measures("head"):
            pass
    with pytest.raises(ValueError, match="x"), clock.measures("scan"):
        raise ValueError("x")
    seconds = clock.read()
    assert set(seconds) == {"scan", "features", "head", "fine_tune", "report", "total"}
    assert sum(seconds.values()) <= 2 * seconds["total"] + 0.01


def test_a_step_within_a_step_counts_for_itself_alone(monkeypatch):
    times = iter([0.0, 1.0, 2.0, 5.0, 7.0, 10.0, 13.0, 13.0, 13.0])
    monkeypatch.setattr(workflow.time, "perf_counter", lambda: next(times))
    clock = workflow.Clock()
    with clock.measures("head"):  # From 1 to 13.
        with clock.measures("features"):  # From 2 to 5.
            pass
        with clock.measures("features"):  # From 7 to 10.
            pass
    seconds = clock.read()
    assert (seconds["head"], seconds["features"], seconds["total"]) == (6.0, 6.0, 13.0)


def test_run_with_a_damaged_evaluation_is_a_run_error(journey, tmp_path):
    run = shutil.copytree(journey.run, tmp_path / "run")
    (run / "evaluation.json").write_text("{}")
    runs.finish_run(run)
    with pytest.raises(RunError, match=r"evaluation\.json is damaged"):
        headstart.load(run)


def test_pictures_none_of_which_can_be_decoded_are_one_message(tmp_path, monkeypatch):
    """Their headers are whole, so the scan lets them pass; the trial of sizes is the first to decode."""
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    photos = paint_folder(tmp_path / "photos", 6)
    for path in photos.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:-80])
    with pytest.raises(DataError, match=r"None of the \d+ images that were tried can be decoded; the first is "):
        headstart.fit(photos, weights="none", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("head", "words"), [("nearest", "Nearest class mean on "), ("mlp", "Trained for ")])
def test_the_other_heads_are_saved_as_they_were_scored(journey, tmp_path, monkeypatch, head, words):
    monkeypatch.setenv("HEADSTART_CACHE", str(journey.cache))
    run = headstart.fit(journey.photos, **{**CHOICES, "views": "flips"}, head=head, out=tmp_path / head, epochs=3)
    assert run.summary()["head"] == head
    assert words in run.facts["head_note"]
    assert "model.keras, read back from disk" in run.facts["self_check"]
    assert run.evaluation.accuracy > 0.5


@pytest.mark.parametrize("answer", [[1, 0], [np.nan, np.nan]], ids=["certain of all", "no number"])
def test_a_saved_model_is_asked_where_a_difference_shows(tmp_path, monkeypatch, answer):
    """Four pictures of one class, all certain, say nothing: a model that knows no other class answers the same."""
    pictures = [SimpleNamespace(path=paint(tmp_path / f"{seed}.png", (200, 0, 0), seed)) for seed in range(6)]
    trained = SimpleNamespace(
        candidate=SimpleNamespace(image_size=24),
        test_images=pictures,
        test_probabilities=np.array([[1, 0], [1, 0], [1, 0], [1, 0], [0.9, 0.1], [0, 1]]),
    )
    trained._asked = lambda: Trained._asked(trained)
    saved = SimpleNamespace(model=lambda pixels, training: np.array([answer], np.float32))
    monkeypatch.setattr(Classifier, "load", lambda path: saved)
    with pytest.raises(RunError, match="does not give the answers that were scored"):
        Trained.check_saved(trained, tmp_path)


@pytest.fixture(scope="module")
def few_red(tmp_path_factory):
    """Four times as many blue pictures as red ones, hardly to be told apart."""
    folder = tmp_path_factory.mktemp("unbalanced") / "photos"
    for name, number, level in (("blue", 48, 110), ("red", 12, 135)):
        for seed in range(number):
            paint(folder / name / f"{seed:03}.png", (level, 120, 120), 5000 * len(name) + seed)
    return folder


@pytest.mark.parametrize("choice", ["auto", "off", "balanced"])
def test_class_weights_are_said_and_saved_as_they_were_scored(few_red, tmp_path, choice):
    run = headstart.fit(few_red, **CHOICES, class_weights=choice, out=tmp_path / "run")
    said = run.facts["head_note"]
    assert ("The largest class has 3.8 times the images of the smallest, so weights" in said) is (choice == "auto")
    assert ("Each class counted alike" in said) is (choice == "balanced")
    notes = [note for note in run.facts["notes"] if "--class-weights balanced" in note]
    assert len(notes) == (choice == "balanced")
    if notes:
        assert notes[0] == (
            "Each class counted alike in training, however many images it has (--class-weights balanced): the "
            "probabilities are what they would be if all classes were equally common, so those of rare classes are "
            "higher than they come true here."
        )
    assert "model.keras, read back from disk" in run.facts["self_check"]
    assert run.facts["identity"]["recipe"]["class_weights"] == choice


def test_the_command_takes_class_weights(few_red, tmp_path):
    answer = call(
        "fit",
        few_red,
        *FAST,
        "--head",
        "mlp",
        "--epochs",
        "2",
        "--class-weights",
        "balanced",
        "--out",
        tmp_path / "run",
    )
    assert answer.code == 0, answer.err
    assert "--class-weights balanced" in answer.err
    said = call("fit", few_red, *FAST, "--class-weights", "balance").complaint()
    assert said == "There is no way to weigh classes 'balance'. Did you mean balanced?"
