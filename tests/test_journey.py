"""The command line, end to end, on a small folder of drawn pictures with a random network."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from headstart import cli

FILES = {
    "run.json", "split.csv", "model.keras", "labels.json", "evaluation.json", "predictions.csv", "history.csv",
    "report.html", "README.md", "MANIFEST.json",
}  # fmt: skip
QUICK = ["--weights", "none", "--image-size", "64", "--views", "one"]


def draw(folder, num_images, first=0):
    """Striped and dotted pictures: easy even for a random network."""
    for label in ("striped", "dotted"):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + num_images):
            pixels = np.random.default_rng(number).integers(0, 60, (48, 48, 3)).astype(np.uint8)
            if label == "striped":
                pixels[:, ::4] = 220
            else:
                pixels[::6, ::6] = 220
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


def run_json(capsys, *arguments):
    capsys.readouterr()
    code = cli.run([*map(str, arguments), "--json"])
    out = capsys.readouterr().out.strip()
    assert "\n" not in out
    return code, json.loads(out) if out else None


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("data") / "photos", 16)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    assert cli.run(["fit", str(data), "--out", str(run), *QUICK]) == 0
    return run


def test_the_run_folder_is_whole(finished):
    assert {each.name for each in finished.iterdir()} >= FILES
    manifest = json.loads((finished / "MANIFEST.json").read_text())["sha256"]
    assert set(manifest) == FILES - {"MANIFEST.json"}
    for name, expected in manifest.items():
        assert hashlib.sha256((finished / name).read_bytes()).hexdigest() == expected


def test_a_second_fit_computes_nothing_and_new_images_alone_are_computed(data, finished, tmp_path, capsys):
    code, facts = run_json(capsys, "fit", data, "--out", tmp_path / "again", *QUICK)
    assert code == 0
    assert facts["features"]["computed"] == 0
    assert facts["features"]["reused"] == facts["num_images"] == 32
    assert set(facts) >= {"run", "backbone", "weights", "head", "fine_tuned", "class_names", "test", "seconds"}
    assert set(facts["test"]) == {
        "num_images", "accuracy", "accuracy_low", "accuracy_high", "macro_f1", "log_loss", "ece",
    }  # fmt: skip
    more = draw(draw(tmp_path / "photos", 16), 2, first=100)
    code, facts = run_json(capsys, "fit", more, "--out", tmp_path / "more", *QUICK)
    assert code == 0
    assert facts["features"]["computed"] == 4


def test_plain_keras_predict_and_the_stored_scores_agree(data, finished, capsys):
    import keras

    with (finished / "predictions.csv").open(newline="") as file:
        stored = list(csv.DictReader(file))
    paths = [data / row["path"] for row in stored]
    code, said = run_json(capsys, "predict", finished, *paths)
    assert code == 0
    assert [each["label"] for each in said] == [row["predicted"] for row in stored]
    model = keras.models.load_model(finished / "model.keras")
    pixels = np.stack([np.asarray(Image.open(path).resize((64, 64), Image.Resampling.BICUBIC)) for path in paths])
    plain = model.predict(pixels, verbose=0)
    ours = np.array([list(each["probabilities"].values()) for each in said])
    kept = np.array([[float(row["p(dotted)"]), float(row["p(striped)"])] for row in stored])
    np.testing.assert_allclose(plain, ours, atol=1e-4)
    np.testing.assert_allclose(kept, ours, atol=1e-4)
    right = np.mean([row["label"] == row["predicted"] for row in stored])
    assert json.loads((finished / "evaluation.json").read_text())["accuracy"] == pytest.approx(right)


def test_a_file_that_cannot_be_read_is_named_and_the_rest_go_on(data, finished, tmp_path, capsys):
    (tmp_path / "text.jpg").write_text("no picture")
    code, said = run_json(capsys, "predict", finished, tmp_path / "text.jpg", data / "dotted" / "1.png")
    assert code == 0
    assert set(said[0]) == {"path", "error"}
    assert said[1]["label"] in {"dotted", "striped"}


def test_evaluate_leaves_out_what_was_trained_on(data, finished, capsys):
    code, facts = run_json(capsys, "evaluate", finished, data)
    assert code == 0
    assert facts["num_left_out"] + facts["test"]["num_images"] == 32


def test_a_report_needs_no_backend(finished):
    script = (
        "import sys\n"
        "for name in ('keras', 'tensorflow', 'jax', 'torch', 'openvino'): sys.modules[name] = None\n"
        "from headstart.cli import run\n"
        f"sys.exit(run(['report', {str(finished)!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_imports_no_backend():
    script = (
        "import sys\nfrom headstart.cli import run\nrun(['--help'])\n"
        "assert not {'keras', 'tensorflow', 'jax', 'torch', 'openvino', 'scipy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_finished_run_is_not_overwritten_by_another(data, finished, capsys):
    assert cli.run(["fit", str(data), "--out", str(finished), *QUICK, "--seed", "1"]) == 1
    assert "which would be lost" in capsys.readouterr().err


def test_the_same_picture_under_two_labels_is_said(data, tmp_path, capsys):
    photos = draw(tmp_path / "photos", 16)
    (photos / "striped" / "same.png").write_bytes((photos / "dotted" / "3.png").read_bytes())
    assert cli.run(["fit", str(photos), "--out", str(tmp_path / "run"), *QUICK]) == 0
    said = "The same picture has different labels once, so"
    assert said in capsys.readouterr().err
    assert said in (tmp_path / "run" / "report.html").read_text()


def test_the_flatten_head_trains_and_keeps_its_history(data, tmp_path, capsys):
    code, facts = run_json(
        capsys, "fit", data, "--out", tmp_path / "run", "--weights", "none", "--image-size", "64", "--head", "flatten",
        "--epochs", "2",
    )  # fmt: skip
    assert code == 0
    assert facts["head"] == "flatten"
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["fit", "/nowhere"], 1, "does not exist"),
        (["fit", ".", "--backbone", "resnet5"], 1, "Did you mean ResNet50"),
        (["fit", ".", "--no-such-option"], 2, "No such option"),
        (["fit"], 2, "Missing argument"),
        (["predict", "/nowhere", "a.jpg"], 1, "not a run folder"),
    ],
)
def test_wrong_words_get_one_message(arguments, code, words, capsys):
    assert cli.run(arguments) == code
    assert words in capsys.readouterr().err


def test_weights_that_do_not_exist_or_have_another_hash(data, tmp_path, capsys):
    assert cli.run(["fit", str(data), "--out", str(tmp_path / "a"), "--weights", str(tmp_path / "no.h5")]) == 1
    assert "there is no such file" in capsys.readouterr().err
    (tmp_path / "w.h5").write_bytes(b"weights")
    (tmp_path / "w.h5.sha256").write_text("0" * 64)
    assert cli.run(["fit", str(data), "--out", str(tmp_path / "b"), "--weights", str(tmp_path / "w.h5")]) == 1
    assert "beside it says" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_said(data, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.run(["fit", str(data), "--out", str(tmp_path / "file" / "run"), *QUICK]) == 1
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.real
def test_real_weights_on_real_pictures(real_cache, tmp_path, capsys):
    from headstart.networks.catalogue import find_backbone
    from headstart.pictures.published import fetch_images

    folder = fetch_images("textile")
    for label in ("nominal", "local", "global"):
        (tmp_path / "few" / label).mkdir(parents=True)
        for path in sorted((folder / label).iterdir())[:60]:
            (tmp_path / "few" / label / path.name).symlink_to(path)
    code, facts = run_json(
        capsys, "fit", tmp_path / "few", "--out", tmp_path / "run", "--weights", "packaged", "--image-size", "225",
        "--views", "one",
    )  # fmt: skip
    assert code == 0
    assert facts["weights"]["sha256"] == find_backbone("MobileNetV2").packaged.sha256
    assert facts["test"]["accuracy"] > 0.5
