"""`headstart fit` against the seed's script at 20 epochs: whole-process times on the same files, taken in turn.

    python benchmarks/whole_fit.py                                      # three pairs, the median ratio
    python benchmarks/whole_fit.py --backbone ResNet50 --images 1000 --pairs 1

Weights and images are fetched beforehand (random weights where no package has any); every `headstart fit` starts with
an empty store of features and no compiled network. It runs once with its defaults, which also look for a better image
size, and once as the script sees the images: at the network's own size, one view.
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

HERE = Path(__file__).parent


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, str]:
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return time.perf_counter() - start, done.stdout.strip().splitlines()[-1]


def some_of(pictures: Path, count: int, folder: Path) -> Path:
    """The first pictures of each class, in proportion."""
    paths = sorted(pictures.rglob("*.jpg"))
    for number, path in enumerate(paths):
        if number * count // len(paths) != (number + 1) * count // len(paths):
            (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / path.parent.name)
    return folder


def fit_once(data: Path, options: list[str]) -> tuple[float, dict]:
    """One `headstart fit` with an empty store of features but with the weights at hand."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(cache_folder("weights"), Path(folder) / "weights")
        environment = {**os.environ, "HEADSTART_CACHE": folder, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, "-m", "headstart", "fit", str(data), "--out", f"{folder}/run", "--json", *options]
        seconds, last = timed(command, environment)
    return seconds, json.loads(last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="MobileNetV2")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    spec = find_backbone(options.backbone)
    weights = "auto" if spec.packaged else "none"
    size = find_weights(spec, weights).fitting_size(spec.image_size)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        data = some_of(fetch_images("textile"), options.images, Path(folder) / "images")
        both = ["--backbone", options.backbone, "--weights", weights]
        seed_command = [sys.executable, str(HERE / "seed_script.py"), str(data), "--epochs", str(options.epochs), *both]
        for pair in range(options.pairs):
            seed, said = timed(seed_command, environment)
            same, same_facts = fit_once(data, [*both, "--image-size", str(size), "--views", "one"])
            ours, facts = fit_once(data, both)
            pairs.append((seed / same, seed / ours))
            print(said)
            print(
                f"pair {pair + 1}: script {seed:.0f} s; headstart fit at its size {same:.0f} s ({seed / same:.1f}x, "
                f"test accuracy {same_facts['test']['accuracy']:.3f}), with the defaults {ours:.0f} s "
                f"({seed / ours:.1f}x, {facts['test']['accuracy']:.3f} at {facts['image_size']} px)",
                flush=True,
            )
    same, ours = (statistics.median(each) for each in zip(*pairs, strict=True))
    what = f"fit against the usual script, {options.backbone}, {options.images:,} images, {options.epochs} epochs"
    row(f"{what}, as it sees them", f"{same:.1f}x", "15x")
    row(f"{what}, with the defaults", f"{ours:.1f}x")


if __name__ == "__main__":
    main()
