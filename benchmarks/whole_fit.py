"""`headstart fit` against the seed's script at 20 epochs: whole-process times on the same files, taken in turn.

    python benchmarks/whole_fit.py            # three pairs, the median ratio (about an hour on two cores)
    python benchmarks/whole_fit.py --pairs 1  # one pair

Weights and images are fetched beforehand; every `headstart fit` starts with an empty store of features.
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


def fit_once(data: Path, options: list[str]) -> tuple[float, dict]:
    """One `headstart fit` with an empty store of features but with the weights at hand."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(cache_folder("weights"), Path(folder) / "weights")
        environment = {**os.environ, "HEADSTART_CACHE": folder, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, "-m", "headstart", "fit", str(data), "--out", f"{folder}/run", "--json", *options]
        seconds, last = timed(command, environment)
    return seconds, json.loads(last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()
    data = fetch_images("textile")
    find_weights(find_backbone("MobileNetV2"))
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    seed_command = [sys.executable, str(HERE / "seed_script.py"), str(data), "--epochs", str(arguments.epochs)]
    ratios, same_size = [], []
    for pair in range(arguments.pairs):
        seed, said = timed(seed_command, environment)
        ours, facts = fit_once(data, [])
        small, small_facts = fit_once(data, ["--image-size", "225", "--views", "one"])
        ratios.append(seed / ours)
        same_size.append(seed / small)
        print(said)
        print(
            f"pair {pair + 1}: seed script {seed:.0f} s; headstart fit {ours:.0f} s ({seed / ours:.1f}x, test accuracy "
            f"{facts['test']['accuracy']:.3f} at {facts['image_size']} px); at the seed's size {small:.0f} s "
            f"({seed / small:.1f}x, {small_facts['test']['accuracy']:.3f})",
            flush=True,
        )
    print(
        f"median ratio: {statistics.median(ratios):.1f} with the defaults, {statistics.median(same_size):.1f} at 225 px"
    )


if __name__ == "__main__":
    main()
