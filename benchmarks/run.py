"""`make bench`: every benchmark, one after the other. Fetches images and weights with pip; an hour on two cores."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = (("whole_fit.py",), ("elpv.py",))


def main() -> None:
    for script, *options in SCRIPTS:
        print(f"== {script}", flush=True)
        subprocess.run([sys.executable, str(Path(__file__).parent / script), *options], check=True)


if __name__ == "__main__":
    main()
