"""Networks compiled for this machine: kept, found again, never wrong, and Ctrl-C while they are made."""

from __future__ import annotations

import contextlib
import signal
from types import SimpleNamespace

import numpy as np
import pytest

from headstart.errors import GuardError
from headstart.features.pooling import feature_model
from headstart.networks import compiled
from headstart.networks.backbone import build_backbone
from headstart.networks.backend import keras
from headstart.networks.catalogue import find_backbone
from headstart.networks.compiled import Setting, compile_for_here
from headstart.networks.engine import OpenVinoEngine
from headstart.networks.weights import find_weights
from tiny import drawn_pixels, narrowed, tiny_backbone

openvino = pytest.importorskip("openvino")


@pytest.fixture
def cache(empty_cache, monkeypatch):
    """An empty cache, and quick measurements."""
    monkeypatch.setattr(compiled, "_SECONDS_PER_ROUND", 0.005)
    return empty_cache / "engines"


@pytest.fixture
def conversions(monkeypatch):
    """Counts how often a network is converted."""
    calls = []
    convert = openvino.convert_model
    monkeypatch.setattr(openvino, "convert_model", lambda model, **how: calls.append(model) or convert(model, **how))
    return calls


@pytest.fixture
def model():
    return feature_model(tiny_backbone())


def answer(model, identity="a"):
    return OpenVinoEngine(lambda: model, identity).run(drawn_pixels(32, 5))


def test_is_converted_once_and_gives_the_same_bits_from_disk(cache, conversions, model):
    first = answer(model)
    assert len(conversions) == 1
    assert answer(model).tobytes() == first.tobytes()
    assert len(conversions) == 1
    np.testing.assert_allclose(first, np.asarray(model.predict(drawn_pixels(32, 5), verbose=0)), atol=1e-5)
    answer(model, "b")
    assert len(conversions) == 2
    answer(model, "")
    assert len(conversions) == 3
    assert len(list(cache.glob("*.blob"))) == 2


@pytest.mark.parametrize("place", [0, 40, 5000, -1])
def test_one_flipped_bit_is_found_out(cache, conversions, model, place):
    first = answer(model)
    (blob,) = cache.glob("*.blob")
    data = bytearray(blob.read_bytes())
    data[place] ^= 1
    blob.write_bytes(data)
    assert answer(model).tobytes() == first.tobytes()
    assert len(conversions) == 2
    answer(model)
    assert len(conversions) == 2  # It was mended.


@pytest.mark.parametrize("text", [b"", b"x", b"\0" * 100])
def test_what_is_no_network_is_made_anew(cache, conversions, model, text):
    first = answer(model)
    (blob,) = cache.glob("*.blob")
    blob.write_bytes(text)
    assert answer(model).tobytes() == first.tobytes()
    assert len(conversions) == 2


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, monkeypatch, conversions, model):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(compiled, "_SECONDS_PER_ROUND", 0.005)
    assert answer(model).tobytes() == answer(model).tobytes()
    assert len(conversions) == 2


def test_the_setting_is_measured_once_and_remembered(cache, monkeypatch, model):
    rates = {1: 100.0, 4: 150.0, 16: 50.0}
    asked = []

    def images_per_second(network, shape, setting, *, seconds):
        asked.append(setting)
        return rates[setting.batch_size]

    monkeypatch.setattr(compiled, "_images_per_second", images_per_second)
    assert compile_for_here(lambda: model, "a")[0] == 4
    measured = len(asked)
    assert measured
    assert compile_for_here(lambda: model, "b")[0] == 4
    assert len(asked) == measured
    (setting,) = cache.glob("setting-*.json")
    for text in (
        "{}",
        "[",
        '{"setting": {"batch_size": 0, "streams": 0, "threads": 2}}',
        '{"setting": {"streams": 2}}',
    ):
        setting.write_text(text)
        assert compile_for_here(lambda: model, "b")[0] == 4
    setting.write_text("")
    rates[4] = 105.0  # A little faster is not enough.
    assert compile_for_here(lambda: model, "b")[0] == 1


@pytest.mark.parametrize(
    ("default", "other", "chosen", "timed"),
    [
        ([0.1, 100.0, 100.0], [90.0, 90.0, 90.0], 1, [1, 4, 16] * 3),  # A burst of another process ...
        ([100.0, 100.0, 100.0], [150.0, 0.1, 150.0], 4, [1, 4, 16, 1, 4, 16, 1, 4]),  # ... does not decide.
        ([100.0, 100.0, 100.0], [90.0, 90.0, 150.0], 1, [1, 4, 16, 1, 4, 16]),
    ],
)
def test_a_setting_that_is_mostly_no_faster_is_not_timed_again(
    cache, monkeypatch, model, default, other, chosen, timed
):
    rates = {1: iter(default), 4: iter(other)}
    asked = []

    def images_per_second(network, shape, setting, *, seconds):
        if not seconds:
            return 0.0
        asked.append(setting.batch_size)
        return next(rates[setting.batch_size]) if setting.batch_size in rates else 50.0

    monkeypatch.setattr(compiled, "_images_per_second", images_per_second)
    assert compile_for_here(lambda: model, "a")[0] == chosen
    assert asked == timed


def test_every_setting_gives_the_same_bits(monkeypatch, cache, model):
    answers = set()
    for setting in (Setting(1, 2, 2), Setting(3, 1, 1), Setting(4, 2, 2), Setting(16, 1, 2)):
        monkeypatch.setattr(compiled, "default_setting", lambda setting=setting: setting)
        answers.add(answer(model, "").tobytes())
    assert len(answers) == 1


def test_an_interrupt_that_the_converter_swallows_is_one_all_the_same(monkeypatch, cache, model):
    """OpenVINO's reports an operation that it could not convert."""

    def swallow(_, **how):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise RuntimeError("unconverted operations")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        monkeypatch.setattr(openvino, "convert_model", swallow)
        with pytest.raises(KeyboardInterrupt):
            answer(model)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        monkeypatch.setattr(openvino, "convert_model", lambda _, **how: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            answer(model)
    finally:
        signal.signal(signal.SIGINT, before)


def test_several_outputs_come_in_the_models_order():
    """The converter sorts them by name, and as a word output 10 comes before output 2."""
    pixels = np.random.default_rng(0).integers(0, 255, (1, 32, 32, 3)).astype(np.uint8)
    images = keras.Input((32, 32, 3), dtype="uint8")
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1.0)(images))
    outputs = [keras.layers.Rescaling(1.0, offset=number)(mean) for number in range(12)]
    engine = OpenVinoEngine(lambda: keras.Model(images, outputs))
    ((_, rows),) = engine.stream([("one", pixels[0])])
    np.testing.assert_allclose(rows, pixels[0].mean((0, 1)) + np.arange(12)[:, None], rtol=1e-5)


def test_a_converter_that_is_wrong_is_found_out_and_nothing_is_kept(cache, monkeypatch, model):
    convert = openvino.convert_model

    def a_little_wrong(traced, **how):
        converted = convert(traced, **how)
        node = converted.output("output 0").get_node().input_value(0)
        other = openvino.opset13.multiply(node, np.float32(1.002))
        other.output(0).get_tensor().set_names({"output 0"})
        return openvino.Model([other], converted.get_parameters(), "wrong")

    monkeypatch.setattr(openvino, "convert_model", a_little_wrong)
    with pytest.raises(GuardError, match=r"differ by 0\.002 of their length.*pip uninstall openvino"):
        answer(model)
    assert not list(cache.glob("*.blob"))
    monkeypatch.undo()
    assert np.isfinite(answer(model, "")).all()


def test_a_network_that_gives_no_numbers_goes_no_further(cache):
    """OpenVINO makes zeros of what is no number."""
    backbone = tiny_backbone()
    backbone.model.weights[0].assign(backbone.model.weights[0] * np.nan)
    with pytest.raises(GuardError, match="differ by nan"):
        answer(feature_model(backbone))


@pytest.mark.parametrize("wrong", [2.0, np.nan])
@pytest.mark.parametrize("stream", [0, 1])
@pytest.mark.parametrize("row", [0, 1])
def test_one_row_of_one_stream_that_is_wrong_is_found_out(model, stream, row, wrong):
    traced = compiled._traced(model)
    setting = Setting(2, 2, 2)
    asked = []
    network = SimpleNamespace(create_infer_request=lambda: asked.append(Stream(traced)) or asked[-1])
    compiled._check_against_keras(traced, network, setting, "Tiny")
    assert len(asked) == setting.streams
    asked.clear()
    network.create_infer_request = lambda: asked.append(Stream(traced, row, wrong, len(asked) == stream)) or asked[-1]
    with pytest.raises(GuardError, match="features of Tiny"):
        compiled._check_against_keras(traced, network, setting, "Tiny")


class Stream:
    """A request of OpenVINO's that Keras answers; it may be wrong in one row."""

    def __init__(self, traced, row=0, factor=1.0, is_wrong=False):
        self.traced, self.row, self.factor = traced, row, factor if is_wrong else 1.0

    def start_async(self, inputs):
        self.rows = self.traced(keras.ops.convert_to_tensor(inputs[0]))["output 0"].numpy()
        self.rows[self.row] *= self.factor

    def wait(self):
        self.output_tensors = [SimpleNamespace(data=self.rows)]


def narrow(name):
    spec = narrowed(find_backbone(name))
    return build_backbone(spec, find_weights(spec, "none"), spec.smallest_size, seed=0)


TRANSFORMERS = ("vit_base_patch16_224_imagenet", "dinov2_with_registers_small", "siglip2_base_patch16_224",
                "clip_vit_base_patch16", "swin_tiny_patch4_window7_224")  # fmt: skip


MOVES = {"Reorder", "Reshape", "Output"}
"""What weights go through: the same numbers, laid out anew."""


@pytest.mark.parametrize("name", ["tiny", *TRANSFORMERS])
def test_no_constant_is_left_to_be_computed_in_every_stream(name):
    """Streams compute it side by side in the same place: positions were off by one, now and then."""
    model = feature_model(tiny_backbone() if name == "tiny" else narrow(name))
    _, network = compile_for_here(lambda: model, "")
    computed = []
    operations = network.get_runtime_model().get_ordered_ops()
    assert "Const" in map(kind_of, operations)  # Else they are called something else now, and nothing is tested.
    for operation in operations:
        sources = [kind_of(each.get_source_output().get_node()) for each in operation.inputs()]
        if set(sources) == {"Const"} and kind_of(operation) not in MOVES:
            computed.append(operation.get_friendly_name())
    assert not computed


def kind_of(operation):
    return operation.get_rt_info()["layerType"].astype(str)


@pytest.mark.parametrize("name", ["vit_base_patch16_224_imagenet", "swin_tiny_patch4_window7_224"])
def test_a_transformer_gives_what_keras_gives(name):
    backbone = narrow(name)
    model, pixels = feature_model(backbone), drawn_pixels(backbone.image_size, 2)
    expected = np.asarray(model.predict(pixels, verbose=0))
    rows = OpenVinoEngine(lambda: model).run(pixels)
    np.testing.assert_allclose(rows, expected, atol=1e-4 * np.abs(expected).max())
