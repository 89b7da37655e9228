"""Half precision and 8 bits: near float32, never mistaken for it, refused where they cannot be had; and no reports."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from headstart import machine
from headstart.errors import DataError, MissingExtraError, UnknownNameError
from headstart.features import extract
from headstart.features.extract import Extractor
from headstart.networks import compiled, engine
from headstart.networks.backbone import build_backbone
from headstart.networks.catalogue import find_backbone
from headstart.networks.precision import BF16, FP32, Precision
from headstart.networks.weights import find_weights
from headstart.pictures.published import fetch_images
from headstart.pictures.scan import scan
from tiny import drawn_pixels, tiny_backbone, write_images

openvino = pytest.importorskip("openvino")
pytest.importorskip("nncf")
pytestmark = pytest.mark.filterwarnings("ignore:The structure of `inputs`", "ignore::DeprecationWarning")

has_bf16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture
def backbone(empty_cache, monkeypatch):
    monkeypatch.setattr(compiled, "_SECONDS_PER_ROUND", 0.005)
    return tiny_backbone()


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "photos", 20)


def cosines(first, second):
    first, second = first[:, 0], second[:, 0]
    return (first * second).sum(axis=1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)


def lower(backbone, name, images):
    return Extractor(backbone, precision=name, calibration=images if name == "int8" else ())


@pytest.mark.parametrize(
    "name", [pytest.param("bf16", marks=pytest.mark.skipif(not has_bf16, reason="this processor has none")), "int8"]
)
def test_is_near_float32_and_stored_apart_from_it(backbone, images, name):
    exact = Extractor(backbone).extract(images).values
    found = lower(backbone, name, images).extract(images)
    assert found.num_passes == 20
    assert not np.array_equal(found.values, exact)
    assert cosines(found.values, exact).min() > 0.98
    again = lower(backbone, name, images[::-1]).extract(images)
    assert again.num_passes == 0
    assert again.values.tobytes() == found.values.tobytes()
    assert Extractor(backbone).extract(images).values.tobytes() == exact.tobytes()


def test_8_bits_of_other_images_are_other_features(backbone, images):
    lower(backbone, "int8", images).extract(images)
    assert Extractor(backbone, precision="int8", calibration=images[:5]).extract(images).num_passes == 20


@pytest.mark.real
def test_8_bits_of_real_weights_are_near_float32(real_cache, empty_cache, monkeypatch):
    """With whole weights a processor that clips the sums of bytes gave cosines from 0.63."""
    monkeypatch.setenv("HEADSTART_CACHE", str(real_cache))
    spec = find_backbone("MobileNetV2")
    images = scan(fetch_images("textile")).images[::40]
    weights = find_weights(spec, "packaged")
    monkeypatch.setenv("HEADSTART_CACHE", str(empty_cache))
    real = build_backbone(spec, weights, weights.fitting_size(96))
    exact, rough = Extractor(real).extract(images).values, lower(real, "int8", images).extract(images).values
    assert cosines(exact, rough).mean() > 0.93


def test_weights_take_half_the_range_where_sums_of_bytes_would_be_clipped(backbone, images, monkeypatch):
    found = []
    for in_full in (True, False):
        monkeypatch.setattr(extract, "sums_bytes_in_full", lambda in_full=in_full: in_full)
        features = lower(backbone, "int8", images).extract(images)
        assert features.num_passes == 20  # And never another processor's.
        found.append(features.values)
    assert not np.array_equal(*found)


@pytest.mark.parametrize(
    ("said", "in_full"),
    [("flags : sse2 avx2", False), ("flags : avx512_vnni avx2", True), ("flags : avx_vnni", True),
     ("Features : fp asimddp", True), ("flags : not_avx_vnni_at_all", False), (None, False)],
)  # fmt: skip
def test_only_a_processor_that_says_so_sums_bytes_in_full(tmp_path, monkeypatch, said, in_full):
    if said:
        (tmp_path / "cpuinfo").write_text(said)
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    assert machine.sums_bytes_in_full() is in_full


def test_8_bits_are_the_same_however_often_they_are_made(backbone, images, empty_cache):
    first = lower(backbone, "int8", images).extract(images).values
    for blob in (empty_cache / "engines").glob("*.blob"):
        blob.unlink()
    fresh = lower(backbone, "int8", images).engine()
    pixels = np.stack([np.asarray(each) for each in lower(backbone, "int8", images)._precision.samples()])
    by_hash = dict(zip(sorted(image.sha256 for image in images), fresh.run(pixels[:16]), strict=False))
    for image, row in zip(images, first[:, 0], strict=True):
        if image.sha256 in by_hash:
            assert by_hash[image.sha256].tobytes() == row.tobytes()


def test_what_cannot_be_had_is_refused(backbone, images, monkeypatch, tmp_path):
    with pytest.raises(UnknownNameError, match="There is no precision 'fp16'"):
        Extractor(backbone, precision="fp16")
    with pytest.raises(DataError, match="8 bits need images"):
        Extractor(backbone, precision="int8").extract(images)
    with pytest.raises(DataError, match="None of the images"):
        compiled.compile_for_here(lambda: backbone.model, "", Precision("int8", ("0" * 64,)))
    monkeypatch.setattr(compiled, "has_bfloat16", lambda core: False)
    with pytest.raises(DataError, match="has no bfloat16"):
        Extractor(backbone, precision="bf16").extract(images)
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'headstart\[int8\]'"):
        compiled.compile_for_here(
            lambda: backbone.model, "", Precision("int8", ("0",), lambda: [drawn_pixels(32, 1)[0]])
        )


def test_keras_alone_computes_in_float32_only(monkeypatch):
    monkeypatch.setattr(engine, "_use_openvino", lambda: False)
    assert engine.engine_name(FP32).startswith("keras")
    with pytest.raises(DataError, match="Only OpenVINO"):
        engine.make_engine(lambda: None, precision=BF16)


def test_nothing_is_reported_to_anybody_and_nothing_is_printed(tmp_path):
    """OpenVINO and NNCF write down an identity, and send events, unless they are kept from it."""
    script = (
        "import numpy as np, sys\n"
        "from headstart.networks.compiled import compile_for_here\n"
        "from headstart.networks.precision import Precision\n"
        "import keras\n"
        "pixels = keras.Input((8, 8, 3), dtype='uint8')\n"
        "model = keras.Model(pixels, keras.layers.Conv2D(2, 3)(keras.layers.Rescaling(1 / 255)(pixels)))\n"
        "samples = lambda: list(np.zeros((4, 8, 8, 3), np.uint8))\n"
        "compile_for_here(lambda: model, '', Precision('int8', ('a',), samples))\n"
        "assert sys.modules['openvino_telemetry'] is None\n"
    )
    plain = {name: value for name, value in os.environ.items() if name not in {"CI", "NNCF_CI", "NNCF_DEV"}}
    environment = {**plain, "HOME": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "3", "HEADSTART_CACHE": str(tmp_path / "c")}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == ""
    assert not (tmp_path / "intel").exists()
