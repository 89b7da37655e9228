"""A backbone that is built when somebody needs its network; what its weights hash to is known from an earlier build.

Features that are stored already need no network, only its fingerprint, to be found. Building one takes a second.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
from pathlib import Path

from headstart.cache import cache_folder, write_atomically
from headstart.errors import CacheError
from headstart.networks.backbone import AS_IS, Backbone, build_backbone
from headstart.networks.backend import keras
from headstart.networks.rows import BackboneSpec
from headstart.networks.weights import Weights


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

    @functools.cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of every weight in it, in order: remembered, or of the network built for it."""
        return self._remembered() or self.build().fingerprint

    def build(self, views: tuple[str, ...] = AS_IS) -> Backbone:
        """The backbone for some views, made once. Its fingerprint is written down for the next process.

        Raises:
            CacheError: it has another fingerprint than was remembered; that is forgotten.
        """
        if views not in self._built:
            built = build_backbone(self.spec, self.weights, self.image_size, views=views, seed=self._seed)
            self._check(built.fingerprint)
            self._built[views] = built
        return self._built[views]

    def _check(self, fingerprint: str) -> None:
        remembered = self._remembered()
        if remembered is None:
            self._remember(fingerprint)
        elif remembered != fingerprint:
            with contextlib.suppress(OSError):
                self._path().unlink()
            raise CacheError(
                f"{self.spec.name} has other weights than {self._path()} remembered of it, so features that belong to "
                "others may have been used. Remove that file if it is still there, and run the same command again."
            )

    def _remembered(self) -> str | None:
        if self.weights.path is None:  # Random weights are new every time.
            return None
        try:
            known = json.loads(self._path().read_bytes())
            fingerprint = known["fingerprint"]
            return fingerprint if known["sha256"] == _sha256(fingerprint) else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _remember(self, fingerprint: str) -> None:
        """A cache that cannot be written costs a second at the next start, nothing else."""
        if self.weights.path is None:
            return
        with contextlib.suppress(OSError), write_atomically(self._path()) as file:
            file.write(json.dumps({"fingerprint": fingerprint, "sha256": _sha256(fingerprint)}).encode())

    def _path(self) -> Path:
        """By all that decides the weights: the file, the size that positions are fitted to, and the code that reads."""
        name = re.sub(r"\W", "_", self.spec.name)
        facts = (
            self.spec.name,
            self.weights.source,
            self.weights.sha256,
            self.image_size,
            keras.__version__,
            keras.backend.backend(),
            _code_sha256(),
        )
        return cache_folder("engines") / f"weights-{name}-{_sha256(json.dumps(facts))[:32]}.json"


@functools.cache
def _code_sha256() -> str:
    """The hash of the code that builds networks and reads weights, so that a change of it is never missed."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
