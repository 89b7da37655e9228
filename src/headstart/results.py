"""What a trained classifier leaves in its run folder beside the model: its tables, its scores and ``run.json``."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.errors import HeadstartError, RunError
from headstart.pictures.folder import BETWEEN_NAMES, SPLITS, ImageFile, ImageFolder
from headstart.pictures.labels import class_numbers, multi_hot
from headstart.reporting import runs
from headstart.reporting.content import draw_report
from headstart.scoring.metrics import evaluate
from headstart.scoring.multi_label import AnyEvaluation, answer, evaluate_names, read_evaluation

if TYPE_CHECKING:
    from headstart.learning.choosing import Candidate
    from headstart.learning.trained import Trained


def write_results(path: Path, trained: Trained) -> AnyEvaluation:
    """The tables of a run, and its scores."""
    folder, test = trained.folder, trained.test_images
    several = folder.is_multi_label
    evaluation = score_images(test, trained.test_probabilities, folder.class_names, is_multi_label=several)
    runs.write_split(path, folder.images, trained.splits)
    _write_predictions(path, test, trained.test_probabilities, folder)
    _write_history(path, trained.history)
    _write_rates(path, trained.rate_steps)
    runs.write_json(path / runs.EVALUATION_FILE, evaluation.to_json())
    return evaluation


def score_images(
    images: Sequence[ImageFile], probabilities: Any, class_names: Sequence[str], *, is_multi_label: bool
) -> AnyEvaluation:
    """Probabilities (n, num_classes) of labelled images -> their scores."""
    if is_multi_label:
        return evaluate_names(multi_hot(images, class_names), probabilities, class_names)
    return evaluate(class_numbers(images, class_names), probabilities, class_names)


def evaluation_in(path: Path) -> AnyEvaluation:
    """The scores of a run.

    Raises:
        RunError: they are damaged.
    """
    try:
        return read_evaluation(json.loads((path / runs.EVALUATION_FILE).read_bytes()))
    except (OSError, ValueError, HeadstartError) as error:
        raise RunError(f"{path / runs.EVALUATION_FILE} is damaged: {error}") from error


def write_facts(path: Path, facts: dict[str, Any], evaluation: AnyEvaluation) -> None:
    """Write ``run.json``, the report and the model card."""
    runs.write_json(path / runs.RUN_FILE, facts)
    draw_report(path, facts, evaluation)


def facts_of(identity: dict[str, Any], trained: Trained, self_check: str, seconds: dict[str, float]) -> dict[str, Any]:
    """The content of ``run.json``.

    Args:
        identity: the recipe and the hash of the data.
        trained: the classifier.
        self_check: how well the saved model agrees with what was scored.
        seconds: by step.
    """
    folder, weights = trained.folder, trained.weights
    recipe = identity["recipe"]
    counts = Counter(trained.splits)
    return {
        "identity": identity,
        "finished": True,
        "title": folder.root.resolve().name,
        "root": str(folder.root.resolve()),
        "created": runs.now(),
        "class_names": list(folder.class_names),
        "choices": {
            "backbone": " and ".join(each["backbone"] for each in trained.networks),
            "image size": f"{trained.candidate.image_size} px",
            "views": _views_in_words(trained.candidate),
            "head": recipe["head"],
            "fine-tuned": _tuned_in_words(trained.fine_tuned),
            "seed": recipe["seed"],
            "images": ", ".join(f"{counts[split]:,} {split}" for split in SPLITS),
        },
        "weights": weights,
        "networks": list(trained.networks),
        "notes": list(trained.notes),
        "skipped": [dataclasses.asdict(each) for each in folder.skipped],
        "self_check": self_check,
        "head_note": trained.head_note,
        "seconds": seconds,
        "versions": _versions(trained.backend),
        "fingerprint": trained.fingerprint,
        "summary": _summary(recipe, trained, seconds),
    }


def _summary(recipe: dict[str, Any], trained: Trained, seconds: dict[str, float]) -> dict[str, Any]:
    """What ``headstart fit --json`` prints, less the scores."""
    folder, weights = trained.folder, trained.weights
    return {
        "backbone": trained.spec_name,
        "weights": {"source": weights["source"], "sha256": weights["sha256"]},
        "networks": [each["backbone"] for each in trained.networks],
        "head": recipe["head"],
        "fine_tuned": trained.fine_tuned,
        "class_names": list(folder.class_names),
        **({"multi_label": True} if folder.is_multi_label else {}),
        "num_images": len(folder),
        "num_skipped": len(folder.skipped),
        "image_size": trained.candidate.image_size,
        "features": trained.feature_counts,
        "seconds": seconds,
    }


def _views_in_words(candidate: Candidate) -> str:
    views = "as it is and mirrored (4)" if len(candidate.views) > 1 else "as it is"
    return f"{views}, at two scales, with deviations" if "two scales" in candidate.output else views


def _tuned_in_words(first: str | None) -> str:
    return "no, the network is frozen" if first is None else first if first == "all" else f"{first} and above"


def _versions(backend: str) -> dict[str, str]:
    names = ["headstart", "keras", "numpy", "pillow"]
    installed = {"python": platform.python_version(), **{name: version(name) for name in names}}
    return {**installed, "backend": backend}


def _write_predictions(path: Path, images: Sequence[ImageFile], probabilities: Any, folder: ImageFolder) -> None:
    names, several = folder.class_names, folder.is_multi_label
    columns = ("path", "split", "label", "predicted", "probability", *(f"p({name})" for name in names))
    rows = []
    for image, row in zip(images, probabilities, strict=True):
        said, probability = answer(row, names, is_multi_label=several)
        predicted = BETWEEN_NAMES.join(said)
        rows.append((image.name, "test", image.label, predicted, f"{probability:.6g}", *(f"{p:.6g}" for p in row)))
    runs.write_table(path / runs.PREDICTIONS_FILE, columns, rows)


def _write_history(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    columns = list(history[0]) if history else ["epoch", "loss", "accuracy", "val_loss", "val_accuracy"]
    runs.write_table(path / runs.HISTORY_FILE, columns, [list(row.values()) for row in history])


def _write_rates(path: Path, steps: Sequence[Mapping[str, Any]]) -> None:
    if steps:
        runs.write_table(path / runs.RATES_FILE, list(steps[0]), [list(step.values()) for step in steps])
    else:
        (path / runs.RATES_FILE).unlink(missing_ok=True)  # Of an unfinished run that another one takes the place of.
