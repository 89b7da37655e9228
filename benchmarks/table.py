"""One line of the table that `make bench` prints at the end; alone, a script just prints it."""

from __future__ import annotations

import json
import os
from pathlib import Path

VARIABLE = "HEADSTART_BENCH_TABLE"


def row(what: str, figure: str, bar: str = "") -> None:
    print(f"{what}: {figure}" + (f" (bar: {bar})" if bar else ""), flush=True)
    if path := os.environ.get(VARIABLE):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps([what, figure, bar]) + "\n")
