from __future__ import annotations

import csv
import dataclasses
import math
import re

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart import terminal
from headstart.errors import DataError, UnknownNameError
from headstart.learning import fine_tuning, job, tuning, verdict
from headstart.learning.held_out import HeldOut
from headstart.learning.schedule import last_course
from headstart.learning.tuning import Epoch, Tuned
from headstart.learning.verdict import Step, together
from headstart.recipe import Recipe
from headstart.reporting import runs

CHOICES = {"backbone": "MobileNet", "weights": "none", "image_size": 64, "views": "one", "epochs": 3}
"""A step of it is traced in half of MobileNetV2's time, which is most of what these tests wait for."""


def hatched(root, number):
    """Noise with faint stripes that rise to the left or to the right: a random network does not tell them at once."""
    down, along = np.mgrid[:32, :32]
    for sign, name in ((1, "left"), (-1, "right")):
        (root / name).mkdir(parents=True)
        for seed in range(number):
            random = np.random.default_rng(1000 * (sign + 1) + seed)
            stripes = np.sin((along + sign * down) * 0.9 + random.uniform(0, 6))[..., None]
            noise = random.normal(0, 170, (32, 32, 3))
            Image.fromarray((128 + 40 * stripes + noise).clip(0, 255).astype(np.uint8)).save(
                root / name / f"{seed}.png"
            )
    return root


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    return hatched(tmp_path_factory.mktemp("hatched") / "stripes", 30)


@pytest.fixture
def few_can_judge(monkeypatch):
    monkeypatch.setattr(job, "FEWEST_JUDGES", 1)


@pytest.fixture
def anything_helps(monkeypatch, few_can_judge):
    """The best epoch is taken though it be worse than the start, and the step is kept."""
    monkeypatch.setattr(verdict, "LEAST_CONFIDENCE", 1e-12)
    begin = tuning._Course.__init__
    monkeypatch.setattr(tuning._Course, "__init__", lambda self, *given: begin(self, *given[:-1], math.inf))


@pytest.fixture
def nothing_helps(monkeypatch, few_can_judge):
    monkeypatch.setattr(verdict, "LEAST_CONFIDENCE", 1.0)


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("first", ["stage5", "stage3", "all"])
def test_tunes_what_was_asked_for(stripes, tmp_path, anything_helps, first):
    told = []
    run = headstart.fit(stripes, out=tmp_path / "run", fine_tune=first, tell=lambda *row: told.append(row), **CHOICES)
    assert run.summary()["fine_tuned"] == first
    assert run.facts["choices"]["fine-tuned"] == (first if first == "all" else f"{first} and above")
    history = rows(run.path / "history.csv")
    phases = [(first, "1"), (first, "2"), (first, "3"), (f"{first}, validation images too", "1")]
    assert [(row["phase"], row["epoch"]) for row in history] == phases
    assert [(row.epoch, total) for row, total in told] == [(1, 3), (2, 3), (3, 3), (1, 1)]
    assert run.facts["seconds"]["fine_tune"] > 0
    assert not list(run.path.glob("*.state"))
    assert "; kept." in run.facts["head_note"]
    # What was scored is what the saved model says.
    stored = rows(run.path / "predictions.csv")
    predictions = run.classifier.predict([stripes / row["path"] for row in stored])
    for row, each in zip(stored, predictions, strict=True):
        assert each.probabilities["left"] == pytest.approx(float(row["p(left)"]), abs=1e-4)


def test_only_what_was_open_differs_from_the_frozen_network(stripes, tmp_path, anything_helps):
    choices = {**CHOICES, "backbone": "MobileNetV2"}
    frozen = headstart.fit(stripes, out=tmp_path / "frozen", **choices).classifier.model
    tuned = headstart.fit(stripes, out=tmp_path / "tuned", fine_tune="stage5", **choices).classifier.model
    changed = set()
    for one, two in zip(frozen.layers, tuned.layers, strict=True):
        assert one.name == two.name
        if any(not np.array_equal(a, b) for a, b in zip(one.get_weights(), two.get_weights(), strict=True)):
            changed.add(one.name)
    changed.remove("probabilities")
    assert changed
    assert all(re.fullmatch(r"block_1[3-6]_.*|Conv_1", name) for name in changed), changed
    assert not any(name.lower().endswith("bn") for name in changed)


def test_where_nothing_helps_the_run_is_the_frozen_one(stripes, tmp_path, nothing_helps):
    frozen = headstart.fit(stripes, out=tmp_path / "frozen", **CHOICES)
    run = headstart.fit(stripes, out=tmp_path / "run", fine_tune="auto", **CHOICES)
    assert run.summary()["fine_tuned"] is None
    assert rows(run.path / "predictions.csv") == rows(frozen.path / "predictions.csv")
    assert "no surer gain than noise, so it was undone. The network stays frozen." in run.facts["head_note"]
    assert {row["phase"] for row in rows(run.path / "history.csv")} == {"stage5", "stage3"}
    assert run.facts["choices"]["fine-tuned"] == "no, the network is frozen"


def test_where_few_can_judge_auto_opens_nothing(stripes, tmp_path):
    frozen = headstart.fit(stripes, out=tmp_path / "frozen", **CHOICES)
    run = headstart.fit(stripes, out=tmp_path / "run", fine_tune="auto", **CHOICES)
    assert run.summary()["fine_tuned"] is None
    assert rows(run.path / "predictions.csv") == rows(frozen.path / "predictions.csv")
    num_judges = sum(row["split"] == "val" for row in rows(run.path / "split.csv"))
    assert f"not tried: by {num_judges} validation images one cannot tell" in run.facts["head_note"]
    named = headstart.fit(stripes, out=tmp_path / "named", fine_tune="stage5", **CHOICES)
    assert rows(named.path / "history.csv"), "what is asked for by name is tried"


def test_where_it_is_not_tried_classes_are_weighed_as_without_it(tmp_path):
    data = hatched(tmp_path / "uneven", 40)
    for number in range(13, 40):
        (data / "left" / f"{number}.png").unlink()
    frozen = headstart.fit(data, out=tmp_path / "frozen", **CHOICES)
    run = headstart.fit(data, out=tmp_path / "run", fine_tune="auto", **CHOICES)
    assert all("The largest class has" in each.facts["head_note"] for each in (frozen, run))
    assert rows(run.path / "predictions.csv") == rows(frozen.path / "predictions.csv")


def test_auto_opens_from_the_top_down_as_long_as_it_helps(stripes, tmp_path, anything_helps):
    run = headstart.fit(stripes, out=tmp_path / "run", fine_tune="auto", **CHOICES)
    phases = [row["phase"] for row in rows(run.path / "history.csv")]
    assert phases == ["stage5", *["stage3"] * 3, "stage3, validation images too"]  # The first is only a quick look.
    assert run.summary()["fine_tuned"] == "stage3"


def test_views_are_averaged_as_in_the_frozen_classifier(stripes, tmp_path, anything_helps):
    choices = {**CHOICES, "views": "flips", "epochs": 1}
    run = headstart.fit(stripes, out=tmp_path / "run", fine_tune="stage5", **choices)
    pixels = np.stack([np.asarray(Image.open(stripes / "left" / "0.png").resize((64, 64)))])
    model = run.classifier.model
    once, mirrored = (np.asarray(model.predict_on_batch(each)) for each in (pixels, pixels[:, :, ::-1]))
    np.testing.assert_allclose(once, mirrored, atol=1e-5)


class _Killed(BaseException):
    """As sudden as SIGKILL."""


def test_a_run_that_was_killed_ends_with_the_same_bits(stripes, tmp_path, anything_helps, monkeypatch):
    monkeypatch.setattr(tuning, "_SECONDS_BETWEEN_STATES", 0.0)
    choices = {**CHOICES, "fine_tune": "auto", "seed": 5}
    whole = headstart.fit(stripes, out=tmp_path / "whole", **choices)

    def killed_at(number):
        steps = []

        def progress(step, done, total):
            if step.startswith("Tuning "):
                steps.append(done)
                if len(steps) == number:
                    raise _Killed

        return progress

    for number in (2, 3, 4, 4):  # Each time a little further: into the next opening, and the course after it.
        with pytest.raises(_Killed):
            headstart.fit(stripes, out=tmp_path / "again", progress=killed_at(number), **choices)
        assert list((tmp_path / "again").glob("*.state"))
    assert list((tmp_path / "again").glob(".tuning-stage3-validation-images-too*.state"))
    again = headstart.fit(stripes, out=tmp_path / "again", **choices)
    for one, two in zip(whole.classifier.model.get_weights(), again.classifier.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    speeds = {"images_per_second": "", "seconds": ""}
    without_speed = [{**row, **speeds} for row in rows(whole.path / "history.csv")]
    assert [{**row, **speeds} for row in rows(again.path / "history.csv")] == without_speed


def test_what_is_kept_learns_from_the_validation_images_too(stripes, tmp_path, anything_helps, monkeypatch):
    taught = []
    follow = fine_tuning.FineTuner._follow

    def noted(self, phase, tail, lessons):
        taught.append((phase, len(lessons.train), len(lessons.val)))
        return follow(self, phase, tail, lessons)

    monkeypatch.setattr(fine_tuning.FineTuner, "_follow", noted)
    headstart.fit(stripes, out=tmp_path / "run", fine_tune="stage5", **CHOICES)
    (judged, num_train, num_val), (last, num_all, none) = taught
    assert num_val > 0
    assert (num_all, none) == (num_train + num_val, 0)
    assert last.schedule.epochs < judged.schedule.epochs
    assert last.schedule.learning_rate < judged.schedule.learning_rate


def test_a_last_course_that_goes_wrong_is_undone(stripes, tmp_path, anything_helps, monkeypatch):
    choices = {**CHOICES, "fine_tune": "stage5"}
    with monkeypatch.context() as without:
        without.setattr(fine_tuning.FineTuner, "learn_from_all", lambda self, step: "")
        before = headstart.fit(stripes, out=tmp_path / "before", **choices).classifier.model.get_weights()
    monkeypatch.setattr(fine_tuning, "last_course", lambda whole, rate: last_course(whole, 1e4))
    run = headstart.fit(stripes, out=tmp_path / "run", **choices)
    assert "Learning from the validation images too went wrong, so that was undone." in run.facts["head_note"]
    for one, two in zip(before, run.classifier.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_verdict_is_on_paired_images():
    random = np.random.default_rng(0)
    hard = random.exponential(1.0, 200)
    before = HeldOut(hard, hard < 0.7)

    def step(gain, spread):
        after = HeldOut(hard - random.normal(gain, spread, 200), hard < 0.7)
        return Step("stage5", Tuned(before, after, (), "", 1), before, after, after)

    assert step(0.05, 0.1).is_kept  # Small beside what is hard about an image, but the same for each.
    assert not step(0.0, 0.1).is_kept
    assert not step(-0.05, 0.1).is_kept
    assert not step(0.05, 2.0).is_kept


def one_image_makes_the_difference(share, weights=None):
    """A step that mends one image of 301, and multiplies what is lost on each of the others by a share."""
    random = np.random.default_rng(0)
    easy = random.exponential(0.005, 300)
    after = np.maximum(share * easy + random.normal(0, 0.002, 300), 0)
    before = HeldOut(np.append(easy, 2.5), np.append(np.ones(300, bool), False), weights=weights)
    tuned = HeldOut(np.append(after, 0.1), np.ones(301, bool))
    assert before.standard_errors_behind(tuned) < 1.5, "by the mean alone it is not sure"
    return Step("all", Tuned(before, tuned, (), "", 1), before, tuned, tuned)


@pytest.mark.parametrize(("share", "kept"), [(0.5, True), (1.0, False), (1.5, False)])
def test_where_one_image_makes_the_difference_the_others_are_asked(share, kept):
    assert one_image_makes_the_difference(share).is_kept == kept


def test_where_images_weigh_otherwise_ranks_are_not_asked():
    assert not one_image_makes_the_difference(0.5, np.ones(301)).is_kept


def test_many_small_gains_do_not_outvote_a_few_losses():
    random = np.random.default_rng(2)
    kept = 0
    for _ in range(1000):
        gains = random.normal(0.01, 0.003, 300)
        gains[random.random(300) < 0.01] = -1.49  # On the whole it is worse.
        before, after = HeldOut(np.full(300, 2.0), np.ones(300, bool)), HeldOut(2 - gains, np.ones(300, bool))
        kept += Step("all", Tuned(before, after, (), "", 1), before, after, after).is_kept
    assert kept < 80


@pytest.mark.parametrize("num_images", [1, 2, 3, 5, 100])
def test_noise_is_rarely_kept(num_images):
    random = np.random.default_rng(1)
    kept = 0
    for _ in range(1000):
        hard = random.exponential(1.0, num_images)
        before, after = (HeldOut(hard + random.normal(0, 0.1, num_images), hard < 1) for _ in range(2))
        both = HeldOut((before.losses + after.losses) / 2, hard < 1)  # Half as far from what there was.
        kept += Step("all", Tuned(before, after, (), "", 1), before, after, both).is_kept
    assert kept < 80


def said(right, sure, seed=0):
    """What is said of 200 images of two classes: logits that err by as much as the seed has it."""
    random = np.random.default_rng(seed)
    labels = np.arange(200) % 2
    logits = random.normal(0, right, (200, 2))
    logits[np.arange(200), labels] += sure
    return HeldOut.of(logits, labels)


def test_with_the_frozen_network_where_both_together_are_surely_better():
    labels = np.arange(200) % 2
    frozen, tuned = said(1.5, 2.0, seed=0), said(1.5, 2.0, seed=1)
    step = Step("all", Tuned(frozen, tuned, (), "", 1), frozen, tuned, together(frozen, tuned, labels))
    assert step.together.loss < min(frozen.loss, tuned.loss)
    assert step.is_with_frozen
    assert step.is_kept
    assert step.after is step.together
    assert step.sentence().startswith("Tuning the whole network, together with the frozen network: log loss ")
    better = said(0.3, 4.0, seed=2)
    step = Step("all", Tuned(frozen, better, (), "", 1), frozen, better, together(frozen, better, labels))
    assert not step.is_with_frozen
    assert step.after is better
    assert step.sentence().startswith("Tuning the whole network: log loss ")


def test_with_the_frozen_network_where_alone_it_is_no_sure_gain():
    random = np.random.default_rng(0)
    hard = random.exponential(1.0, 200)
    before = HeldOut(hard, hard < 0.7)
    gain = random.normal(0.1, 1.0, 200)
    alone, both = HeldOut(hard - gain, hard < 0.7), HeldOut(hard - gain / 5 - 0.04, hard < 0.7)
    step = Step("all", Tuned(before, alone, (), "", 1), before, alone, both)
    assert not step._is_gain(alone, verdict.LEAST_CONFIDENCE)
    assert step.is_with_frozen
    assert step.is_kept


def test_what_is_not_sure_enough_is_judged_by_what_it_tells_apart():
    labels = np.arange(200) % 2
    good = said(1.5, 3.0)
    shy = HeldOut.of(0.6 * good.logs, labels)
    assert shy.loss > good.loss + 0.03
    assert shy.sharpened(labels).loss == pytest.approx(good.sharpened(labels).loss, abs=2e-3)
    assert shy.sharpened(labels).sharpness == pytest.approx(good.sharpened(labels).sharpness / 0.6, rel=0.1)
    np.testing.assert_array_equal(shy.sharpened(labels).right, good.right)
    few = HeldOut.of(good.logs[:3], labels[:3]).sharpened(labels[:3])
    assert 0.6 < few.sharpness < 1.7, "three images say little of it"
    assert HeldOut.nothing().sharpened(labels[:0]).sharpness == 1


def test_together_the_saved_model_says_what_was_scored(stripes, tmp_path, anything_helps, monkeypatch):
    monkeypatch.setattr(verdict, "LEAST_WITH_FROZEN", -np.inf)
    choices = {**CHOICES, "views": "many", "epochs": 1}  # The frozen part at two scales, the tuned at one.
    run = headstart.fit(stripes, out=tmp_path / "run", fine_tune="stage5", **choices)
    assert "together with the frozen network" in run.facts["head_note"]
    assert "at two scales" in run.facts["choices"]["views"]
    stored = rows(run.path / "predictions.csv")
    predictions = run.classifier.predict([stripes / row["path"] for row in stored])
    for row, each in zip(stored, predictions, strict=True):
        assert each.probabilities["left"] == pytest.approx(float(row["p(left)"]), abs=1e-4)
    names = [layer.name for layer in run.classifier.model.layers]
    assert {"classifier_1", "classifier_2", "mean_of_logits", "sharpness", "probabilities"} <= set(names)


def test_classes_count_alike_where_that_is_asked_for(stripes, tmp_path, anything_helps):
    choices = {**CHOICES, "class_weights": "balanced", "fine_tune": "stage5"}
    run = headstart.fit(stripes, out=tmp_path / "run", **choices)
    assert "Each class counted alike" in run.facts["head_note"]
    assert run.summary()["fine_tuned"] == "stage5"


def test_a_learning_rate_is_found_and_drawn(stripes, tmp_path, nothing_helps):
    run = headstart.fit(stripes, out=tmp_path / "run", fine_tune="stage5", lr="auto", optimizer="sgd", **CHOICES)
    found = rows(run.path / "learning_rate.csv")
    assert {row["phase"] for row in found} == {"stage5"}
    html = (run.path / "report.html").read_text()
    assert "Learning rates for stage5 and above" in html
    assert "Training stage5 and above" in html
    again = headstart.report(run.path)
    assert len(again[1].charts) == 2


# --- what is refused --------------------------------------------------------------------------------------------------


def test_refuses_what_makes_no_sense():
    with pytest.raises(UnknownNameError, match=r"There is no way to fine-tune 'atuo'\. Did you mean auto"):
        Recipe(fine_tune="atuo")
    with pytest.raises(DataError, match=r"^--fine-tune all starts from a head that is fitted at once; got --head mlp"):
        Recipe(fine_tune="all", head="mlp")
    assert Recipe(fine_tune="stage4").to_json()["fine_tune"] == "stage4"


def test_names_the_stages_that_there_are(stripes, tmp_path):
    steps = []
    with pytest.raises(UnknownNameError, match=r"There is no stage 'stage7'\. Did you mean stage"):
        headstart.fit(
            stripes, out=tmp_path / "run", fine_tune="stage7", progress=lambda step, *_: steps.append(step), **CHOICES
        )
    assert not any("features" in step for step in steps), "nothing is computed for a name that is wrong"
    assert not (tmp_path / "run" / runs.MANIFEST_FILE).exists()


def test_a_line_for_each_epoch(capsys):
    row = Epoch("stage5", 3, 0.2104, 0.3012, 0.8812, 0.0001, 91.7, 30.0)
    terminal.show_epoch(row, 8)
    terminal.show_epoch(dataclasses.replace(row, epoch=8, val_loss=math.nan, val_accuracy=math.nan), 8)
    assert capsys.readouterr().err.splitlines() == [
        "Tuning stage5, epoch 3 of 8: loss 0.210, validation loss 0.301, 88.1% right, learning rate 1.0e-04, 92 images/s, 150 s left",
        "Tuning stage5, epoch 8 of 8: loss 0.210, learning rate 1.0e-04, 92 images/s",
    ]
