from __future__ import annotations

import dataclasses
import hashlib
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from headstart.errors import DataError, UnknownNameError
from headstart.features import decoding, feature_pass
from headstart.features.extract import Extractor, extract_together
from headstart.features.pooling import ACTIVATIONS, POOLED, feature_model, pooled_blocks
from headstart.features.store import FeatureStore
from headstart.networks import engine as engine_module
from headstart.networks.backend import keras
from headstart.networks.engine import BATCH_SIZE, KerasEngine, engine_name, keras_engine_name, make_engine
from headstart.networks.stages import cut_tensor
from headstart.pictures.decode import decode
from headstart.pictures.views import VIEWS, box_of, crop_views
from tiny import drawn_pixels, tiny_backbone, write_images

FOUR = tuple(VIEWS)


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.fixture
def images(tmp_path, empty_cache):
    return write_images(tmp_path / "photos", 20)


@pytest.mark.backend
def test_computes_once_and_gives_the_same_bits_again(backbone, images):
    first = Extractor(backbone).extract(images, FOUR)
    again = Extractor(backbone).extract(images, FOUR)
    assert first.values.shape == (20, 4, 2 * (4 + 6))
    assert first.values.dtype == np.float32
    assert (first.num_passes, len(first.computed)) == (80, 20)
    assert (again.num_passes, again.computed) == (0, frozenset())
    assert first.values.tobytes() == again.values.tobytes()


@pytest.mark.backend
def test_features_are_the_mean_and_maximum_of_every_stage(backbone, images):
    pixels = np.stack([decode(image.path.read_bytes(), (32, 32)) for image in images[:3]])
    outputs = [cut_tensor(backbone.model, stage) for stage in backbone.stages]
    expected = []
    for view in FOUR:
        stages = keras.Model(backbone.model.inputs[0], outputs).predict(
            np.ascontiguousarray(VIEWS[view](pixels)), verbose=0
        )
        pooled = [pool(np.asarray(stage), axis=(1, 2)) for stage in stages for pool in (np.mean, np.max)]
        expected.append(np.concatenate(pooled, axis=1))
    found = Extractor(backbone).extract(images[:3], FOUR).values
    np.testing.assert_allclose(found, np.stack(expected, axis=1), atol=1e-4)


def test_activations_are_the_networks_own(backbone, images):
    pixels = np.stack([decode(image.path.read_bytes(), (32, 32)) for image in images[:3]])
    expected = np.asarray(backbone.model.predict(pixels, verbose=0)).reshape(3, -1)
    found = Extractor(backbone, ACTIVATIONS).extract(images[:3]).values[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_ten_more_images_cost_ten(backbone, images, tmp_path):
    before = Extractor(backbone).extract(images)
    more = write_images(tmp_path / "photos", 10, start=20)
    after = Extractor(backbone).extract([*more, *images])
    assert (after.num_passes, after.computed) == (10, {image.name for image in more})
    assert after.values[10:].tobytes() == before.values.tobytes()


def test_a_new_view_alone_is_stored_beside(backbone, images):
    plain = Extractor(backbone).extract(images)
    both = Extractor(backbone).extract(images, ("as_is", "mirrored"))
    np.testing.assert_allclose(both.values[:, 0], plain.values[:, 0], atol=1e-6)
    assert Extractor(backbone).extract(images, ("mirrored",)).num_passes == 0


def test_renaming_and_relabelling_computes_nothing(backbone, images, tmp_path):
    before = Extractor(backbone).extract(images)
    renamed = []
    for image in images:
        path = tmp_path / "elsewhere" / f"new-{image.name}"
        path.parent.mkdir(exist_ok=True)
        shutil.move(image.path, path)
        renamed.append(dataclasses.replace(image, path=path, name=path.name, label="other"))
    after = Extractor(backbone).extract(renamed)
    assert after.num_passes == 0
    assert after.values.tobytes() == before.values.tobytes()


def test_duplicates_are_computed_once(backbone, images):
    twice = [*images[:2], dataclasses.replace(images[0], name="copy.png")]
    found = Extractor(backbone).extract(twice)
    assert found.num_passes == 2
    assert np.array_equal(found.values[0], found.values[2])


def test_another_network_or_size_shares_nothing(backbone, images):
    Extractor(backbone).extract(images)
    for other in (tiny_backbone(seed=1), tiny_backbone(36)):
        assert Extractor(other).extract(images).num_passes == 20
    assert Extractor(tiny_backbone()).extract(images).num_passes == 0


def test_what_cannot_be_decoded_is_left_out_with_its_reason(backbone, images):
    images[3].path.write_bytes(b"changed since the scan")
    images[5].path.unlink()
    broken = images[7].path.parent / "broken.png"
    broken.write_bytes(b"no picture")
    sha256 = hashlib.sha256(broken.read_bytes()).hexdigest()
    broken_image = dataclasses.replace(images[7], path=broken, name="broken.png", sha256=sha256)
    found = Extractor(backbone).extract([*images, broken_image], ("as_is", "turned"))
    reasons = {failure.name: failure.reason for failure in found.failures}
    assert list(reasons) == ["003.png", "005.png", "broken.png"]
    assert reasons["003.png"] == "it changed while headstart was running"
    assert all(reasons.values())
    assert found.values.shape[:2] == (18, 2)
    assert found.num_passes == 36
    good = [image for image in images if image.name not in reasons]
    again = Extractor(backbone).extract(good, ("as_is", "turned"))
    assert again.num_passes == 0
    assert again.values.tobytes() == found.values.tobytes()


def test_nothing_usable_gives_nothing(backbone, images):
    for image in images[:2]:
        image.path.unlink()
    found = Extractor(backbone).extract(images[:2], FOUR)
    assert found.values.shape == (0, 4, 0)
    assert (len(found.failures), found.num_passes, found.computed) == (2, 0, frozenset())


@pytest.mark.parametrize("per_shard", [512, 1])
def test_an_interrupted_run_keeps_what_it_computed(backbone, tmp_path, empty_cache, monkeypatch, per_shard):
    monkeypatch.setattr(feature_pass, "_ROWS_PER_SHARD", per_shard)
    images = write_images(tmp_path / "photos", 3 * BATCH_SIZE)

    def stop(step, done, total):
        if done >= 2 * BATCH_SIZE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Extractor(backbone).extract(images, ("as_is", "mirrored"), progress=stop)
    found = Extractor(backbone).extract(images, ("as_is", "mirrored"))
    assert found.num_passes == 2 * BATCH_SIZE
    assert found.computed == {image.name for image in images[2 * BATCH_SIZE :]}
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "fresh"))
    whole = Extractor(backbone).extract(images, ("as_is", "mirrored"))
    assert whole.values.tobytes() == found.values.tobytes()


def test_progress_counts_every_image(backbone, images):
    Extractor(backbone).extract(images[:5])
    steps = []
    Extractor(backbone).extract(images, step="Looking", progress=lambda *step: steps.append(step))
    assert steps[:2] == [("Preparing Tiny at 32 px", 0, 1), ("Preparing Tiny at 32 px", 1, 1)]
    steps = steps[2:]  # What comes before the first image is no part of the time that an image takes.
    assert steps[0] == ("Looking at 32 px", 5, 20)
    assert steps[-1] == ("Looking at 32 px", 20, 20)
    assert [done for _, done, _ in steps] == sorted(done for _, done, _ in steps)


@pytest.mark.backend
@pytest.mark.parametrize("number", [1, BATCH_SIZE - 1, BATCH_SIZE])
def test_the_engine_of_keras_runs_any_number(backbone, number):
    pixels = drawn_pixels(32, number)
    model = feature_model(backbone)
    engine = KerasEngine(lambda: model)
    rows = engine.run(pixels)
    assert engine.name == keras_engine_name()
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, np.asarray(model.predict(pixels, verbose=0)), atol=1e-5)


@pytest.mark.parametrize("name", ["Tiny", "MobileNetV2"])
def test_openvino_computes_what_keras_computes(backbone, backbone_of, name):
    pytest.importorskip("openvino")
    body = backbone if name == "Tiny" else backbone_of(name)
    model = feature_model(body)
    pixels = drawn_pixels(32, 5)
    engine = make_engine(lambda: model)
    assert engine.name == engine_name()
    assert engine.name.startswith("openvino ")
    ours, theirs = engine.run(pixels), KerasEngine(lambda: model).run(pixels)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * max(1, np.abs(theirs).max()))


@pytest.mark.backend
def test_activations_at_a_cut_are_kept_in_half_precision(backbone, images):
    pixels = np.stack([decode(image.path.read_bytes(), (32, 32)) for image in images])
    cut = keras.Model(backbone.model.inputs[0], cut_tensor(backbone.model, backbone.stages[0]))
    expected = np.asarray(cut.predict(pixels, verbose=0))
    features = Extractor(backbone, "stage1").extract(images)
    found = features.of("stage1")
    assert (found.dtype, found.shape) == (np.float16, (20, 1, *expected.shape[1:]))
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-3, atol=1e-4)
    assert features.of("stage1", 4, 7).tobytes() == found[4:7].tobytes()
    with pytest.raises(UnknownNameError, match="There is no stage 'stage7'"):
        Extractor(backbone, "stage7").extract(images)


def test_an_output_that_is_asked_for_twice_is_computed_once(backbone):
    """OpenVINO would crash on one result that is two."""
    assert Extractor(backbone, "stage1", POOLED, "stage1").outputs == ("stage1", POOLED)


def test_activations_too_large_for_half_precision_are_refused(backbone, images):
    loud = tiny_backbone()
    layer = loud.model.get_layer("conv1")
    layer.set_weights([1e6 * weight for weight in layer.get_weights()])
    norm = loud.model.get_layer("norm1")
    norm.set_weights([*norm.get_weights()[:3], np.full(4, 1e-6, np.float32)])
    loud = dataclasses.replace(loud, fingerprint="loud")
    with pytest.raises(DataError, match="Activations of stage1 are too large for half precision"):
        Extractor(loud, "stage1").extract(images)
    assert Extractor(loud).extract(images).values.shape == (20, 1, 20)


@pytest.mark.backend
def test_several_outputs_networks_and_sizes_share_one_decoding(backbone, images, monkeypatch):
    other = dataclasses.replace(tiny_backbone(48, seed=5), fingerprint="other")
    extractors = [Extractor(backbone, POOLED, "stage1"), Extractor(other)]
    alone = Extractor(other).extract(images[:7], ("as_is", "mirrored"))
    decoded = []
    decode_parts = decoding.decode_parts
    monkeypatch.setattr(decoding, "decode_parts", lambda data, *more: decoded.append(data) or decode_parts(data, *more))
    first, second = extract_together(extractors, images, ("as_is", "mirrored"))
    assert len(decoded) == 20
    assert (first.num_passes, second.num_passes) == (40, 26)
    assert second.computed == {image.name for image in images[7:]}
    assert second.values[:7].tobytes() == alone.values.tobytes()
    assert extract_together(extractors, images, ("as_is", "mirrored"))[0].num_passes == 0
    assert first.of(POOLED).tobytes() == Extractor(backbone).extract(images, ("as_is", "mirrored")).values.tobytes()


def test_crops_are_settled_by_their_name_and_the_picture(backbone, images):
    crops = crop_views(3, seed=0)
    found = Extractor(backbone).extract(images, ("as_is", *crops)).values
    assert Extractor(backbone).extract(list(reversed(images)), crops).num_passes == 0
    assert len({found[0, view].tobytes() for view in range(4)}) == 4
    other = Extractor(backbone).extract(images, crop_views(1, seed=1))
    assert other.num_passes == 20
    assert not np.array_equal(other.values[:, 0], found[:, 1])
    left, top, right, bottom = box_of(crops[0], images[0].sha256)
    with Image.open(images[0].path) as picture:
        wide, high = picture.size
        box = (left * wide, top * high, right * wide, bottom * high)
        part = np.asarray(picture.convert("RGB").resize((32, 32), Image.Resampling.BICUBIC, box=box))
    expected = make_engine(lambda: feature_model(backbone)).run(part[None])[0]
    assert found[0, 1].tobytes() == expected.tobytes()
    with pytest.raises(DataError, match="There is no view 'sideways'"):
        Extractor(backbone).extract(images, ("sideways",))


def test_a_crop_lies_in_the_picture_and_shows_a_third_of_it_or_more():
    for number in range(300):
        left, top, right, bottom = box_of(f"crop{number}-seed7", "ab" * 32)
        assert 0 <= left < right <= 1 + 1e-9
        assert 0 <= top < bottom <= 1 + 1e-9
        assert (right - left) * (bottom - top) > 0.3
    assert box_of("mirrored", "ab" * 32) == (0, 0, 1, 1)


def test_memory_does_not_hold_the_features(backbone, images, monkeypatch):
    monkeypatch.setattr(feature_pass, "_ROWS_PER_SHARD", 2)
    most = []
    monkeypatch.setattr(
        feature_pass.Job, "take", lambda job, *more, take=feature_pass.Job.take: (
            take(job, *more), most.append(sum(map(len, job._fresh.values())))
        ),
    )  # fmt: skip
    Extractor(backbone).extract(images)
    assert max(most) <= 2


@pytest.mark.parametrize("name", ["Tiny", "MobileNetV2"])
def test_an_image_gives_the_same_bits_in_any_company(backbone, backbone_of, name, empty_cache):
    chosen = backbone if name == "Tiny" else backbone_of(name)
    size = chosen.model.inputs[0].shape[1]
    pixels = drawn_pixels(size, 9)
    together = [
        rows[0] for _, rows in make_engine(lambda: feature_model(chosen)).stream((None, each) for each in pixels)
    ]
    alone = [make_engine(lambda: feature_model(chosen)).run(each[None])[0] for each in pixels[:3]]
    assert np.stack(together[:3]).tobytes() == np.stack(alone).tobytes()


def test_a_stream_that_is_left_early_can_be_followed_by_another(backbone):
    engine = make_engine(lambda: feature_model(backbone))
    pixels = drawn_pixels(32, 12)
    next(engine.stream((None, each) for each in pixels))
    tags, rows = zip(*engine.stream(enumerate(pixels)), strict=True)
    assert tags == tuple(range(12))
    np.testing.assert_array_equal(np.stack([row[0] for row in rows]), engine.run(pixels))


def test_a_slow_disk_holds_the_network_up_and_not_the_memory(backbone, images, monkeypatch):
    monkeypatch.setattr(feature_pass, "_ROWS_PER_SHARD", 1)
    waiting = []
    add = FeatureStore.add

    def slow(store, rows):
        time.sleep(0.02)
        return add(store, rows)

    monkeypatch.setattr(FeatureStore, "add", slow)
    take = feature_pass.Job.take
    monkeypatch.setattr(
        feature_pass.Job, "take", lambda job, *more: (take(job, *more), waiting.append(len(job._writing)))
    )
    assert Extractor(backbone).extract(images).values.shape == (20, 1, 20)
    assert 1 < max(waiting) <= feature_pass._SHARDS_WAITING


def test_on_a_gpu_keras_computes_in_larger_batches_under_a_name_of_its_own(backbone, images, monkeypatch):
    """There is none here, so Keras is made to believe it: the way taken is the same."""
    on_cpu = engine_name()
    monkeypatch.setattr(engine_module, "has_gpu", lambda: True)
    assert engine_name().startswith("keras") and " gpu " in engine_name() != on_cpu
    seen = []
    model = feature_model(backbone)
    predict = model.predict_on_batch
    monkeypatch.setattr(model, "predict_on_batch", lambda pixels: seen.append(len(pixels)) or predict(pixels))
    engine = make_engine(lambda: model)
    assert isinstance(engine, KerasEngine)
    pixels = drawn_pixels(32, 70)
    rows = np.stack([row for _, (row,) in engine.stream(enumerate(pixels))])
    assert seen == [64, 64]
    np.testing.assert_allclose(rows, np.asarray(model.predict(pixels, verbose=0)), atol=1e-5)
    assert Extractor(backbone).extract(images).num_passes == 20


@pytest.mark.parametrize("name", ["MobileNetV2", "dinov2_small", "swin_tiny_patch4_window7_224"])
def test_blocks_are_the_parts_of_the_pooled_features(backbone_of, name):
    body = backbone_of(name)
    blocks = pooled_blocks(body.stages, has_token=body.ends_in_tokens)
    assert sum(blocks) == feature_model(body).output.shape[-1]
    assert len(blocks) == 2 * len(body.stages) + body.ends_in_tokens
