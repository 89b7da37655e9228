"""Real weights on one picture that never changes: PyTorch said once what its features are, and every engine must agree.

The stored features are no earlier answer of headstart's: `golden/make_packaged_features.py` computes them without it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.features import extract
from headstart.features.extract import Extractor
from headstart.networks.backbone import build_backbone
from headstart.networks.catalogue import find_backbone
from headstart.networks.engine import KerasEngine, OpenVinoEngine, engine_name
from headstart.networks.weights import find_weights
from headstart.pictures.folder import ImageFile
from tiny import reference_pixels

pytestmark = pytest.mark.real

GOLDEN = Path(__file__).parent / "golden" / "packaged_features.npy"
SPEC = find_backbone("MobileNetV2")
TOLERANCE = 1e-4


@pytest.fixture
def weights(real_cache, empty_cache, monkeypatch):
    """The packaged weights, from the cache that is kept; the features go into an empty one, so they are computed."""
    monkeypatch.setenv("HEADSTART_CACHE", str(real_cache))
    found = find_weights(SPEC, "packaged")
    monkeypatch.setenv("HEADSTART_CACHE", str(empty_cache))
    return found


@pytest.fixture
def error(weights, tmp_path, monkeypatch):
    """How far the features of pixels are from the stored ones, by way of a file, the decoder and an engine."""

    fitting = weights.fitting_size(SPEC.image_size)

    def error(pixels, engine=KerasEngine, *, size=None, **changes):
        Image.fromarray(np.ascontiguousarray(pixels)).save(path := tmp_path / "picture.png")
        image = ImageFile(path, path.name, "thing", hashlib.sha256(path.read_bytes()).hexdigest())
        monkeypatch.setattr(extract, "make_engine", lambda build, *_: engine(build))
        backbone = build_backbone(SPEC, dataclasses.replace(weights, **changes), size or fitting)
        features = Extractor(backbone).extract([image])
        assert features.num_passes == 1
        return relative_error(features.values[0, 0], [stage.num_channels for stage in backbone.stages])

    return error


def relative_error(found, channels):
    """The length of the difference by the length of what is expected, where it is worst of ten parts.

    The parts are the means and the maxima of each stage: taken together, maxima of 6 would hide the small means. It is
    not taken number by number: a channel whose inputs are far from 0 and differ little is rounded to 1e-4 in float32.
    """
    ends = np.cumsum([number for number in channels for _ in ("mean", "max")])[:-1]
    pairs = zip(np.split(found, ends), np.split(np.load(GOLDEN, allow_pickle=False), ends), strict=True)
    return max(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs) for ours, theirs in pairs)


def test_the_picture_is_the_one_that_pytorch_saw():
    sha256 = "affbafecfb10d44faac3efe1b298d5cacda3feb7f964103e285e1e26d85d72f5"
    assert hashlib.sha256(reference_pixels().tobytes()).hexdigest() == sha256


@pytest.mark.parametrize("engine", [OpenVinoEngine, pytest.param(KerasEngine, marks=pytest.mark.backend)])
def test_packaged_weights_give_the_stored_features(engine, error):
    if engine is OpenVinoEngine and not engine_name().startswith("openvino"):
        pytest.skip("OpenVINO is not the engine here")
    assert error(reference_pixels(), engine) < TOLERANCE  # Measured: 2e-5.


@pytest.mark.parametrize(("turn", "changes"), [
    pytest.param(lambda pixels: pixels[:, :, ::-1], {}, id="blue first"),
    pytest.param(lambda pixels: pixels[:, ::-1], {}, id="mirrored"),
    pytest.param(lambda pixels: pixels[::-1], {}, id="upside down"),
    pytest.param(lambda pixels: pixels.swapaxes(0, 1), {}, id="rows for columns"),
    pytest.param(lambda pixels: pixels, {"size": 224}, id="224 pixels"),
    pytest.param(lambda pixels: pixels, {"preprocessing": "caffe"}, id="caffe"),
    pytest.param(lambda pixels: pixels, {"preprocessing": "tf"}, id="tf"),
])  # fmt: skip
def test_the_usual_mistakes_are_seen(turn, changes, error):
    assert error(turn(reference_pixels()), **changes) > 0.2  # Measured: 0.27 to 2.8.
