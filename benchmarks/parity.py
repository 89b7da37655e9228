"""One answer three ways, on every test image of a run: plain Keras, `headstart predict`, the stored features' scores.

python benchmarks/parity.py runs/demo-textile
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import keras
import numpy as np

import headstart
from headstart.pictures.decode import decode, read


def main() -> None:
    run = Path(sys.argv[1])
    names = json.loads((run / "labels.json").read_text())["class_names"]
    root = Path(json.loads((run / "run.json").read_text())["root"])
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    paths = [(root if root.is_dir() else root.parent) / row["path"] for row in rows]
    stored = np.array([[float(row[f"p({name})"]) for name in names] for row in rows])
    model = keras.models.load_model(run / "model.keras")
    size = model.input_shape[1:3]
    plain = np.concatenate([model.predict_on_batch(decode(read(path), size)[None]) for path in paths])
    said = np.array([list(each.probabilities.values()) for each in headstart.predict(run, paths)])
    for way, answers in (("plain Keras", plain), ("headstart predict", said)):
        equal = (answers.argmax(axis=1) == stored.argmax(axis=1)).mean()
        print(
            f"{way}, {len(rows)} images: labels equal {equal:.1%}, largest difference {abs(answers - stored).max():.1e}"
        )


if __name__ == "__main__":
    main()
