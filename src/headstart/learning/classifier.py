"""Classifier: a plain Keras model from pixels to probabilities, with the names of its classes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headstart.cache import write_atomically
from headstart.errors import ImageError, RunError
from headstart.learning.model_file import load_model, save_model
from headstart.networks.backend import keras
from headstart.pictures.decode import decode, read
from headstart.pictures.folder import BETWEEN_NAMES
from headstart.progress import Progress, silent
from headstart.scoring.multi_label import answer

MODEL_FILE = "model.keras"
LABELS_FILE = "labels.json"

_BATCH_SIZE = 16
_SEVERAL = "multi_label"


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the classifier says of one file, or why it says nothing.

    Attributes:
        path: as it was given.
        label: the most probable class, or "" if the file cannot be read. Where it may say several names: all that it
            says, with "|" between, or "".
        probability: of that class; or that all names are right, were they independent.
        probabilities: of every class by name.
        error: the reason, or "".
        labels: what it says, as names: one, or any number of them.
        is_multi_label: whether the classifier may say several names.
    """

    path: str
    label: str = ""
    probability: float = 0.0
    probabilities: dict[str, float] = dataclasses.field(default_factory=dict)
    error: str = ""
    labels: tuple[str, ...] = ()
    is_multi_label: bool = False


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained classifier.

    Attributes:
        model: pixels (n, size, size, 3) uint8 RGB -> probabilities (n, num_classes); a plain ``keras.Model``.
        class_names: in the order of the probabilities.
        is_multi_label: whether each probability stands for itself, so that a picture may have several names or none.
    """

    model: keras.Model
    class_names: tuple[str, ...]
    is_multi_label: bool = False

    @property
    def image_size(self) -> int:
        """The side of the images it takes, in pixels."""
        return int(self.model.inputs[0].shape[1])

    @classmethod
    def load(cls, path: str | Path) -> Classifier:
        """Read a classifier from a run folder.

        Raises:
            RunError: its files are missing, damaged or not ones that headstart writes.
        """
        folder = Path(path)
        try:
            labels = json.loads((folder / LABELS_FILE).read_bytes())
            names, several = labels["class_names"], labels.get(_SEVERAL, False) is True
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{folder / LABELS_FILE} cannot be read: expected the names of the classes.") from error
        model = load_model(folder / MODEL_FILE)
        if model.output_shape[-1] != len(names):
            raise RunError(f"{folder}: the model has {model.output_shape[-1]} classes, {LABELS_FILE} has {len(names)}.")
        return cls(model, tuple(map(str, names)), several)

    def save(self, folder: Path) -> None:
        """Write the model and the names of its classes, each whole or not at all."""
        save_model(self.model, folder / MODEL_FILE)
        write_labels(folder, self.class_names, is_multi_label=self.is_multi_label)

    def predict(self, paths: Sequence[str | Path], *, progress: Progress = silent) -> list[Prediction]:
        """Classify image files, in order; a file that cannot be read gets its reason and the rest go on."""
        predictions: list[Prediction] = []
        for start in range(0, len(paths), _BATCH_SIZE):
            predictions += self._predict_batch([str(path) for path in paths[start : start + _BATCH_SIZE]])
            progress("Predicting", len(predictions), len(paths))
        return predictions

    def _predict_batch(self, paths: Sequence[str]) -> list[Prediction]:
        decoded = [self._decode(path) for path in paths]
        good = [pixels for pixels in decoded if not isinstance(pixels, ImageError)]
        rows = iter(self._run(np.stack(good)) if good else ())
        return [
            Prediction(path, error=str(pixels)) if isinstance(pixels, ImageError) else self._named(path, next(rows))
            for path, pixels in zip(paths, decoded, strict=True)
        ]

    def _run(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Always one shape, so that no backend compiles twice."""
        empty = np.zeros((_BATCH_SIZE - len(pixels), *pixels.shape[1:]), np.uint8)
        padded = np.concatenate([pixels, empty])
        return np.asarray(self.model.predict_on_batch(padded), np.float64)[: len(pixels)]

    def _decode(self, path: str) -> npt.NDArray[np.uint8] | ImageError:
        try:
            return decode(read(path), (self.image_size, self.image_size))
        except ImageError as error:
            return error

    def _named(self, path: str, row: npt.NDArray[np.float64]) -> Prediction:
        by_name = dict(zip(self.class_names, map(float, row), strict=True))
        labels, probability = answer(row, self.class_names, is_multi_label=self.is_multi_label)
        return Prediction(path, BETWEEN_NAMES.join(labels), probability, by_name, "", labels, self.is_multi_label)


def write_labels(folder: Path, class_names: Sequence[str], *, is_multi_label: bool) -> None:
    """Write the names of a model's classes beside it."""
    labels = {"class_names": list(class_names), **({_SEVERAL: True} if is_multi_label else {})}
    with write_atomically(folder / LABELS_FILE) as file:
        file.write(json.dumps(labels, ensure_ascii=False, indent=1).encode())
