"""An epoch of tuning the last stage on stored activations, against Keras's `fit` over the whole network.

Same network (random weights: it is the time that counts), same layers frozen, same head on all stages, same textile
pictures in batches of the same size. Each round makes two epochs of either, in turn, of which the second is timed: the
first compiles.

    python benchmarks/tuning_epoch.py
    python benchmarks/tuning_epoch.py --backbones VGG16 --images 128
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time

import numpy as np
from table import row

import headstart
from headstart.features.extract import Extractor
from headstart.features.pooling import POOLED
from headstart.learning.heads import linear_layer
from headstart.learning.held_out import HeldOut
from headstart.learning.lessons import Lessons
from headstart.learning.logistic import LinearHead
from headstart.learning.material import PixelMaterial, StoredMaterial
from headstart.learning.schedule import Schedule
from headstart.learning.tail import open_tail, stages_that_learn
from headstart.learning.tuning import Phase, tune
from headstart.networks.backbone import AS_IS, build_backbone
from headstart.networks.backend import keras
from headstart.networks.catalogue import find_backbone
from headstart.networks.weights import find_weights
from headstart.pictures.folder import ImageFolder
from headstart.pictures.published import fetch_images
from headstart.progress import silent

BATCH_SIZE = 16
BARS = {"VGG16": "3.5x", "ResNet50": "2x"}


def opened(spec, size: int, num_classes: int):
    """A fresh network with a head, its last stage that has weights open."""
    backbone = build_backbone(spec, find_weights(spec, "none"), size, dtype="float32", seed=0)
    width = 2 * sum(stage.num_channels for stage in backbone.stages)
    kernel = np.random.default_rng(0).normal(0, 0.01, (width, num_classes)).astype(np.float32)
    head = linear_layer(LinearHead(kernel, np.zeros(num_classes, np.float32), 1.0, HeldOut.nothing()))
    return backbone, open_tail(backbone, head, stages_that_learn(backbone)[0])


def keras_seconds(model: keras.Model, pixels: np.ndarray, one_hot: np.ndarray) -> float:
    times = []
    clock = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: times.append(-time.perf_counter()),
        on_epoch_end=lambda epoch, logs: times.append(times.pop() + time.perf_counter()),
    )
    model.fit(pixels, one_hot, batch_size=BATCH_SIZE, epochs=2, verbose=0, callbacks=[clock])
    return times[1]


def compare(name: str, images: ImageFolder, num_images: int, rounds: int) -> None:
    spec = find_backbone(name)
    size = spec.image_size
    chosen = [images.images[int(number)] for number in np.linspace(0, len(images) - 1, num_images)]
    labels = np.array([images.class_names.index(image.label) for image in chosen])
    one_hot = np.eye(len(images.class_names), dtype=np.float32)[labels]
    backbone, tail = opened(spec, size, len(images.class_names))
    features = Extractor(backbone, tail.cut.name, POOLED).extract(chosen, AS_IS)
    stored = StoredMaterial(features, tail.cut.name, POOLED, tail.num_constants)
    everyone = np.arange(num_images)
    lessons = Lessons(stored, labels, len(images.class_names), everyone, everyone[:0])
    phase = Phase("last stage", Schedule(2, BATCH_SIZE, 1e-5), seed=0)
    (pixels,) = PixelMaterial(chosen, size, AS_IS, silent).batch(everyone, 0 * everyone)
    whole = opened(spec, size, len(images.class_names))[1].whole
    whole.compile(keras.optimizers.AdamW(1e-5), "categorical_crossentropy")
    theirs, ours = [], []
    for _ in range(rounds):
        theirs.append(keras_seconds(whole, pixels, one_hot))
        ours.append(num_images / tune(tail.model, lessons, phase).history[1].images_per_second)
        print(f"{name}: Keras's fit {theirs[-1]:.1f} s, above the cut {ours[-1]:.1f} s", flush=True)
    ratio = statistics.median(one / two for one, two in zip(theirs, ours, strict=True))
    row(f"an epoch of tuning above {tail.cut.name}, {name}, over the whole network's", f"{ratio:.2f}x", BARS.get(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", default="VGG16,ResNet50")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    images = headstart.scan(fetch_images("textile"))
    with tempfile.TemporaryDirectory() as cache:
        os.environ["HEADSTART_CACHE"] = cache
        for name in arguments.backbones.split(","):
            compare(name, images, arguments.images, arguments.rounds)


if __name__ == "__main__":
    main()
