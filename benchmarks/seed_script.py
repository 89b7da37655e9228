"""The usual transfer-learning script, as it stands in a hundred tutorials: the thing headstart is timed against.

A frozen network that is run again in every epoch, a Flatten head, ``image_dataset_from_directory``. It is given the
same files, the same weights and their preprocessing, so that only the recipe differs.

    python benchmarks/seed_script.py FOLDER --epochs 20
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras

from headstart.networks.backbone import build_backbone
from headstart.networks.catalogue import find_backbone
from headstart.networks.weights import find_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--backbone", default="MobileNetV2")
    parser.add_argument("--weights", default="auto")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    size = (arguments.size, arguments.size)
    train, val = keras.utils.image_dataset_from_directory(
        arguments.folder, validation_split=0.25, subset="both", seed=0, image_size=size, label_mode="categorical"
    )
    spec = find_backbone(arguments.backbone)
    base = build_backbone(spec, find_weights(spec, arguments.weights), arguments.size, dtype="float32").model
    x = keras.layers.Flatten()(base.output)
    x = keras.layers.Dense(256, activation="relu")(x)
    x = keras.layers.Dense(len(train.class_names), activation="softmax")(x)
    model = keras.Model(base.inputs[0], x)
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    start = time.perf_counter()
    history = model.fit(train, validation_data=val, epochs=arguments.epochs, verbose=0).history
    seconds = time.perf_counter() - start
    print(
        f"seed script: {seconds / arguments.epochs:.1f} s an epoch, training accuracy {history['accuracy'][-1]:.3f}, "
        f"validation accuracy {history['val_accuracy'][-1]:.3f}"
    )


if __name__ == "__main__":
    main()
