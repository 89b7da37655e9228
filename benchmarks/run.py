"""`make bench`: every benchmark, one after the other, and one table at the end. About three hours on two cores.

Fetches images and weights with pip. `python benchmarks/run.py feature_pass` runs the scripts whose names begin so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from table import VARIABLE

COMMANDS = (
    ("feature_pass.py",),
    ("second_run.py",),
    ("precision.py", "ResNet50", "MobileNetV2"),
    ("whole_fit.py", "--backbone", "MobileNetV2"),
    ("whole_fit.py", "--backbone", "ResNet50", "--images", "1000", "--pairs", "1"),
    ("scale.py",),
    ("elpv.py",),
    ("few_images.py",),
    ("class_weights.py",),
    ("coverage.py",),
    ("compare.py",),
    ("compare.py", "--halving"),
    ("tuning_epoch.py",),
)


def main() -> None:
    rows: list[tuple[str, str, str, str]] = []
    failed = []
    for script, *options in COMMANDS:
        if len(sys.argv) > 1 and not script.startswith(tuple(sys.argv[1:])):
            continue
        command = " ".join((script, *options))
        print(f"== {command}", flush=True)
        with tempfile.NamedTemporaryFile() as table:
            environment = {**os.environ, VARIABLE: table.name, "TF_CPP_MIN_LOG_LEVEL": "3"}
            command_line = [sys.executable, str(Path(__file__).parent / script), *options]
            run = subprocess.run(command_line, env=environment, check=False)
            if run.returncode:
                failed.append(command)
            rows += [(*json.loads(line), command) for line in Path(table.name).read_text().splitlines()]
    print("\n| what | figure | bar | command |\n|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
