"""A trained classifier on its way into its run folder: made, or copied from an earlier run; saved, read back, asked."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.errors import RunError
from headstart.learning.choosing import Candidate
from headstart.learning.classifier import MODEL_FILE, Classifier, write_labels
from headstart.learning.kept_models import KeptModel, copy_model, find_kept, identity_of, keep
from headstart.networks.backend import keras
from headstart.pictures.decode import decode, read
from headstart.pictures.folder import ImageFile, ImageFolder
from headstart.progress import Progress, silent

_NUM_CHECKED = 4  # Keras runs them eagerly, and keeps every activation: 0.3 GB each at 385 px.
_LARGEST_DIFFERENCE = 1e-4


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
