"""Split images -> trained classifier: choose how to see, compute features, fit the head, make and save the model."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.errors import DataError, RunError
from headstart.features.extract import Features
from headstart.features.pooling import POOLED, POOLED_TWICE, at_one_scale
from headstart.learning.choosing import Candidate
from headstart.learning.class_weights import ClassWeights
from headstart.learning.classifier import MODEL_FILE, Classifier, write_labels
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
from headstart.learning.kept_models import KeptModel, copy_model, find_kept, identity_of, keep
from headstart.learning.logistic import FREE, LinearHead, Restraint
from headstart.learning.pairing import Alone, Joined, join
from headstart.learning.seeing import Clock, Eyes, choose_how_to_see
from headstart.learning.tuning import Diary
from headstart.networks.backend import backend_name, keras
from headstart.networks.engine import engine_name
from headstart.networks.freezing import cut_below
from headstart.networks.rows import BackboneSpec
from headstart.networks.weights import find_weights
from headstart.pictures.decode import decode, read
from headstart.pictures.folder import ImageFile, ImageFolder
from headstart.progress import Progress, silent
from headstart.recipe import Recipe

_NUM_CHECKED = 4  # Keras runs them eagerly, and keeps every activation: 0.3 GB each at 385 px.
_LARGEST_DIFFERENCE = 1e-4
_NAMES = {"linear": ("Logistic regression", "strength"), "nearest": ("Nearest class mean", "sharpness")}


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained classifier, and what is to be said of it.

    Attributes:
        grow: makes the model, once.
        identity: a hash of all that decides the model; "" where it is not known before it is made.
        folder: the images that were used; those that could not be decoded are among its skipped files.
        splits: of those images.
        test_images: the test images.
        test_probabilities: (num_test, num_classes), from the stored features and the head.
        candidate: how the images are seen.
        spec_name: the backbone's name.
        weights: source, sha256, licence and note of the weights.
        networks: that one, and the one that sees with it if there is one: of each the backbone, the source, sha256 and
            licence of its weights, and their fingerprint.
        fingerprint: the hash of the backbone's weights as loaded.
        feature_counts: computed, reused, images_per_second.
        history: one row per epoch, if the head was trained in epochs.
        rate_steps: of the tests of learning rates, if there were any.
        head_note: how the head was fitted, and what came of tuning the network.
        fine_tuned: the lowest stage that was tuned, or "all"; None where the network stayed frozen.
        notes: what a reader must not miss.
        backend: Keras's backend and the engine.
    """

    grow: Callable[[], keras.Model]
    identity: str
    folder: ImageFolder
    splits: tuple[str, ...]
    test_images: tuple[ImageFile, ...]
    test_probabilities: npt.NDArray[np.float64]
    candidate: Candidate
    spec_name: str
    weights: dict[str, str]
    networks: tuple[dict[str, str], ...]
    fingerprint: str
    feature_counts: dict[str, Any]
    history: tuple[dict[str, float], ...]
    rate_steps: tuple[dict[str, Any], ...]
    head_note: str
    fine_tuned: str | None
    notes: tuple[str, ...]
    backend: str

    def make_ready(self, progress: Progress = silent) -> None:
        """Make the model, unless one that was saved before would be the same; then nothing stops `save` but a disk."""
        if not self._kept:
            progress("Making the model", 0, 1)
            self.grow()
            progress("Making the model", 1, 1)

    def save(self, path: Path, progress: Progress = silent) -> str:
        """Write the model into a run folder and see that it answers as was scored; a sentence about that.

        One that was saved and asked before, and would be the same, is copied.

        Raises:
            RunError: it gives other answers than those that were scored.
        """
        names, several = self.folder.class_names, self.folder.is_multi_label
        if self._kept and copy_model(self._kept, path / MODEL_FILE):
            write_labels(path, names, is_multi_label=several)
            which = f"that of an earlier run, SHA-256 {self._kept.sha256[:12]}…"
            return f"{self._kept.check} (It is, byte for byte, {which}, which was asked then.)"
        classifier = Classifier(self.grow(), names, several)
        progress("Saving the model, and asking it", 0, 2)
        classifier.save(path)
        progress("Saving the model, and asking it", 1, 2)
        check = self.check_saved(path)
        progress("Saving the model, and asking it", 2, 2)
        if self._whole_identity:
            keep(self._whole_identity, path / MODEL_FILE, check)
        return check

    @functools.cached_property
    def _kept(self) -> KeptModel | None:
        return find_kept(self._whole_identity) if self._whole_identity else None

    @functools.cached_property
    def _whole_identity(self) -> str:
        """Of the model and of what it is asked when it was saved; "" where the model is not known before it is made."""
        asked = self._asked()
        question = [self.test_images[index].sha256 for index in asked], self.test_probabilities[asked].tobytes()
        names = self.folder.class_names, self.folder.is_multi_label
        return self.identity and identity_of(self.identity, names, *question)

    def _asked(self) -> npt.NDArray[np.int64]:
        """The test images whose answers were the least certain: 1 would stay 1, whatever had changed."""
        scored = self.test_probabilities
        return np.argsort(-(scored * (1 - scored)).max(axis=1), kind="stable")[:_NUM_CHECKED]

    def check_saved(self, path: Path) -> str:
        """Read the saved model back and ask it about test images; a sentence about how well it agrees.

        Raises:
            RunError: it gives other answers than those that were scored.
        """
        size, scored, asked = self.candidate.image_size, self.test_probabilities, self._asked()
        model = Classifier.load(path).model
        each = (decode(read(self.test_images[index].path), (size, size))[None] for index in asked)
        # One at a time: all at once would be the most memory that the whole run takes.
        answers = np.concatenate([keras.ops.convert_to_numpy(model(pixels, training=False)) for pixels in each])
        difference = float(np.abs(answers - scored[asked]).max())
        if not difference <= _LARGEST_DIFFERENCE:  # Nor if it is no number.
            raise RunError(
                f"{path / 'model.keras'} does not give the answers that were scored: probabilities differ by "
                f"{difference:.2g}, where {_LARGEST_DIFFERENCE} is allowed: a fault of headstart, please report it."
            )
        return (
            f"model.keras, read back from disk, was asked about the test images of which it is least certain "
            f"({len(asked)}): its probabilities differ from those that were scored by at most {difference:.1g}."
        )


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
    weights = plan.weights
    network = plan.spec.name, plan.fingerprint, weights.source, weights.preprocessing, dataclasses.astuple(how)
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
