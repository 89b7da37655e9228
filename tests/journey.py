"""What the tests of whole journeys share: tiny labelled pictures, and the command line run in this process."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from headstart import cli

CONTRACT_FILES = {
    "run.json", "split.csv", "model.keras", "labels.json", "evaluation.json", "predictions.csv", "history.csv",
    "report.html", "README.md", "MANIFEST.json",
}  # fmt: skip

TINY = {"backbone": "MobileNetV2", "weights": "none", "image_size": 64, "views": "one"}
TINY_OPTIONS = ("--weights", "none", "--image-size", "64", "--views", "one")

_COLOURS = ((200, 60, 60), (60, 200, 60), (60, 60, 200), (190, 190, 60))


def draw(path: Path, number: int, seed: int) -> Path:
    """Write a small picture of class ``number``: its colour with noise, another one for every seed."""
    rng = np.random.default_rng([number, seed])
    pixels = np.array(_COLOURS[number % len(_COLOURS)]) + rng.integers(-55, 55, (40, 40, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def draw_folder(root: Path, classes: Sequence[str] = ("blue jay", "naïve", "zebra"), *, each: int = 12) -> Path:
    """A folder with ``each`` pictures for every class."""
    for number, name in enumerate(classes):
        for seed in range(each):
            draw(root / name / f"{seed:03}.png", number, seed)
    return root


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def last_json(self) -> Any:
        """The last line on standard output."""
        return json.loads(self.out.splitlines()[-1])

    @property
    def message(self) -> str:
        """The one error message; there must be no traceback."""
        assert "Traceback" not in self.err, self.err
        (message,) = [line for line in self.err.splitlines() if line.startswith("error: ")]
        return message.removeprefix("error: ")


def headstart(*arguments: object) -> Answer:
    """Run one command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run([str(each) for each in arguments])
    return Answer(code, out.getvalue(), err.getvalue())


def refused(*arguments: object, code: int = 1) -> str:
    """Run a command that must fail with one message and no traceback; returns the message."""
    answer = headstart(*arguments)
    assert answer.code == code, (answer.code, answer.err)
    return answer.message


def python(script: str, *arguments: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **(env or {})}
    )
