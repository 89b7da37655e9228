import json
import shutil

import pytest

from headstart.errors import RunError
from headstart.reporting import runs
from headstart.reporting.content import draw_report, report_content
from headstart.workflow import load
from journey import finished


@pytest.fixture(scope="module")
def run():
    return load(finished().run)


def test_content_is_what_the_files_say(run):
    content = report_content(run.path, run.facts, run.evaluation)
    assert content.title == "photos"
    assert content.evaluation == run.evaluation
    assert {split: sum(counts) for split, counts in content.counts.items()} == {"train": 24, "val": 6, "test": 6}
    assert content.weights.source == "random (none)"
    assert [each.name for each in content.skipped] == ["red/broken.png"]
    assert dict(content.recipe)["image size"] == "64 px"
    assert "of 6 test" not in content.self_check
    assert "least certain (4)" in content.self_check


def copy_with_mistake(run, tmp_path, name):
    """The run with its first test picture called something else and answered wrong."""
    path = shutil.copytree(run.path, tmp_path / "run")
    rows = runs.read_table(path / "predictions.csv")
    wrong = next(each for each in run.evaluation.class_names if each != rows[0]["label"])
    rows[0] = {**rows[0], "path": name or rows[0]["path"], "predicted": wrong, "probability": "0.99"}
    runs.write_table(path / "predictions.csv", list(rows[0]), [list(row.values()) for row in rows])
    return path, rows[0]


def test_mistakes_come_with_the_picture(run, tmp_path):
    path, row = copy_with_mistake(run, tmp_path, None)
    first = report_content(path, run.facts, run.evaluation).mistakes[0]
    assert (first.name, first.true_label, first.predicted_label) == (row["path"], row["label"], row["predicted"])
    assert first.thumbnail_jpeg.startswith(b"\xff\xd8")


@pytest.mark.parametrize("name", ["gone.png", "red/broken.png", "../../etc", "nul\0.png"])
def test_picture_that_cannot_be_read_any_more_is_left_out(run, tmp_path, name):
    path, row = copy_with_mistake(run, tmp_path, name)
    first = report_content(path, run.facts, run.evaluation).mistakes[0]
    assert (first.name, first.thumbnail_jpeg) == (row["path"], None)


def test_report_and_card_are_written(run, tmp_path):
    path = shutil.copytree(run.path, tmp_path / "run")
    for name in ("report.html", "README.md"):
        (path / name).unlink()
    draw_report(path, run.facts, run.evaluation)
    assert (path / "report.html").read_text(encoding="utf-8") == (run.path / "report.html").read_text(encoding="utf-8")
    assert (path / "README.md").read_text(encoding="utf-8").startswith("---\n")


@pytest.mark.parametrize("key", ["title", "choices", "weights", "skipped", "notes", "root", "seconds", "versions"])
def test_facts_that_lack_something_are_a_run_error(run, key):
    facts = {name: value for name, value in run.facts.items() if name != key}
    with pytest.raises(RunError, match="is damaged"):
        report_content(run.path, facts, run.evaluation)


@pytest.mark.parametrize(("key", "value"), [("choices", []), ("weights", 3), ("skipped", [{}]), ("root", None)])
def test_facts_of_a_wrong_kind_are_a_run_error(run, key, value):
    with pytest.raises(RunError, match="is damaged"):
        report_content(run.path, {**run.facts, key: value}, run.evaluation)


def test_table_without_its_columns_is_a_run_error(run, tmp_path):
    path = shutil.copytree(run.path, tmp_path / "run")
    (path / "predictions.csv").write_text("something\nelse\n")
    with pytest.raises(RunError, match="is damaged"):
        report_content(path, run.facts, run.evaluation)


def test_facts_are_plain_json(run):
    assert json.loads(json.dumps(run.facts)) == run.facts
