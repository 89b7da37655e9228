"""What the tests of the whole line share: painted folders, the command line in this process or another, and one run."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (210, 50, 40)}

FAST = ("--weights", "none", "--image-size", "64", "--views", "one")
"""The smallest job: no download, small pictures, nothing to choose."""

RUN_FILES = {
    "run.json", "split.csv", "model.keras", "labels.json", "evaluation.json", "predictions.csv", "history.csv",
    "report.html", "README.md", "MANIFEST.json",
}  # fmt: skip


def paint(path: Path, colour, seed: int, side: int = 24) -> Path:
    """A small noisy PNG whose content depends on the seed."""
    noise = np.random.default_rng(seed).normal(colour, 40, (side, side, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(path)
    return path


def paint_folder(root: Path, number: int, *, start: int = 0, names=tuple(COLOURS), side: int = 24) -> Path:
    """A folder per colour of so many pictures; those of one (start, number) have the same contents anywhere."""
    for index, name in enumerate(names):
        for seed in range(start, start + number):
            paint(root / name / f"{seed:03}.png", COLOURS.get(name, (128, 128, 128)), 1000 * index + seed, side)
    return root


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command did: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """The object on the last line of standard output, which is the only one."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    def complaint(self) -> str:
        """The one message of a command that ended with 1."""
        assert self.code == 1, self
        assert "Traceback" not in self.err, self.err
        assert self.out == ""
        (line,) = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert self.err.endswith(line + "\n")
        return line.removeprefix("error: ")


def call(*arguments) -> Answer:
    """Run a command in this process."""
    from headstart import cli

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run([str(each) for each in arguments])
    return Answer(code, out.getvalue(), err.getvalue())


def spawn(*arguments, code: str | None = None, env=None, **options) -> Answer:
    """Run a command, or Python code in front of one, in a process of its own."""
    start = ["-m", "headstart"] if code is None else ["-c", code]
    command = [sys.executable, *start, *map(str, arguments)]
    options = {"stdin": subprocess.DEVNULL, "timeout": 120, **options}
    done = subprocess.run(command, capture_output=True, env={**os.environ, **(env or {})}, check=False, **options)
    return Answer(done.returncode, done.stdout.decode(), done.stderr.decode())


@dataclasses.dataclass(frozen=True)
class Journey:
    """A folder, the run that `fit --json` made of it, the cache it filled, and what the command said."""

    photos: Path
    run: Path
    cache: Path
    answer: Answer


@functools.cache
def finished() -> Journey:
    """Fitted once for all tests, in a cache of its own. Nobody may change its folders; copy them."""
    root = Path(_temporary_folder().name)
    photos = paint_folder(root / "photos", 12)
    (photos / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(root / "cache"))  # Other tests' pictures can be the same ones.
        answer = call("fit", photos, *FAST, "--out", root / "run", "--json")
    assert answer.code == 0, answer.err
    return Journey(photos, root / "run", root / "cache", answer)


@functools.cache
def _temporary_folder():
    """Removed when Python ends."""
    return tempfile.TemporaryDirectory(prefix="headstart-tests-")
