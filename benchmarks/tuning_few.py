"""Frozen beside tuned for few images of each class: does `--fine-tune auto` help, and does it ever hurt?

Of each set so many images of each class are drawn to learn from, and up to 500 others to test on, the same for both.
Whether one is surely worse is McNemar's exact test on the test images (two-sided, 0.05). A run whose tuning was undone
is the frozen run, to the bit (tests/test_fine_tuning.py), so that one is fitted apart only where tuning was kept.

    python benchmarks/tuning_few.py --images textile --counts 10 25 50 100 --draws 5     # the table
    python benchmarks/tuning_few.py --images textile solar-cells --counts 10 --draws 20  # never worse
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
from pathlib import Path

import numpy as np
from few_images import write_manifest
from table import row

import headstart
from headstart.networks.backend import keras
from headstart.pictures.folder import ImageFile
from headstart.pictures.published import fetch_images, solar_cell_rows
from headstart.pictures.scan import scan
from headstart.reporting.runs import read_table
from headstart.scoring.paired import TIED_ABOVE, mcnemar

MOST_TESTED = 500


def images_of(name: str) -> list[ImageFile]:
    data = fetch_images(name)
    with tempfile.TemporaryDirectory() as folder:
        if name == "solar-cells":
            data = write_manifest(data.parent, solar_cell_rows(data.parent), Path(folder) / "cells.csv")
        return list(scan(data).images)


def draw(images: list[ImageFile], count: int, seed: int, path: Path) -> None:
    """A manifest with so many images of each class to learn from, and others to test on."""
    order = [images[number] for number in np.random.default_rng(seed).permutation(len(images))]
    taken = dict.fromkeys((image.label for image in images), 0)
    num_tested = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("file_name", "label", "split"))
        for image in order:
            if taken[image.label] < count:
                taken[image.label] += 1
                writer.writerow((image.path, image.label, "train"))
            elif num_tested < MOST_TESTED:
                num_tested += 1
                writer.writerow((image.path, image.label, "test"))


def is_right(manifest: Path, out: Path, seed: int, fine_tune: str) -> tuple[np.ndarray, headstart.Run]:
    """Whether each test image is."""
    keras.backend.clear_session()
    run = headstart.fit(manifest, out=out, backbone="MobileNetV2", seed=seed, fine_tune=fine_tune)
    told = sorted(read_table(out / "predictions.csv"), key=lambda each: each["path"])
    return np.array([each["label"] == each["predicted"] for each in told]), run


def compare(name: str, images: list[ImageFile], count: int, draws: int) -> None:
    frozen, tuned, num_kept, num_worse = [], [], 0, 0
    for seed in range(draws):
        with tempfile.TemporaryDirectory() as temporary:
            manifest = Path(temporary) / "some.csv"
            draw(images, count, seed, manifest)
            with_tuning, run = is_right(manifest, Path(temporary) / "tuned", seed, "auto")
            kept = run.summary()["fine_tuned"] is not None
            without = is_right(manifest, Path(temporary) / "frozen", seed, "off")[0] if kept else with_tuning
        undone = "not tried" if "was not tried" in run.facts["head_note"] else "undone"
        p = mcnemar(without, with_tuning)
        worse = p < TIED_ABOVE and with_tuning.mean() < without.mean()
        frozen.append(100 * without.mean())
        tuned.append(100 * with_tuning.mean())
        num_kept += kept
        num_worse += worse
        print(
            f"{name}, {count} of each class, draw {seed}: frozen {frozen[-1]:.1f} %, tuned {tuned[-1]:.1f} %, "
            f"p {p:.3f}, {run.summary()['fine_tuned'] or undone}, {run.facts['seconds']['total']:.0f} s",
            flush=True,
        )
    figures = f"frozen {statistics.mean(frozen):.1f} %, tuned {statistics.mean(tuned):.1f} %"
    row(f"{name}, {count} of each class, {draws} draws", f"{figures}, kept in {num_kept}")
    row(f"{name}, {count} of each class: surely worse when tuned", f"{num_worse} of {draws}", "0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="+", default=["textile"])
    parser.add_argument("--counts", nargs="+", type=int, default=[10, 25, 50, 100])
    parser.add_argument("--draws", type=int, default=5)
    options = parser.parse_args()
    for name in options.images:
        images = images_of(name)
        for count in options.counts:
            compare(name, images, count, options.draws)


if __name__ == "__main__":
    main()
