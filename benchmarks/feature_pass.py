"""The feature pass against its bound, against the bare engine, and against Keras's own ``predict`` over the same files.

    python benchmarks/feature_pass.py [--backbone MobileNetV2] [--images 2000] [--rounds 3]

Each measurement is a process of its own; the four take turns, and medians are quoted.

- bare: the engine on ready pixels.
- decode: reading and decoding on one thread, nothing else.
- pass: `Extractor.extract` into an empty store: decoding, the network and writing.
- keras: ``image_dataset_from_directory`` and ``predict`` with the same network on the same backend.

The bound is what the cores must do at least: (core-seconds of bare + core-seconds of decode) / cores.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from table import row

MODES = ("bare", "decode", "pass", "keras")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backbone", default="MobileNetV2")
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mode", choices=MODES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.mode:
        print(json.dumps(measure(options)))
        return
    runs: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    for _ in range(options.rounds):
        for mode in MODES:
            start = time.perf_counter()
            run = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--mode", mode], check=True,
                                 capture_output=True, text=True)  # fmt: skip
            runs[mode].append({**json.loads(run.stdout.splitlines()[-1]), "process": time.perf_counter() - start})
    report(options, runs)


def report(options: argparse.Namespace, runs: dict[str, list[dict[str, float]]]) -> None:
    def median(mode: str, field: str) -> float:
        return statistics.median(run[field] for run in runs[mode])

    cores = len(os.sched_getaffinity(0))
    print(f"{options.backbone}, {options.images} images, {cores} cores, medians of {options.rounds} rounds in turn")
    for mode in MODES:
        seconds = median(mode, "seconds")
        print(
            f"  {mode:7} {seconds:7.2f} s  {options.images / seconds:7.1f} images/s  "
            f"{median(mode, 'core_seconds'):7.2f} core-seconds  {median(mode, 'process'):7.2f} s whole process"
        )
    bound = (median("bare", "core_seconds") + median("decode", "core_seconds")) / cores
    ours = median("pass", "seconds")
    name = f"feature pass, {options.backbone}, {options.images:,} images"
    row(f"{name}, over its bound of {bound:.2f} s", f"{ours / bound:.3f}", "at most 1.10")
    row(f"{name}, images a second over those of the bare engine", f"{median('bare', 'seconds') / ours:.3f}", "0.85")
    row(f"{name}, against Keras's predict", f"{median('keras', 'seconds') / ours:.2f}x", "1.8x")


def measure(options: argparse.Namespace) -> dict[str, float]:
    import numpy as np

    from headstart.features.extract import Extractor
    from headstart.networks.backbone import build_backbone
    from headstart.networks.catalogue import find_backbone
    from headstart.networks.weights import find_weights
    from headstart.pictures.decode import decode, read
    from headstart.pictures.published import fetch_images
    from headstart.pictures.scan import scan

    folder = fetch_images("textile")
    images = scan(folder).images[: options.images]
    spec = find_backbone(options.backbone)
    weights = find_weights(spec, options.weights)
    size = weights.fitting_size(spec.image_size)
    pixels = np.stack([decode(read(image.path), (size, size)) for image in images[:64]])
    backbone = build_backbone(spec, weights, size)
    extractor = Extractor(backbone)
    if options.mode in {"bare", "pass"}:
        engine = extractor.engine()
        list(engine.stream((None, each) for each in pixels))
    if options.mode == "keras":
        import keras

        from headstart.features.pooling import feature_model

        model = feature_model(backbone)
        files = keras.utils.image_dataset_from_directory(
            folder, labels=None, image_size=(size, size), interpolation="bicubic", batch_size=32, shuffle=False
        ).take(-(-options.images // 32))
        model.predict(files.take(2), verbose=0)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["HEADSTART_CACHE"] = cache
        before, start = cpu_seconds(), time.perf_counter()
        if options.mode == "bare":
            rows = sum(1 for _ in engine.stream((None, pixels[number % 64]) for number in range(len(images))))
        elif options.mode == "decode":
            rows = sum(1 for image in images if decode(read(image.path), (size, size)).size)
        elif options.mode == "pass":
            rows = extractor.extract(images).num_passes
        else:
            rows = min(len(model.predict(files, verbose=0)), len(images))
        seconds, core_seconds = time.perf_counter() - start, cpu_seconds() - before
    assert rows == len(images), rows
    return {"seconds": seconds, "core_seconds": core_seconds}


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
