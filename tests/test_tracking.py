from __future__ import annotations

import math

import pytest

import headstart
from headstart.errors import MissingExtraError, RunError, UnknownNameError
from headstart.reporting import tracking
from headstart.reporting.tracking import FOLDER, Tracker
from test_fine_tuning import CHOICES, hatched

ROW = {"phase": "all", "epoch": 2, "loss": 0.5, "val_loss": math.nan}
HEAD_ROW = {"epoch": 1, "loss": 0.7}


def curves(folder):
    """What TensorBoard's own reader finds: by name, the pairs of epoch and value."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    found = {}
    for name in events.Tags()["tensors"]:
        found[name] = [(each.step, each.tensor_proto.float_val[0]) for each in events.Tensors(name)]
    return found


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    """Its files in a folder, and its client."""
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlflow").as_uri())
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(None)


def test_tensorboard_reads_what_it_was_told(tmp_path):
    tracker = Tracker("tensorboard", tmp_path)
    tracker.tell(ROW)
    tracker.finish({"backbone": "VGG16"}, [HEAD_ROW, ROW], {"accuracy": 0.75}, tmp_path)
    assert tracker.trouble == ""
    assert curves(tmp_path / FOLDER) == {
        "all/loss": [(2, 0.5)],  # Once, and what is no number is left out.
        "head/loss": [(1, pytest.approx(0.7))],
        "test/accuracy": [(0, 0.75)],
    }


def test_mlflow_reads_what_it_was_told(tmp_path, mlflow):
    run = tmp_path / "cells"
    run.mkdir()
    (run / "report.html").write_text("well")
    tracker = Tracker("mlflow", run)
    tracker.tell(ROW)
    tracker.finish({"backbone": "VGG16"}, [ROW], {"accuracy": 0.75}, run)
    assert tracker.trouble == ""
    (found,) = mlflow.search_runs([mlflow.get_experiment_by_name("headstart").experiment_id])
    assert found.info.run_name == "cells"
    assert found.info.status == "FINISHED"
    assert found.data.metrics == {"all/loss": 0.5, "test/accuracy": 0.75}
    assert found.data.params == {"backbone": "VGG16"}
    assert [each.path for each in mlflow.list_artifacts(found.info.run_id)] == ["report.html"]


def test_a_run_is_tracked_and_stays_the_same(tmp_path):
    data = hatched(tmp_path / "stripes", 12)
    choices = {**CHOICES, "epochs": 2, "fine_tune": "stage5"}
    plain = headstart.fit(data, out=tmp_path / "plain", **choices)
    run = headstart.fit(data, out=tmp_path / "run", track="tensorboard", **choices)
    found = curves(run.path / FOLDER)
    assert [step for step, _ in found["stage5/val_loss"]] == [1, 2]
    assert found["test/accuracy"] == [(0, pytest.approx(run.evaluation.accuracy))]
    assert (run.path / "predictions.csv").read_bytes() == (plain.path / "predictions.csv").read_bytes()
    assert headstart.load(run.path).evaluation == run.evaluation


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_tool_that_stops_listening_does_not_stop_the_run(tmp_path, monkeypatch):
    told = []

    class Deaf:
        def __init__(self, path):
            pass

        def tell(self, numbers, epoch):
            told.append(epoch)
            raise ConnectionError("The server went away. It may come back.")

        def finish(self, *given):
            pytest.fail("it does not listen any more")

    monkeypatch.setattr(tracking, "_TensorBoard", Deaf)
    data = hatched(tmp_path / "stripes", 12)
    run = headstart.fit(
        data, out=tmp_path / "run", track="tensorboard", **{**CHOICES, "epochs": 2, "fine_tune": "stage5"}
    )
    assert told == [1]
    assert "--track tensorboard ended early: The server went away." in run.facts["notes"]
    assert "ended early" in (run.path / "report.html").read_text()


def test_refuses_a_tool_that_there_is_not(tmp_path):
    data = hatched(tmp_path / "stripes", 2)
    with pytest.raises(
        UnknownNameError, match=r"There is no tool to track with 'tensorbord'\. Did you mean tensorboard"
    ):
        headstart.fit(data, out=tmp_path / "run", track="tensorbord", **CHOICES)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "tensorboard.summary"), ("mlflow", "mlflow")])
def test_says_how_to_install_it(tmp_path, monkeypatch, name, module):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"--track {name} needs .* pip install 'headstart\[{name}\]'"):
        Tracker(name, tmp_path)


def test_says_where_mlflow_was_looked_for(tmp_path, mlflow):
    import mlflow as module

    module.set_tracking_uri("http://127.0.0.1:9")
    with pytest.raises(RunError, match=r"^MLflow does not answer at http://127\.0\.0\.1:9: .*MLFLOW_TRACKING_URI"):
        Tracker("mlflow", tmp_path)
