"""`headstart fit --fine-tune` killed with SIGKILL at random moments, over and over, against one that was left alone.

    python benchmarks/kill_tuning.py --kills 50 --seed 7

Small painted pictures and a network with random weights: it is the state on disk that is tried, which is kept after
each step here and not every half minute. After each kill the same command is started again, and so on; it has to end
with the weights and the history of the run that was left alone, to the bit. A run that ends before its moment comes is
looked at, its folder is thrown away, and the next one begins.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from table import row

EAGER = """
from headstart.learning import tuning
tuning._SECONDS_BETWEEN_STATES = 0.0
from headstart.cli import main
main()
"""


def paint(root: Path, number: int) -> Path:
    """Noise with faint stripes that rise to the left or to the right."""
    down, along = np.mgrid[:32, :32]
    for sign, name in ((1, "left"), (-1, "right")):
        (root / name).mkdir(parents=True)
        for seed in range(number):
            noise = np.random.default_rng(1000 * (sign + 1) + seed)
            stripes = np.sin((along + sign * down) * 0.9 + noise.uniform(0, 6))[..., None]
            pixels = 128 + 40 * stripes + noise.normal(0, 170, (32, 32, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name / f"{seed}.png")
    return root


def found_in(run: Path) -> tuple[object, ...]:
    """Every weight inside model.keras, and the history but for how fast it went."""
    weights: list[tuple[str, bytes]] = []

    def take(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            weights.append((name, item[()].tobytes()))

    with zipfile.ZipFile(run / "model.keras") as archive:
        stored = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(stored) as file:
        file.visititems(take)
    with (run / "history.csv").open(encoding="utf-8", newline="") as table:
        history = [{**each, "images_per_second": "", "seconds": ""} for each in csv.DictReader(table)]
    return weights, history


def finished(run: Path) -> bool:
    return (run / "MANIFEST.json").is_file()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        data = paint(Path(folder) / "stripes", 60)
        environment = {**os.environ, "HEADSTART_CACHE": f"{folder}/cache", "TF_CPP_MIN_LOG_LEVEL": "3"}
        options = ["--weights", "none", "--image-size", "64", "--views", "one"]
        options += ["--fine-tune", "stage5", "--epochs", "20"]

        def start(run: Path) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-c", EAGER, "fit", str(data), "--out", str(run), *options]
            return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

        alone, again = Path(folder) / "alone", Path(folder) / "again"
        begun = time.perf_counter()
        if start(alone).wait():
            sys.exit("The run that was left alone failed.")
        seconds = time.perf_counter() - begun
        expected, kills, ends, wrong, with_state = found_in(alone), 0, 0, 0, 0
        while kills < arguments.kills or not finished(again):
            process = start(again)
            try:
                _, said = process.communicate(
                    timeout=moments.uniform(0.2, 1.0) * seconds if kills < arguments.kills else None
                )
                if process.returncode:
                    sys.exit(said.decode())
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                kills += 1
                with_state += any(again.glob("*.state"))
            if finished(again):
                ends += 1
                wrong += found_in(again) != expected
                if kills < arguments.kills:
                    shutil.rmtree(again)
            print(f"{kills} kills, {with_state} of them with a state on disk; {ends} ends, {wrong} wrong", flush=True)
    row(
        f"`fit --fine-tune` killed {kills} times: ends otherwise than one that was not",
        f"{wrong} of {ends}",
        "0",
    )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
