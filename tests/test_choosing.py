"""Choosing size and views: what helps is taken, what only looks as if it did is not."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.features.pooling import POOLED_TWICE
from headstart.learning.choosing import Candidate, choose_candidate
from headstart.learning.logistic import fit_linear_head
from headstart.networks.backbone import AS_IS, FLIPS

SIZES = (64, 128)
MANY = Candidate(64, FLIPS, POOLED_TWICE)
NUM_IMAGES, NUM_CLASSES, WIDTH = 120, 3, 12

LABELS = np.arange(NUM_IMAGES) % NUM_CLASSES


def features(signal, seed, num_views=1):
    """(n, num_views, d): classes ``signal`` apart in noise; views differ in their noise, so that averaging helps."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(NUM_IMAGES, num_views, WIDTH))
    rows[np.arange(NUM_IMAGES), :, LABELS] += signal
    return rows.astype(np.float32)


def choose(by_candidate, views="auto", labels=LABELS, sizes=SIZES, stages=()):
    """The choice, and the candidates whose features were asked for."""
    asked = []

    def fit(candidate, count):
        asked.append((candidate, count))
        rows = by_candidate(candidate)[: len(labels)][:count]
        return fit_linear_head(rows, labels[:count], NUM_CLASSES, np.arange(len(rows)), seed=0)

    return choose_candidate(sizes, views, fit, stages=stages), asked


def test_the_larger_size_is_taken_where_it_helps():
    choice, asked = choose(lambda each: features(4.0 if each.image_size == 128 else 0.7, 1))
    assert choice.candidate == Candidate(128, AS_IS)
    both = [(Candidate(64, AS_IS), 320), (Candidate(128, AS_IS), 320)]
    assert asked == both, "both steps up would cost twelve times as much"
    assert choice.sentence.startswith(
        "128 px chosen by cross-validated log loss on training images (accuracy on 120: 64 px "
    )
    assert ", 128 px " in choice.sentence


def test_mirrored_views_are_taken_where_they_help():
    choice, asked = choose(lambda each: features(1.2, 2, 4 if each.views == FLIPS else 1))
    assert choice.candidate == MANY
    sizes = [(Candidate(64, AS_IS), 320), (Candidate(128, AS_IS), 320)]
    assert asked == [*sizes, (Candidate(64, AS_IS), 640), (MANY, 640)]
    assert choice.sentence.startswith("64 px with mirrored views at two scales chosen by cross-validated log loss")


@pytest.mark.parametrize("seed", range(5))
def test_the_plainest_way_is_kept_where_there_is_only_noise(seed):
    """Features that say nothing, equally little at either size."""
    choice, _ = choose(lambda _: features(0.0, seed), views="one")
    assert choice.candidate == Candidate(64, AS_IS)


def test_a_gain_that_may_be_noise_does_not_pay_for_a_larger_size():
    """As good on most images and better on three: less than one standard error."""
    plain = features(2.0, 3)
    other = plain.copy()
    other[:3] = features(2.0, 30)[:3]
    choice, _ = choose(lambda each: other if each.image_size == 128 else plain, views="one")
    assert choice.candidate == Candidate(64, AS_IS)


def test_the_plainest_way_is_kept_where_the_others_are_worse():
    choice, _ = choose(lambda each: features(3.0 if each == Candidate(64, AS_IS) else 0.2, 4))
    assert choice.candidate == Candidate(64, AS_IS)


def test_one_view_means_one_view():
    choice, asked = choose(lambda _: features(1.5, 5), views="one")
    assert all(each.views == AS_IS for each, _ in asked)
    assert choice.candidate.views == AS_IS


def test_views_that_were_asked_for_are_used_at_every_size():
    choice, asked = choose(
        lambda each: features(4.0 if each.image_size == 128 else 0.5, 6, len(each.views)), views="flips"
    )
    assert asked == [(Candidate(64, FLIPS), 320), (Candidate(128, FLIPS), 320)]
    assert choice.candidate == Candidate(128, FLIPS)


def test_no_candidate_is_computed_twice():
    _, asked = choose(lambda each: features(1.0, 7, len(each.views)))
    assert len(asked) == len(set(asked))


def test_a_single_size_still_tries_the_views():
    choice, asked = choose(lambda each: features(1.2, 2, 4 if each.views == FLIPS else 1), sizes=(64,))
    assert asked == [(Candidate(64, AS_IS), 640), (MANY, 640)]
    assert choice.candidate == MANY


def test_too_few_images_keep_the_plainest_way_and_say_so():
    choice, _ = choose(lambda each: features(1.0, 8, len(each.views)), labels=LABELS[:3])
    assert choice.candidate == Candidate(64, AS_IS)
    assert choice.sentence == "There are too few images to try other sizes, views or stages."


def test_a_candidate_reads_as_a_person_would_say_it():
    assert str(Candidate(224, AS_IS)) == "224 px"
    assert str(Candidate(384, FLIPS)) == "384 px with mirrored views"
    assert str(MANY) == "64 px with mirrored views at two scales"


def test_many_views_can_be_asked_for_and_are_flips_where_there_is_one_scale():
    _, asked = choose(lambda each: features(1.0, 7, len(each.views)), views="many")
    assert {each for each, _ in asked} == {MANY, MANY.at(128)}
    choice = choose_candidate((64,), "many", lambda *_: None, two_scales=False)
    assert choice.candidate == Candidate(64, FLIPS)


# --- a stage less -----------------------------------------------------------------------------------------------------

STAGES = ("stage1", "stage2", "stage3")


def test_a_stage_that_only_disturbs_is_left_out():
    choice, asked = choose(lambda each: features(3.0 if each.without == "stage3" else 1.0, 1), stages=STAGES)
    assert choice.candidate == Candidate(64, AS_IS, without="stage3")
    assert [each.without for each, _ in asked[-2:]] == ["stage1", "stage3"]
    assert {count for _, count in asked[-2:]} == {640}, "on the images that the views were tried on"
    assert choice.sentence.startswith("64 px without stage3 chosen by cross-validated log loss")


def test_all_stages_are_heard_where_it_may_be_noise():
    """Better by less than two standard errors on every image; two more are tried, so one is not enough."""
    plain = features(2.0, 3)
    other = plain.copy()
    other[:9] = features(2.3, 30)[:9]
    choice, _ = choose(lambda each: other if each.without else plain, views="one", stages=STAGES)
    assert choice.candidate.without == ""


def test_a_stage_is_left_out_of_the_way_of_seeing_that_was_chosen():
    choice, asked = choose(
        lambda each: features((4.0 if each.image_size == 128 else 0.7) + 2 * (each.without == "stage1"), 1),
        stages=STAGES,
    )
    assert choice.candidate == Candidate(128, AS_IS, without="stage1")
    assert asked[-2:] == [(Candidate(128, AS_IS, without=name), 320) for name in ("stage1", "stage3")]


def test_two_stages_are_too_few_to_leave_one_out():
    _, asked = choose(lambda each: features(1.0, 7, len(each.views)), stages=STAGES[:2])
    assert not any(each.without for each, _ in asked)


def test_with_size_and_views_given_the_stages_are_tried_on_their_own():
    choice, asked = choose(
        lambda each: features(4.0 if each.without == "stage1" else 0.7, 1), "one", sizes=(64,), stages=STAGES
    )
    assert [each.without for each, _ in asked] == ["stage1", "stage3", ""]
    assert choice.candidate.without == "stage1"
