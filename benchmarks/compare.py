"""Comparing the eight networks against one epoch of the usual script with VGG16: whole processes on the same files.

    python benchmarks/compare.py --images 2000

Weights are random where no package has any: it is the time that counts. The comparison starts with an empty store and
no compiled network. `--halving` asks something else: is the best network lost on the way? It draws tables of eight
candidates from measured features and races each.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from few_images import look
from table import row
from whole_fit import HERE, some_of, timed

from headstart.cache import cache_folder
from headstart.learning.halving import halve, rungs
from headstart.learning.held_out import HeldOut
from headstart.learning.logistic import fit_linear_head
from headstart.learning.ridge import leave_one_out
from headstart.networks.catalogue import SEED
from headstart.pictures.published import fetch_images

NUM_TABLES = 100

COMPARE = """
import sys
import headstart
weights = {name: "none" for name in sys.argv[3].split(",")}
found = headstart.compare(sys.argv[1], weights=weights, out=sys.argv[2], budget=float(sys.argv[4]) or None)
print("; ".join(f"{each.backbone} {each.accuracy:.1%} on {each.num_images} ({each.seconds:.0f} s)"
                for each in found.comparison.ranking))
"""


def against_one_epoch(num_images: int, budget: float) -> None:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    random = ",".join(name for name in SEED if name != "MobileNetV2")
    with tempfile.TemporaryDirectory() as folder:
        data = some_of(fetch_images("textile"), num_images, Path(folder) / "images")
        script = [sys.executable, str(HERE / "seed_script.py"), str(data), "--epochs", "1", "--backbone", "VGG16"]
        epoch, said = timed([*script, "--weights", "none"], environment)
        print(f"{said}; whole script {epoch:.0f} s", flush=True)
        shutil.copytree(cache_folder("weights"), Path(folder) / "cache" / "weights")
        ours = {**environment, "HEADSTART_CACHE": f"{folder}/cache"}
        arguments = [str(data), f"{folder}/out", random, str(budget)]
        seconds, ranking = timed([sys.executable, "-c", COMPARE, *arguments], ours)
    print(ranking)
    what = f"comparing the eight on {num_images:,} images, one epoch of VGG16 by the script being {epoch:.0f} s"
    row(what, f"{seconds:.0f} s, {seconds / epoch:.2f} of it", "1.20")


def halving() -> None:
    """Candidates are sizes and single stages of MobileNetV2, whose learning curves differ and cross."""
    candidates = {}
    for size in (161, 225, 289, 385):
        features, labels, num_classes, blocks = look("solar-cells", size)
        ends = np.cumsum([0, *blocks])
        candidates[size, "all"] = (features, blocks)
        for stage in range(1, len(blocks) // 2):
            part = slice(ends[2 * stage], ends[2 * stage + 2])
            candidates[size, stage] = (np.ascontiguousarray(features[..., part]), blocks[2 * stage : 2 * stage + 2])
    num_images, kept, judged = 1600, 0, []
    for seed in range(NUM_TABLES):
        random = np.random.default_rng(seed)
        chosen = random.permutation(len(candidates))[:8]
        table = [list(candidates)[index] for index in chosen]
        images = random.permutation(len(labels))[:num_images]

        known: dict[tuple, HeldOut] = {}

        def judge(
            each: tuple, count: int, rung: int, images: np.ndarray = images, seed: int = seed, known: dict = known
        ) -> HeldOut:
            if count == num_images and each in known:
                return known[each]
            features, blocks = candidates[each]
            part = images[:count]
            given = (features[part], labels[part], num_classes, np.arange(count))
            if rung == 0:
                return leave_one_out(*given, blocks=blocks)
            return fit_linear_head(*given, seed=seed, blocks=blocks).held_out

        known.update({each: judge(each, num_images, 1) for each in table})
        best = min(known, key=lambda each: known[each].loss)
        history = halve(table, rungs(num_images, num_classes), judge)
        kept += best in history[-1]
        judged.append([len(each) for each in history])
        print(
            f"    table {seed}: the best {'kept' if best in history[-1] else 'lost'}, judged {judged[-1]}", flush=True
        )
    row("tables of eight in which halving keeps the best", f"{kept} of {NUM_TABLES}", "95 of 100")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--budget", type=float, default=0.0, help="minutes; 0 is without end")
    parser.add_argument("--halving", action="store_true")
    options = parser.parse_args()
    if options.halving:
        halving()
    else:
        against_one_epoch(options.images, options.budget)


if __name__ == "__main__":
    main()
