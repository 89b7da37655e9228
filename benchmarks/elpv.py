"""Accuracy on the solar cells (ELPV, Deitsch et al. 2019), with the defaults and frozen MobileNetV2.

A manifest is written from the package's labels.csv: defective from a probability of one half on, 75/25 stratified on
label and type (mono, poly), as published: 1,968 to train on, 656 to test.

    python benchmarks/elpv.py --seeds 3
    python benchmarks/elpv.py --seeds 5 --fine-tune auto    # beside the frozen network on the same splits

The images are under CC BY-NC-SA 4.0: for benchmarks only.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
from pathlib import Path

import numpy as np
from table import row

import headstart
from headstart.pictures.published import fetch_images, solar_cell_rows


def write_manifest(folder: Path, seed: int, path: Path) -> None:
    rows = solar_cell_rows(folder)
    labels = ["defective" if probability >= 0.5 else "sound" for _, probability, _ in rows]
    strata = [f"{label}-{kind}" for label, (_, _, kind) in zip(labels, rows, strict=True)]
    random = np.random.default_rng(seed)
    is_test = np.zeros(len(rows), bool)
    for stratum in sorted(set(strata)):
        members = np.flatnonzero([each == stratum for each in strata])
        is_test[random.permutation(members)[: round(len(members) / 4)]] = True
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("file_name", "label", "split"))
        for (name, _, _), label, test in zip(rows, labels, is_test, strict=True):
            writer.writerow((folder / name, label, "test" if test else "train"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0, help="the method was tuned on 0 to 2; 10 to 12 are fresh")
    parser.add_argument("--fine-tune", default="off", help="auto, all or a stage: tuned as well")
    arguments = parser.parse_args()
    folder = fetch_images("solar-cells").parent
    ways = {"frozen": "off", **({} if arguments.fine_tune == "off" else {"tuned": arguments.fine_tune})}
    accuracies: dict[str, list[float]] = {way: [] for way in ways}
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for way, fine_tune in ways.items():
            accuracies[way].append(fit(folder, seed, way, fine_tune))
    seeds = f"seeds {arguments.first_seed} to {arguments.first_seed + arguments.seeds - 1}"
    for way, each in accuracies.items():
        row(f"solar cells, {way} MobileNetV2, {seeds}", f"{statistics.mean(each):.2%}")
    if "tuned" in accuracies:
        gains = [100 * (two - one) for one, two in zip(*accuracies.values(), strict=True)]
        row(f"solar cells, tuned over frozen, {seeds}", f"{statistics.mean(gains):.2f} points", "1.0 points")


def fit(folder: Path, seed: int, way: str, fine_tune: str) -> float:
    """The accuracy on the test part of one split."""
    with tempfile.TemporaryDirectory() as temporary:
        manifest = Path(temporary) / "elpv.csv"
        write_manifest(folder, seed, manifest)
        out = Path(temporary) / "run"
        run = headstart.fit(manifest, out=out, backbone="MobileNetV2", seed=seed, fine_tune=fine_tune, tell=show)
    test = run.evaluation
    print(
        f"seed {seed}, {way}: {test.accuracy:.4f} ({test.accuracy_low:.4f} to {test.accuracy_high:.4f}) of "
        f"{test.num_images}, log loss {test.log_loss:.3f}, {run.facts['seconds']['total']:.0f} s. "
        f"{run.facts['head_note']}",
        flush=True,
    )
    return test.accuracy


def show(epoch, num_epochs: int) -> None:
    print(f"  {epoch}, of {num_epochs}", flush=True)


if __name__ == "__main__":
    main()
