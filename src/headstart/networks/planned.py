"""A backbone that is built when somebody needs its network; what its weights hash to is known from an earlier build.

Features that are stored already need no network to be found and used, only its fingerprint and the widths of its
stages. Building one takes a second.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import re
from pathlib import Path

from headstart.cache import cache_folder, code_sha256, write_atomically
from headstart.errors import CacheError
from headstart.networks.backbone import AS_IS, Backbone, build_backbone
from headstart.networks.backend import backend_name, keras_version
from headstart.networks.rows import BackboneSpec
from headstart.networks.stages import Stage
from headstart.networks.weights import Weights

_CODE = code_sha256(Path(__file__).parent)  # Of what runs: the files may be replaced later.


@dataclasses.dataclass(frozen=True)
class _Note:
    """What is worth remembering of a backbone."""

    fingerprint: str
    stages: tuple[Stage, ...]
    ends_in_tokens: bool
    num_params: int

    def is_of(self, other: _Note) -> bool:
        """Whether both are of the same network; Keras numbers layers without a name anew in each build."""
        one, two = (
            dataclasses.replace(each, stages=tuple(dataclasses.replace(stage, layer="") for stage in each.stages))
            for each in (self, other)
        )
        return one == two

    @staticmethod
    def from_json(text: str) -> _Note | None:
        try:
            known = json.loads(text)
            stages = tuple(Stage(**stage) for stage in known["stages"])
            return _Note(known["fingerprint"], stages, known["ends_in_tokens"], known["num_params"])
        except (ValueError, KeyError, TypeError):  # Of a version that wrote other notes.
            return None


class PlannedBackbone:
    """What `build_backbone` would build.

    Attributes:
        spec: its row of the catalogue.
        weights: where its weights come from.
        image_size: the side of its images in pixels.
    """

    def __init__(self, spec: BackboneSpec, weights: Weights, image_size: int, *, seed: int | None = None) -> None:
        """Take the arguments of `build_backbone`."""
        self.spec, self.weights, self.image_size = spec, weights, image_size
        self._seed = seed
        self._built: dict[tuple[str, ...], Backbone] = {}

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of every weight in it, in order."""
        return self._note.fingerprint

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Its clean cuts, from shallow to deep."""
        return self._note.stages

    @property
    def ends_in_tokens(self) -> bool:
        """Whether its output is (n, t, c)."""
        return self._note.ends_in_tokens

    @property
    def num_params(self) -> int:
        """Its numbers, without a top."""
        return self._note.num_params

    def forget(self) -> None:
        """Let go of what was built, whose weights take megabytes; it is built again where it is needed."""
        _ = self._note  # Kept, since it would be built for that alone.
        self._built.clear()

    def build(self, views: tuple[str, ...] = AS_IS) -> Backbone:
        """The backbone for some views, made once. What there is to know of it is written down for the next process.

        Raises:
            CacheError: it is not what was remembered; that is forgotten.
        """
        if views not in self._built:
            built = build_backbone(self.spec, self.weights, self.image_size, views=views, seed=self._seed)
            self._check(_note_of(built))
            self._built[views] = built
        return self._built[views]

    @functools.cached_property
    def _note(self) -> _Note:
        """Remembered, or of the network built for it."""
        if note := self._remembered():
            return note
        built = self.build()
        return _note_of(built)

    def _check(self, note: _Note) -> None:
        remembered = self._remembered()
        if remembered is None:
            self._remember(note)
        elif not remembered.is_of(note):
            with contextlib.suppress(OSError):
                self._path().unlink()
            raise CacheError(
                f"{self.spec.name} has other weights than {self._path()} remembered of it, so features that belong to "
                "others may have been used. Remove that file if it is still there, and run the same command again."
            )

    def _remembered(self) -> _Note | None:
        if self.weights.path is None:  # Random weights are new every time.
            return None
        try:
            digest, _, text = self._path().read_text(encoding="utf-8").partition("\n")
        except (OSError, UnicodeDecodeError):
            return None
        return _Note.from_json(text) if digest == _sha256(text) else None

    def _remember(self, note: _Note) -> None:
        """A cache that cannot be written costs a second at the next start, nothing else."""
        if self.weights.path is None:
            return
        text = json.dumps(dataclasses.asdict(note))
        with contextlib.suppress(OSError), write_atomically(self._path()) as file:
            file.write(f"{_sha256(text)}\n{text}".encode())

    def _path(self) -> Path:
        """By all that decides the weights: the file, the size that positions are fitted to, and the code that reads."""
        name = re.sub(r"\W", "_", self.spec.name)
        facts = (
            self.spec.name,
            self.weights.source,
            self.weights.sha256,
            self.image_size,
            keras_version(),
            backend_name(),
            _CODE,
        )
        return cache_folder("engines") / f"weights-{name}-{_sha256(json.dumps(facts))[:32]}.json"


def _note_of(built: Backbone) -> _Note:
    return _Note(built.fingerprint, built.stages, built.ends_in_tokens, built.model.count_params())


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
