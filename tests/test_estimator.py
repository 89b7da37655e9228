"""The estimator keeps scikit-learn's rules, works in its tools, and says what the Keras model says."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.errors import DataError, UnknownNameError
from headstart.features.pooling import POOLED, POOLED_TWICE
from headstart.learning import seeing
from headstart.learning.choosing import choose_candidate
from headstart.pictures.decode import decode, read

sklearn = pytest.importorskip("sklearn")
from sklearn.base import clone  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer  # noqa: E402
from sklearn.utils import estimator_checks  # noqa: E402

from headstart import FeatureExtractor, HeadstartClassifier  # noqa: E402

SIZE = 33


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """30 noisy pictures, dark, middling and bright, and their classes."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    paths, classes = [], []
    for number in range(30):
        level = (40, 128, 215)[number % 3]
        pixels = np.clip(random.normal(level, 25, (24, 24, 3)), 0, 255).astype(np.uint8)
        paths.append(str(folder / f"{number}.png"))
        Image.fromarray(pixels).save(paths[-1])
        classes.append(("dark", "middling", "bright")[number % 3])
    return np.array(paths), np.array(classes)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path_factory.getbasetemp() / "estimator-cache"))


def classifier(**more):
    return HeadstartClassifier(**{"weights": "none", "image_size": SIZE, "views": "one", **more})


@pytest.fixture(scope="module")
def fitted(pictures, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(tmp_path_factory.getbasetemp() / "estimator-cache"))
        return classifier().fit(*pictures)


RULES = [
    estimator_checks.check_estimator_cloneable,
    estimator_checks.check_estimator_tags_renamed,
    estimator_checks.check_valid_tag_types,
    estimator_checks.check_estimator_repr,
    estimator_checks.check_no_attributes_set_in_init,
    estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
    estimator_checks.check_mixin_order,
    estimator_checks.check_parameters_default_constructible,
    estimator_checks.check_get_params_invariance,
    estimator_checks.check_set_params,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_keeps_the_rules_that_need_no_table_of_numbers(rule):
    """Each raises where its rule is broken. The other checks feed numbers; an estimator of paths is not asked those."""
    rule("HeadstartClassifier", classifier())


def test_a_broken_rule_is_seen():
    class Hasty(HeadstartClassifier):
        def __init__(self, backbone="MobileNetV2"):
            super().__init__(backbone)
            self.computed_too_early = 1

    with pytest.raises(AssertionError, match="computed_too_early"):
        estimator_checks.check_no_attributes_set_in_init("Hasty", Hasty())


def test_check_estimator_finds_no_fault():
    with pytest.warns(sklearn.exceptions.SkipTestWarning, match="Can't test estimator"):
        estimator_checks.check_estimator(classifier())


def test_learns_what_can_be_seen(fitted, pictures):
    paths, classes = pictures
    assert fitted.classes_.tolist() == ["bright", "dark", "middling"]
    assert fitted.score(paths, classes) == 1.0
    probabilities = fitted.predict_proba(paths)
    assert probabilities.shape == (30, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-9)
    assert (fitted.classes_[probabilities.argmax(axis=1)] == fitted.predict(paths)).all()


def test_the_keras_model_gives_the_same_answers(fitted, pictures):
    pixels = np.stack([decode(read(path), (SIZE, SIZE)) for path in pictures[0][:5]])
    model = fitted.model_
    np.testing.assert_allclose(
        np.asarray(model.predict(pixels, verbose=0)), fitted.predict_proba(pictures[0][:5]), atol=1e-4
    )
    assert type(model).__module__.startswith("keras")


def test_an_indicator_matrix_is_answered_with_one(pictures):
    paths, classes = pictures
    y = np.column_stack([classes == "bright", classes != "dark", np.zeros(30)]).astype(int)
    found = classifier().fit(paths, y)
    assert found.classes_.tolist() == [0, 1, 2]
    probabilities = found.predict_proba(paths)
    assert probabilities.shape == (30, 3)
    assert (found.predict(paths) == (probabilities >= 0.5)).all()
    assert found.score(paths, y) == 1.0
    pixels = np.stack([decode(read(path), (SIZE, SIZE)) for path in paths[:4]])
    np.testing.assert_allclose(found.model_.predict(pixels, verbose=0), probabilities[:4], atol=1e-4)
    assert cross_val_score(classifier(), paths, y, cv=3).mean() > 0.8
    assert found.predict([]).shape == (0, 3)


def test_a_matrix_that_is_no_indicator(pictures):
    paths, _ = pictures
    with pytest.raises(
        DataError, match=r"Expected classes \(n,\), or \(n, k\) of 0 and 1 alone; got \(30, 2\), which is "
    ):
        classifier().fit(paths, (np.arange(60) % 5).reshape(30, 2))


def test_fitting_again_changes_nothing_and_parameters_stay(fitted, pictures):
    again = classifier()
    before = again.get_params()
    assert again.fit(*pictures) is again
    assert again.get_params() == before
    np.testing.assert_array_equal(again.predict_proba(pictures[0]), fitted.predict_proba(pictures[0]))


def test_what_is_not_fitted_says_so(pictures):
    for ask in (lambda each: each.predict(pictures[0]), lambda each: each.model_):
        with pytest.raises(NotFittedError):
            ask(classifier())
        with pytest.raises(NotFittedError):
            ask(clone(classifier().fit(*pictures)))


def test_cross_validation_computes_each_image_once(pictures, monkeypatch):
    from headstart.features.extract import Extractor

    passes = []
    extract = Extractor.extract

    def counted(*arguments, **more):
        features = extract(*arguments, **more)
        passes.append(features.num_passes)
        return features

    monkeypatch.setattr(Extractor, "extract", counted)
    scores = cross_val_score(classifier(seed=5), *pictures, cv=3)
    assert scores.tolist() == [1.0, 1.0, 1.0]
    assert sum(passes) == 30


def test_works_in_a_pipeline_and_in_a_search(pictures):
    paths, classes = pictures
    column = paths[:, None]  # As it comes out of a table.
    pipeline = make_pipeline(FunctionTransformer(), classifier()).fit(column, classes)
    assert pipeline.score(column, classes) == 1.0
    search = GridSearchCV(classifier(), {"views": ["one", "flips"]}, cv=2).fit(paths, classes)
    assert search.best_score_ == 1.0


def test_survives_pickling_with_the_network_it_was_fitted_on(fitted, pictures):
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copy.predict_proba(pictures[0]), fitted.predict_proba(pictures[0]))
    copy.set_params(backbone="VGG16")
    np.testing.assert_array_equal(copy.predict_proba(pictures[0][:3]), fitted.predict_proba(pictures[0][:3]))
    assert len(pickle.dumps(fitted)) < 1_000_000


def test_classes_may_be_numbers(pictures):
    numbers = np.arange(30) % 3 * 10
    assert set(classifier().fit(pictures[0], numbers).predict(pictures[0])) == {0, 10, 20}


def test_size_and_views_are_chosen_where_none_are_given(pictures):
    found = HeadstartClassifier(weights="none", image_size=SIZE).fit(*pictures)
    assert found.image_size_ == SIZE
    assert found.views_ in {("as_is",), ("as_is", "mirrored", "upside_down", "turned")}


def test_one_path_given_twice_is_one_image_in_the_folds(pictures):
    paths, classes = pictures
    twice = np.concatenate([paths, paths])
    assert classifier().fit(twice, np.concatenate([classes, classes])).score(paths, classes) == 1.0
    assert classifier().fit(*pictures).predict([]).shape == (0,)


def test_what_cannot_be_used_is_named(pictures, fitted, tmp_path):
    paths, classes = pictures
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    cut = tmp_path / "cut.png"
    cut.write_bytes(Path(paths[0]).read_bytes()[:-60])
    with pytest.raises(DataError, match=r"broken\.png cannot be used"):
        classifier().fit([*paths, broken], [*classes, "dark"])
    with pytest.raises(DataError, match=r"cut\.png cannot be used"):
        fitted.predict([cut])
    with pytest.raises(DataError, match=r"missing\.png cannot be used"):
        fitted.predict(["missing.png"])
    with pytest.raises(DataError, match="the single path"):
        fitted.predict(paths[0].item())
    with pytest.raises(DataError, match=r"an array of the shape \(2, 3\)"):
        fitted.predict(np.zeros((2, 3)))
    with pytest.raises(DataError, match="30 paths, but the classes have the shape"):
        classifier().fit(paths, classes[:4])
    with pytest.raises(DataError, match="one class only"):
        classifier().fit(paths, ["dark"] * 30)
    with pytest.raises(UnknownNameError, match="Did you mean MobileNetV2"):
        classifier(backbone="MobilNetV2").fit(*pictures)
    with pytest.raises(ValueError, match="Unknown label type"):
        classifier().fit(paths, np.linspace(0, 1, 30))


def test_scikit_learn_is_an_extra(monkeypatch):
    import importlib
    import sys

    from headstart.errors import MissingExtraError
    from headstart.learning import estimator

    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'headstart\[sklearn\]'"):
        importlib.reload(estimator)


@pytest.mark.parametrize(("most", "output"), [(30, POOLED_TWICE), (29, POOLED)])
def test_two_scales_are_for_so_many_images_as_memory_holds(pictures, monkeypatch, most, output):
    asked = []

    def spy(sizes, views, fit, *, two_scales, stages):
        asked.append(two_scales)
        return choose_candidate(sizes, "many", fit, two_scales=two_scales)

    monkeypatch.setattr(seeing, "choose_candidate", spy)
    monkeypatch.setattr(seeing, "_MOST_AT_TWO_SCALES", most)
    found = classifier(image_size=65, views="auto").fit(*pictures)
    assert asked == [output == POOLED_TWICE]
    assert found._candidate.output == output


def transformer(**more):
    return FeatureExtractor(**{"weights": "none", "image_size": SIZE, **more})


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_transformer_keeps_the_same_rules(rule):
    rule("FeatureExtractor", transformer())


def test_the_transformer_gives_a_row_of_features_for_each_image(pictures):
    rows = transformer().fit_transform(pictures[0][:7])
    assert rows.shape == (7, 4576)
    assert rows.dtype == np.float32
    assert transformer().transform([]).shape == (0, 4576)
    np.testing.assert_array_equal(transformer().transform(pictures[0][:7][::-1]), rows[::-1])


def test_pixels_give_what_their_files_give(pictures):
    pixels = np.stack([np.asarray(Image.open(path)) for path in pictures[0][:5]])
    np.testing.assert_array_equal(transformer().transform(pixels), transformer().transform(pictures[0][:5]))


@pytest.mark.parametrize("wrong", [np.zeros((2, 8, 8, 3)), np.zeros((2, 8, 8, 1), np.uint8)])
def test_other_pixels_are_refused(wrong):
    with pytest.raises(DataError, match=r"Expected pixels \(n, h, w, 3\) of uint8"):
        transformer().transform(wrong)


def test_a_head_of_ones_own_in_a_pipeline(pictures):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(transformer(views="flips"), StandardScaler(), LogisticRegression())
    assert cross_val_score(pipeline, *pictures, cv=3).mean() > 0.9


@pytest.mark.parametrize(
    ("wrong", "error"), [({"views": "auto"}, DataError), ({"backbone": "MobilNet"}, UnknownNameError)]
)
def test_wrong_parameters_of_the_transformer_are_refused(pictures, wrong, error):
    with pytest.raises(error):
        transformer(**wrong).fit(pictures[0])


def test_classes_can_count_alike(pictures):
    paths, classes = pictures
    kept = np.concatenate([np.flatnonzero(classes == "dark"), np.flatnonzero(classes == "bright")[:3]])
    off, balanced = (classifier(class_weights=each).fit(paths[kept], classes[kept]) for each in ("off", "balanced"))
    rare = [list(each.classes_).index("bright") for each in (off, balanced)]
    middling = paths[classes == "middling"]
    said = [each.predict_proba(middling)[:, place].mean() for each, place in zip((off, balanced), rare, strict=True)]
    assert said[1] > said[0]
    with pytest.raises(UnknownNameError, match="no way to weigh classes 'on'"):
        classifier(class_weights="on").fit(*pictures)
