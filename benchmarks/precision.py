"""float32, bfloat16 and 8 bits of one network: how fast, how far from float32, and what a head fitted on them scores.

    python benchmarks/precision.py [BACKBONE ...] [--on solar-cells|textile] [--image-size 385] [--images 2624]

On the solar cells or the textile, 8 bits calibrated on 200 of the training images. MobileNetV2 has its ImageNet
weights, all others random ones, whose accuracy says only how little the precision moves it. Two accuracies for each
precision: fitted and tested on its own features; and fitted on them but tested on float32, which is what the saved
model computes.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from elpv import write_manifest
from table import row

from headstart.errors import DataError
from headstart.features.extract import Extractor
from headstart.features.pooling import feature_model
from headstart.learning.logistic import fit_linear_head
from headstart.networks.backbone import build_backbone
from headstart.networks.catalogue import find_backbone
from headstart.networks.precision import PRECISIONS
from headstart.networks.weights import find_weights
from headstart.pictures.decode import decode, read
from headstart.pictures.published import fetch_images
from headstart.pictures.scan import scan
from headstart.pictures.split import assign_splits

SEED_NETWORKS = ("MobileNetV2", "MobileNet", "ResNet50", "ResNet101", "InceptionV3", "Xception", "VGG16", "VGG19")
NUM_CALIBRATED = 200
NUM_TIMED = 128
COLUMNS = (
    "backbone", "precision", "images/s", "worst cosine", "mean cosine", "accuracy", "in float32", "largest to Keras"
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("backbones", nargs="*", default=SEED_NETWORKS)
    parser.add_argument("--on", choices=("solar-cells", "textile"), default="solar-cells")
    parser.add_argument("--image-size", type=int, help="the network's own by default")
    parser.add_argument("--images", type=int, default=2624)
    parser.add_argument("--against-keras", type=int, default=128, help="images that Keras computes too")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    images, is_test = solar_cells() if options.on == "solar-cells" else textile()
    order = np.random.default_rng(0).permutation(len(images))[: options.images]  # Any first part is a sample.
    images, is_test = [images[index] for index in order], is_test[order]
    find_weights(find_backbone("MobileNetV2"))
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    for name in options.backbones:
        lines: dict[str, tuple[str, ...]] = {}
        for line in measure(name, images, is_test, options):
            print("| " + " | ".join(line) + " |", flush=True)
            lines[line[1]] = line
        if {"bf16", "int8"} <= lines.keys():
            faster = float(lines["int8"][2]) / float(lines["bf16"][2])
            row(f"int8 against bf16, {name}: images a second", f"{faster:.2f}x", "1.5x on ResNet50")
            row(f"int8 against fp32, {name}: accuracy", f"{lines['int8'][5]} and {lines['fp32'][5]}", "0.5 points")
        gc.collect()


def solar_cells():
    """Images, and which of them are the test part of seed 0."""
    folder = fetch_images("solar-cells").parent
    with tempfile.TemporaryDirectory() as temporary:
        manifest = Path(temporary) / "elpv.csv"
        write_manifest(folder, 0, manifest)
        images = scan(manifest).images
    return images, np.array([image.split == "test" for image in images])


def textile():
    folder = scan(fetch_images("textile"))
    return folder.images, np.array([split == "test" for split in assign_splits(folder, seed=0)])


def measure(name, images, is_test, options):
    spec = find_backbone(name)
    weights = find_weights(spec, "auto" if spec.packaged else "none")
    backbone = build_backbone(spec, weights, weights.fitting_size(options.image_size or spec.image_size), seed=0)
    calibration = [image for image, test in zip(images, is_test, strict=True) if not test][:NUM_CALIBRATED]
    labels = np.unique([image.label for image in images], return_inverse=True)[1]
    pixels = [
        decode(read(image.path), (backbone.image_size,) * 2)
        for image in images[: max(NUM_TIMED, options.against_keras)]
    ]
    values, extractors = {}, {}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["HEADSTART_CACHE"] = cache
        for precision in PRECISIONS:
            extractor = Extractor(backbone, precision=precision, calibration=calibration)
            try:
                values[precision] = extractor.extract(images).values
            except DataError as error:
                print(f"{precision} left out: {error}")
                continue
            extractors[precision] = extractor
        keras = np.asarray(
            feature_model(backbone).predict(np.stack(pixels[: options.against_keras]), batch_size=16, verbose=0)
        )
        speeds = {precision: [] for precision in extractors}
        for _ in range(options.rounds):
            for precision, extractor in extractors.items():
                speeds[precision].append(images_per_second(extractor.engine(), pixels))
    train = ~is_test
    units = np.arange(train.sum())
    exact = values["fp32"]
    for precision, found in values.items():
        head = fit_linear_head(found[train], labels[train], labels.max() + 1, units, seed=0)
        own, shipped = (
            (head.probabilities(each[is_test]).argmax(axis=1) == labels[is_test]).mean() for each in (found, exact)
        )
        near = cosine(found[:, 0], exact[:, 0])
        far = np.linalg.norm(found[: len(keras), 0] - keras, axis=1) / np.linalg.norm(keras, axis=1)
        title = f"{name}{'' if weights.path else ' (random)'}, {backbone.image_size} px"
        speed = statistics.median(speeds[precision])
        figures = (f"{speed:.1f}", f"{near.min():.4f}", f"{near.mean():.4f}", f"{own:.1%}", f"{shipped:.1%}")
        yield title, precision, *figures, f"{far.max():.1e}"


def images_per_second(engine, pixels, seconds=2.0):
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        done += sum(1 for _ in engine.stream((None, each) for each in pixels[:64]))
    return done / (time.perf_counter() - start)


def cosine(first, second):
    return (first * second).sum(axis=1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)


if __name__ == "__main__":
    main()
