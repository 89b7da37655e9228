"""Split images -> trained classifier: choose how to see, compute features, fit the head."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from headstart.errors import DataError
from headstart.features.extract import Features
from headstart.features.pooling import POOLED, POOLED_TWICE, at_one_scale
from headstart.learning.choosing import Candidate
from headstart.learning.class_weights import ClassWeights
from headstart.learning.fine_tuning import RESTRAINT, Frozen, fine_tune
from headstart.learning.heads import (
    SMALLEST_PROBABILITY,
    LabelledFeatures,
    fit_flatten_head,
    fit_mlp_head,
    grow_flatten_head,
    grow_linear_head,
    grow_mlp_head,
)
from headstart.learning.held_out import HeldOut
from headstart.learning.job import FEWEST_JUDGES, Fitted, Job
from headstart.learning.kept_models import identity_of
from headstart.learning.logistic import FREE, LinearHead, Restraint
from headstart.learning.pairing import Alone, Joined, join
from headstart.learning.seeing import Clock, Eyes, choose_how_to_see
from headstart.learning.trained import Trained
from headstart.learning.tuning import Diary
from headstart.networks.backend import backend_name, keras
from headstart.networks.engine import engine_name
from headstart.networks.freezing import cut_below
from headstart.networks.rows import BackboneSpec
from headstart.networks.weights import find_weights
from headstart.pictures.folder import ImageFolder
from headstart.progress import Progress
from headstart.recipe import Recipe

_NAMES = {"linear": ("Logistic regression", "strength"), "nearest": ("Nearest class mean", "sharpness")}


def train(
    folder: ImageFolder,
    splits: Sequence[str],
    specs: Sequence[BackboneSpec],
    recipe: Recipe,
    clock: Clock,
    progress: Progress,
    diary: Diary,
) -> Trained:
    """Train a classifier on the images of "train" and "val", and ask it about those of "test".

    A linear head needs no validation images, since its one number is cross-validated: it learns from them too.

    Args:
        folder: the images.
        splits: of each of them.
        specs: the network; and another that may see with it.
        recipe: what was asked for.
        clock: counts the seconds of each step.
        progress: told how far it is.
        diary: of fine-tuning.
    """
    weights = [find_weights(spec, recipe.weights, progress=progress) for spec in specs]
    eyes, *partners = (
        Eyes(spec, found, recipe.seed, clock, progress) for spec, found in zip(specs, weights, strict=True)
    )
    if recipe.fine_tune not in ("off", "auto"):  # A wrong name is said before anything is computed.
        cut_below(eyes.plan(eyes.sizes(recipe)[0]).stages, recipe.fine_tune)
    with clock.measures("head"):
        pool = [image for image, split in zip(folder.images, splits, strict=True) if split != "test"]
        choice = choose_how_to_see(pool, folder.class_names, eyes, recipe)
        features = eyes.look(folder.images, choice.candidate)
        folder, splits = _drop_failures(folder, splits, features)
        job = Job(folder, tuple(splits), recipe, choice.candidate)
        progress("Fitting the head", 0, 1)
        fit = _fit_in_epochs if recipe.head in {"flatten", "mlp"} else _fit_at_once
        fitted = fit(job, eyes, features.values)
        progress("Fitting the head", 1, 1)
        if job.is_tuned:
            with clock.measures("fine_tune"):
                fitted = _tuned(job, eyes, features.values, fitted, diary)
        elif recipe.fine_tune != "off":
            fitted = dataclasses.replace(fitted, note=f"{fitted.note} {_why_not_tuned(job)}")
        joined = join(job, eyes, partners, Alone(fitted, choice.sentence))
    return _trained(job, joined, eyes, partners)


def _trained(job: Job, joined: Joined, eyes: Eyes, partners: Sequence[Eyes]) -> Trained:
    """What came of it, and what is to be said of it."""
    fitted, images = joined.fitted, job.folder.images
    return Trained(
        grow=fitted.grow,
        identity=fitted.identity,
        folder=job.folder,
        splits=job.splits,
        test_images=tuple(image for image, mine in zip(images, job.is_in("test"), strict=True) if mine),
        test_probabilities=fitted.test_probabilities,
        candidate=fitted.candidate or joined.candidate,
        spec_name=eyes.spec.name,
        weights=_weights_facts(eyes),
        networks=tuple(_network_facts(each) for each in joined.sees),
        fingerprint=eyes.fingerprint,
        feature_counts=eyes.counts(images, *partners),
        history=fitted.history,
        rate_steps=fitted.rate_steps,
        head_note=joined.note,
        fine_tuned=fitted.fine_tuned,
        notes=_notes(joined.sees, job.recipe, joined.candidate),
        backend=f"{backend_name()}, features by {engine_name()}",
    )


def _drop_failures(
    folder: ImageFolder, splits: Sequence[str], features: Features
) -> tuple[ImageFolder, tuple[str, ...]]:
    """Leave out what could not be decoded, and see that every class still has images to learn from and to test."""
    failed = {each.name for each in features.failures}
    kept = tuple(split for image, split in zip(folder.images, splits, strict=True) if image.name not in failed)
    folder = folder.without(features.failures)
    for side, words in (("train", "training"), ("test", "test")):
        there = {
            name for image, split in zip(folder.images, kept, strict=True) if split == side for name in image.labels
        }
        for label in folder.class_names if side == "train" else ():
            if label not in there:
                raise DataError(
                    f"Class '{label}' has no {words} image left that can be decoded. {len(failed)} files could not be, "
                    f"the first is {features.failures[0].name}: {features.failures[0].reason}."
                )
        if side not in kept:
            raise DataError(f"No {words} image is left that can be decoded.")
    return folder, kept


def _fit_in_epochs(job: Job, eyes: Eyes, values: npt.NDArray[np.float32]) -> Fitted:
    """A head that Keras trains; the validation images say when to stop."""
    labels, recipe = job.labels(), job.recipe
    train, val = (LabelledFeatures(values[job.is_in(side)], labels[job.is_in(side)]) for side in ("train", "val"))
    fit, grow = (fit_flatten_head, grow_flatten_head) if recipe.head == "flatten" else (fit_mlp_head, grow_mlp_head)
    is_balanced = recipe.class_weights == "balanced"
    head = fit(
        train,
        val,
        job.num_classes,
        epochs=recipe.epochs,
        seed=recipe.seed,
        class_weights=ClassWeights.balanced(train.labels, job.num_classes) if is_balanced else None,
        progress=eyes.progress,
    )
    best = min(head.history, key=lambda row: row["val_loss"])
    note = f"Trained for {len(head.history)} epochs; the weights are those of epoch {best['epoch']}."
    backbone = eyes.plan(job.candidate.image_size).build(job.candidate.views)
    model = grow(backbone, head, job.candidate.output)
    return Fitted(lambda: model, head.probabilities(values[job.is_in("test")]), head.history, note)


def _fit_at_once(job: Job, eyes: Eyes, values: npt.NDArray[np.float32]) -> Fitted:
    """A linear head; its one number is cross-validated, so it learns from the validation images too."""
    weighed = job.weighed_head(job.lesson(values, eyes.blocks(job.candidate), "train", "val"))
    head = weighed.head
    how = job.candidate
    plan = eyes.plan(how.image_size)
    grow = functools.cache(lambda: grow_linear_head(plan.build(how.views), head, how.output))
    weights = plan.weights.source, plan.weights.sha256, plan.weights.preprocessing
    network = plan.spec.name, plan.fingerprint, weights, dataclasses.astuple(how)
    identity = identity_of(network, head.is_multi_label, head.kernel.tobytes(), head.bias.tobytes())
    chosen = "was chosen by cross-validation" if len(head.held_out) else "is the default: too few images to choose"
    name, number = _NAMES[job.recipe.head]
    name += " for each name" if head.is_multi_label else ""
    note = f"{name} on {values.shape[-1]:,} features; its {number} {head.strength:.3g} {chosen}."
    note = " ".join(filter(None, (note, weighed.sentence)))
    answers = head.probabilities(values[job.is_in("test")])
    return Fitted(grow, answers, (), note, held_out=head.held_out, identity=identity)


def _tuned(job: Job, eyes: Eyes, values: npt.NDArray[np.float32], fitted: Fitted, diary: Diary) -> Fitted:
    """The network tuned, at one scale, where that is better than what it is frozen, at whatever scales."""
    keras.utils.set_random_seed(job.recipe.seed)
    val, weights = job.is_in("val"), job.class_weights()
    held_out = HeldOut.nothing()
    if val.any():
        probabilities = _linear_head(job, eyes, values, "train").probabilities(values[val])
        labels = job.labels()[val]
        judging = weights.judging(labels) if weights else None
        held_out = HeldOut.of(np.log(probabilities + SMALLEST_PROBABILITY), labels, judging)
    # A network that learns, learns what to hear of its stages too.
    plain = dataclasses.replace(job, candidate=dataclasses.replace(job.candidate, output=POOLED, without=""))
    if job.candidate.output == POOLED_TWICE:
        values = values[..., at_one_scale(eyes.plan(job.candidate.image_size).stages)]
    start = _linear_head(plain, eyes, values, "train", restraint=RESTRAINT)
    return fine_tune(plain, eyes, Frozen(fitted, held_out, start), diary)


def _why_not_tuned(job: Job) -> str:
    count = "1 validation image" if job.num_judges == 1 else f"{job.num_judges} validation images"
    return (
        f"Tuning the network was not tried: by {count} one cannot tell whether it helps or harms; {FEWEST_JUDGES} are "
        "needed, which 200 pictures have. The network stays frozen. A stage that is named is tried all the same, as by "
        "--fine-tune stage4."
    )


def _linear_head(
    job: Job, eyes: Eyes, values: npt.NDArray[np.float32], *sides: str, restraint: Restraint = FREE
) -> LinearHead:
    lesson = job.lesson(values, eyes.blocks(job.candidate), *sides)
    if job.recipe.head == "nearest":
        return lesson.nearest_head(job.recipe.seed)
    return lesson.linear_head(job.recipe.seed, dataclasses.replace(restraint, class_weights=job.class_weights()))


def _weights_facts(eyes: Eyes) -> dict[str, str]:
    weights = eyes.weights
    note = "" if weights.path else "Random weights, as asked for with --weights none."
    return {
        "source": weights.source,
        "sha256": weights.sha256 or eyes.fingerprint,
        "licence": weights.licence,
        "note": note,
    }


def _network_facts(eyes: Eyes) -> dict[str, str]:
    facts = _weights_facts(eyes)
    return {"backbone": eyes.spec.name, **facts, "fingerprint": eyes.fingerprint}


def _notes(sees: Sequence[Eyes], recipe: Recipe, candidate: Candidate) -> tuple[str, ...]:
    notes = []
    if len(sees) > 1:
        name, facts = sees[-1].spec.name, _weights_facts(sees[-1])
        licence = f", licence {facts['licence']}" if facts["licence"] else ""
        notes.append(f"{name} sees with it; its weights: {facts['source']}, SHA-256 {facts['sha256']}{licence}.")
    if sees[0].weights.path is None:
        notes.append("The backbone's weights are random (--weights none): nothing was transferred, expect little.")
    if recipe.class_weights == "balanced" and recipe.head != "nearest":
        notes.append(
            "Each class counted alike in training, however many images it has (--class-weights balanced): the "
            "probabilities are what they would be if all classes were equally common, so those of rare classes are "
            "higher than they come true here."
        )
    if recipe.image_size is not None and candidate.image_size != recipe.image_size:
        notes.append(
            f"Images are {candidate.image_size} pixels instead of {recipe.image_size}: these weights are exact only at "
            "such sizes."
        )
    return tuple(notes)
