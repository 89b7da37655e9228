"""Memory and speed of the feature pass as the number of images grows: 2,000 and 100,000 small generated ones.

    python benchmarks/scale.py [--images 2000 100000]

Each number is a process of its own: it scans a folder, computes the features of every image into an empty store, and
says its largest resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from table import row

SIDE = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, nargs="+", default=[2000, 100_000])
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        print(json.dumps(measure(options.folder)))
        return
    peaks = []
    for number in options.images:
        with tempfile.TemporaryDirectory() as scratch:
            draw(Path(scratch) / "images", number)
            environment = {**os.environ, "HEADSTART_CACHE": f"{scratch}/cache", "TF_CPP_MIN_LOG_LEVEL": "3"}
            command = [sys.executable, __file__, "--folder", f"{scratch}/images"]
            run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            facts = json.loads(run.stdout.splitlines()[-1])
            stored = sum(path.stat().st_size for path in Path(scratch, "cache", "features").rglob("*.npy"))
        peaks.append(facts["peak_mb"])
        print(
            f"{number:>9,} images: peak {facts['peak_mb']:.0f} MB, before the first image {facts['base_mb']:.0f} MB; "
            f"scan {facts['scan']:.1f} s, features {facts['features']:.1f} s "
            f"({number / facts['features']:.0f} images/s), {stored / 1e6:.0f} MB stored; "
            f"found again in {facts['again']:.1f} s",
            flush=True,
        )
    what = f"memory of {options.images[-1]:,} images over that of {options.images[0]:,}"
    row(what, f"{peaks[-1] / peaks[0]:.3f}", "at most 1.20")


def draw(folder: Path, number: int) -> None:
    """Small JPEGs of two classes, no two the same."""
    random = np.random.default_rng(0)
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
    for each in range(number):
        pixels = random.integers(0, 256, (4, 4, 3), np.uint8)
        picture = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        picture.save(folder / "ab"[each % 2] / f"{each:07d}.jpg", quality=90)


def measure(folder: Path) -> dict[str, float]:
    from headstart.features.extract import Extractor
    from headstart.networks.backbone import build_backbone
    from headstart.networks.catalogue import find_backbone
    from headstart.networks.weights import find_weights
    from headstart.pictures.scan import scan

    spec = find_backbone("MobileNet")
    extractor = Extractor(build_backbone(spec, find_weights(spec, "none"), SIDE, seed=0))
    extractor.engine()
    base = peak_mb()
    start = time.perf_counter()
    images = scan(folder).images
    scanned = time.perf_counter()
    features = extractor.extract(images)
    done = time.perf_counter()
    assert features.num_passes == len({image.sha256 for image in images})
    peak = peak_mb()
    assert extractor.extract(images).num_passes == 0
    return {
        "base_mb": base, "peak_mb": peak, "scan": scanned - start, "features": done - scanned,
        "again": time.perf_counter() - done,
    }  # fmt: skip


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main()
