"""The second `headstart fit` on unchanged data, and one with 1 % new pictures: what is left to do, and what it costs.

    python benchmarks/second_run.py [--rounds 3]

Every round starts with an empty store of features: a first fit on 1,980 textile pictures, the same again into another
run folder, and then with the other 20 added. Whole-process times, and the steps that `fit --json` reports. Beside them
stands what Keras alone takes for its part, without a picture or a head: to be imported, to build that network, save it,
read it back and ask it once.

Run it with the Python of an environment that holds what the README installs and no more: TensorFlow and Keras import
JAX and scikit-learn where they find them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from table import row

from headstart.cache import cache_folder
from headstart.networks.catalogue import find_backbone
from headstart.networks.weights import find_weights
from headstart.pictures.published import fetch_images

RUNS = ("first", "again", "1 % new")
KERAS_ALONE = """
import keras, numpy, sys
size = 353
keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(size, size, 3)).save(sys.argv[1])
keras.saving.load_model(sys.argv[1])(numpy.zeros((1, size, size, 3)), training=False)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    pictures = sorted(path for path in fetch_images("textile").rglob("*.jpg"))
    find_weights(find_backbone("MobileNetV2"))
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in RUNS}
    alone = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            alone.append(keras_alone(folder))
            shutil.copytree(cache_folder("weights"), folder / "cache" / "weights")
            late = pictures[:: len(pictures) // 20][:20]
            for path in pictures:
                if path not in late:
                    copy(path, folder / "data")
            for name in RUNS:
                if name == "1 % new":
                    for path in late:
                        copy(path, folder / "data")
                seconds[name].append(fit(folder, name))
    print(f"medians of {options.rounds} rounds, seconds")
    for name, runs in seconds.items():
        steps = {step: statistics.median(run[step] for run in runs) for step in runs[0]}
        print(f"  {name:8} " + ", ".join(f"{step} {spent:.2f}" for step, spent in steps.items()))
        if name != "first":
            row(f"fit, {name}: features", f"{steps['features']:.2f} s", {"again": "0.5 s", "1 % new": "1.5 s"}[name])
            row(f"fit, {name}: whole process", f"{steps['whole process']:.1f} s", "10 s" if name == "again" else "")
            share = steps["whole process"] / statistics.median(alone)
            row(f"fit, {name}: whole process, over Keras alone", f"{share:.2f}", "")
    print(f"Keras alone, import, build, save, load and ask once, a process: {statistics.median(alone):.1f} s")


def copy(path: Path, data: Path) -> None:
    target = data / path.parent.name / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)


def keras_alone(folder: Path) -> float:
    """The seconds of a process that only does what Keras has to do in a `fit`: what the machine is worth today."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", KERAS_ALONE, str(folder / "alone.keras")]
    start = time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return time.perf_counter() - start


def fit(folder: Path, name: str) -> dict[str, float]:
    environment = {**os.environ, "HEADSTART_CACHE": str(folder / "cache"), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "headstart", "fit", str(folder / "data"), "--out", str(folder / name), "--json"]
    start = time.perf_counter()
    run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    whole = time.perf_counter() - start
    said = json.loads(run.stdout.splitlines()[-1])
    steps = {step: spent for step, spent in said["seconds"].items() if step not in {"fine_tune", "total"}}
    return {"whole process": whole, "images computed": said["features"]["computed"], **steps}


if __name__ == "__main__":
    main()
