"""Fine-tuning that cannot make it worse: the head first, then stage after stage, each kept only where it helps.

The head that was fitted to frozen features comes first (LP-FT, Kumar et al. 2022, https://arxiv.org/abs/2202.10054): a
head that knows nothing would spoil the network on its way. Then the network is opened from the top down. Every step is
judged on the validation images against what was there before, image by image; one that is no surer gain than noise is
undone. What a step is worth is asked of the tuned network alone, and together with the frozen one: they err on other
images, and the mean of their logits is often better than either. What is kept at last goes on to learn, for a short
course, from the validation images too, as the head of the frozen network has.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.features.decoding import check_decoded, decode_ahead
from headstart.features.pooling import POOLED
from headstart.learning.heads import grow_linear_layer, grow_together, linear_layer, mean_of_logits, sharpen
from headstart.learning.held_out import HeldOut
from headstart.learning.job import Fitted, Job
from headstart.learning.keeper import Keeper
from headstart.learning.lessons import Lessons
from headstart.learning.logistic import LinearHead, Restraint
from headstart.learning.material import FreshMaterial, Material, Numbers, PixelMaterial, StoredMaterial
from headstart.learning.rate_test import RateStep, find_rate
from headstart.learning.schedule import Schedule, last_course, quick_look, schedule_for
from headstart.learning.seeing import Eyes
from headstart.learning.tail import Tail, open_tail, rates, stages_that_learn
from headstart.learning.tuning import Diary, Epoch, Phase, Tuned, tune
from headstart.learning.verdict import Step, together
from headstart.networks.backbone import build_backbone, fingerprint
from headstart.networks.backend import keras, mixed_precision_on_gpu
from headstart.networks.engine import engine_name, keras_engine_name, make_engine
from headstart.networks.freezing import freeze
from headstart.networks.guard import Guard, check_preprocessing
from headstart.pictures.folder import ImageFile
from headstart.recipe import AUTO

RESTRAINT = Restraint(least_spread=0.3, most_strength=1.01e-3)
"""Of the head that tuning starts from. Features that hardly vary get weights of thousands otherwise, and the smallest
change of the network below them upsets every answer; and a head that has every training image right has nothing left to
ask of the network."""

VALIDATION_TOO = ", validation images too"
"""What is added to the name of a phase that learns from them."""

STATE_PREFIX = ".tuning"
"""What the files are called that an unfinished training is kept in."""

_HIGHEST = 3  # Stages that are opened last.


class FineTuner:
    """Tunes one network for one task; its layers carry what was learnt so far."""

    def __init__(self, job: Job, eyes: Eyes, head: LinearHead, diary: Diary) -> None:
        """Take what is to be learnt.

        Args:
            job: the images.
            eyes: the network.
            head: fitted to the training images alone, so that the validation images are new to it.
            diary: of the training.
        """
        self._job, self._eyes, self._diary = job, eyes, diary
        self._size = job.candidate.image_size
        learns = job.is_in("train", "val")  # The test images are not even decoded here.
        self._images = [image for image, mine in zip(job.folder.images, learns, strict=True) if mine]
        self._labels = job.labels()[learns]
        self._train, self._val = (np.flatnonzero(job.is_in(side)[learns]) for side in ("train", "val"))
        self._material: tuple[str | None, Material] | None = None
        self._phases: dict[str, Phase] = {}
        self.history: list[Epoch] = []
        self.rate_steps: list[RateStep] = []
        with mixed_precision_on_gpu():
            self._backbone = build_backbone(eyes.spec, eyes.weights, self._size, dtype="float32", seed=job.recipe.seed)
        self._head = linear_layer(head)

    def try_openings(self, frozen: HeldOut, first: str) -> list[Step]:
        """Open a stage, or one after the other, on the training images; what does not help is undone.

        Args:
            frozen: what the frozen network says of the validation images: what has to be beaten.
            first: the name of a stage, "all" or "auto".
        """
        openings = _openings(stages_that_learn(self._backbone)) if first == AUTO else (first,)
        labels = self._labels[self._val]
        steps: list[Step] = []
        best = frozen.sharpened(labels)
        for opening in openings:
            before = self._values()
            schedule = self._schedule()
            tuned = self._tune(opening, schedule if opening == openings[-1] else quick_look(schedule))
            alone = tuned.after.sharpened(labels)
            steps.append(Step(opening, tuned, best, alone, together(frozen, alone, labels)))
            if steps[-1].is_kept:
                best = steps[-1].after
            else:
                self._put_back(before)
        return steps

    def learn_from_all(self, step: Step) -> str:
        """A short course on training and validation images together, from what a step came to; a sentence about it.

        There is nothing left to judge it by. But if what it says of the validation images, which it has now learnt
        from, is no better than before, something went wrong, and it is undone.
        """
        if not len(self._val):
            return ""
        before, phase, tail = self._values(), self._phases[step.first], self._open(step.first)
        schedule = last_course(self._schedule(), phase.schedule.learning_rate / 2)
        phase = dataclasses.replace(phase, name=phase.name + VALIDATION_TOO, schedule=schedule)
        everyone = np.sort(np.concatenate([self._train, self._val]))
        tuned = self._follow(phase, tail, self._lessons(tail, everyone, everyone[:0]))
        after = self._lessons(tail, self._train, self._val).answers(tail.model)
        if tuned.best_epoch and after.multiplied(step.alone.sharpness, self._labels[self._val]).loss < step.alone.loss:
            said = f"Then it learnt from the validation images too, for {tuned.best_epoch} epochs."
        else:
            self._put_back(before)
            said = "Learning from the validation images too went wrong, so that was undone."
        return f"{said} {tuned.trouble}".strip()

    def grow(self, sharpness: float) -> keras.Model:
        """What is shipped: the same weights, seeing every view; pixels -> probabilities.

        Args:
            sharpness: by what its logits are multiplied.
        """
        shipped = build_backbone(self._eyes.spec, self._eyes.weights, self._size, views=self._job.candidate.views)
        shipped.model.set_weights(self._backbone.model.get_weights())
        freeze(shipped.model)
        sharpen(self._head, sharpness)
        return grow_linear_layer(shipped, self._head)

    def _schedule(self) -> Schedule:
        """By the number of images and their size."""
        recipe = self._job.recipe
        rate = None if isinstance(recipe.lr, str) else recipe.lr  # "auto" is found later.
        return schedule_for(
            len(self._train), recipe.epochs, image_size=self._size, optimizer=recipe.optimizer, learning_rate=rate
        )

    def _tune(self, opening: str, schedule: Schedule) -> Tuned:
        """Open a stage, and train it and all above it; the validation images judge."""
        tail = self._open(opening)
        lessons = self._lessons(tail, self._train, self._val)
        phase = Phase(opening, schedule, self._job.recipe.seed, rates(self._backbone, opening, schedule.layer_decay))
        if self._job.recipe.lr == AUTO:
            phase = self._at_its_rate(phase, tail, lessons)
        self._phases[opening] = phase
        return self._follow(phase, tail, lessons)

    def _open(self, opening: str) -> Tail:
        tail = open_tail(self._backbone, self._head, opening)
        check_preprocessing(tail.whole)
        return tail

    def _lessons(self, tail: Tail, train: Numbers, val: Numbers) -> Lessons:
        material = self._material_for(tail)
        return Lessons(material, self._labels, self._job.num_classes, train, val, self._job.class_weights())

    def _at_its_rate(self, phase: Phase, tail: Tail, lessons: Lessons) -> Phase:
        """The phase at the learning rate that a range test finds."""
        rate, steps = find_rate(tail.model, lessons, phase, self._eyes.progress)
        self.rate_steps += steps
        return dataclasses.replace(phase, schedule=dataclasses.replace(phase.schedule, learning_rate=rate))

    def _follow(self, phase: Phase, tail: Tail, lessons: Lessons) -> Tuned:
        """Train what is open, and see that nothing else changed."""
        guard = Guard.before(tail.whole)
        keeper = self._keeper(phase, lessons)
        tuned = tune(tail.model, lessons, phase, keeper=keeper, tell=self._diary.tell, progress=self._eyes.progress)
        if tuned.best_epoch:
            guard.after(tail.whole)
        self.history += tuned.history
        return tuned

    def _values(self) -> list[Any]:
        return [self._backbone.model.get_weights(), self._head.get_weights()]

    def _put_back(self, values: list[Any]) -> None:
        self._backbone.model.set_weights(values[0])
        self._head.set_weights(values[1])

    def _material_for(self, tail: Tail) -> Material:
        name = tail.cut.name if tail.cut else None
        if self._material is None or self._material[0] != name:
            self._material = None  # Two at once may be more than there is room for.
            self._material = name, self._read(tail)
        return self._material[1]

    def _read(self, tail: Tail) -> Material:
        stages = self._backbone.stages
        if tail.cut in stages[len(stages) // 2 :]:
            features = self._eyes.activations(self._images, self._job.candidate, tail.cut.name)
            return StoredMaterial(features, tail.cut.name, POOLED, tail.num_constants)
        pixels = PixelMaterial(self._images, self._size, self._job.candidate.views, self._eyes.progress)
        return FreshMaterial(pixels, self._eyes.lower_part(self._job.candidate, tail.cut.name)) if tail.cut else pixels

    def _keeper(self, phase: Phase, lessons: Lessons) -> Keeper | None:
        if self._diary.folder is None:
            return None
        facts = {
            "phase": [phase.name, dataclasses.asdict(phase.schedule), phase.seed],
            "computed by": [keras_engine_name(), engine_name()],
            "recipe": self._job.recipe.to_json(),
            "weights": [fingerprint(self._backbone.model), self._backbone.spec.graph],
            "head": [value.tobytes().hex() for value in self._head.get_weights()],
            "images": [[image.sha256, image.label] for image in self._images],
            "train": lessons.train.tolist(),
            "val": lessons.val.tolist(),
        }
        return Keeper(self._diary.folder, "-".join([STATE_PREFIX, *re.findall(r"\w+", phase.name)]), json.dumps(facts))


@dataclasses.dataclass(frozen=True)
class Frozen:
    """What a network that stays frozen comes to: where tuning starts, and what it has to beat.

    Attributes:
        fitted: on training and validation images together; it is what is returned where no step helps.
        held_out: what such a head, fitted to the training images alone, says of the validation images.
        start: the head that tuning starts from, fitted to the training images alone.
    """

    fitted: Fitted
    held_out: HeldOut
    start: LinearHead


def fine_tune(job: Job, eyes: Eyes, frozen: Frozen, diary: Diary) -> Fitted:
    """Tune the network that a head was fitted to, where that helps.

    Args:
        job: the images, seen as a network is that is tuned: at one scale; and in its recipe what is to be opened.
        eyes: the network.
        frozen: what the frozen network came to, at whatever scales.
        diary: of the training.

    Raises:
        GuardError: something else changed than was announced.
    """
    tuner = FineTuner(job, eyes, frozen.start, diary)
    steps = tuner.try_openings(frozen.held_out, job.recipe.fine_tune)
    kept = [step for step in steps if step.is_kept]
    last = tuner.learn_from_all(kept[-1]) if kept else "The network stays frozen."
    fitted = _shipped(job, tuner, frozen.fitted, kept[-1]) if kept else frozen.fitted
    sentences = [frozen.fitted.note, *(step.sentence() for step in steps), last]
    return dataclasses.replace(
        fitted,
        history=tuple(dataclasses.asdict(row) for row in tuner.history),
        rate_steps=tuple(dataclasses.asdict(row) for row in tuner.rate_steps),
        note=" ".join(filter(None, sentences)),
    )


def _shipped(job: Job, tuner: FineTuner, frozen: Fitted, last: Step) -> Fitted:
    """What the last step that is kept came to, alone or together with the frozen network."""
    model = tuner.grow(last.alone.sharpness)
    test = [image for image, mine in zip(job.folder.images, job.is_in("test"), strict=True) if mine]
    probabilities = ask(model, test)
    if not last.is_with_frozen:
        return Fitted(lambda: model, probabilities, (), "", last.first, candidate=job.candidate)
    sharpness = last.together.sharpness
    both = grow_together(frozen.grow(), model, sharpness=sharpness)
    probabilities = mean_of_logits(frozen.test_probabilities, probabilities, sharpness=sharpness)
    return Fitted(lambda: both, probabilities, (), "", last.first)


def ask(model: keras.Model, images: Sequence[ImageFile]) -> npt.NDArray[np.float64]:
    """What a model of uint8 pixels says of images that are known to decode: (n, num_classes) probabilities."""
    size = int(model.inputs[0].shape[1])
    failed: dict[str, str] = {}
    decoded = decode_ahead(((image, ("as_is",)) for image in images), (size,), failed)
    engine = make_engine(lambda: model)
    rows = [row for _, (row,) in engine.stream((each.sha256, each.pixels[size, "as_is"]) for each in decoded)]
    check_decoded(images, failed)
    return np.asarray(rows, np.float64)


def _openings(names: tuple[str, ...]) -> tuple[str, ...]:
    """The last stage, a quick look; then the three highest: those below would take as long again, for nothing."""
    return tuple(dict.fromkeys((names[0], names[min(_HIGHEST, len(names)) - 1])))
