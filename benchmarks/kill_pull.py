"""Kills ``headstart weights pull`` at random moments, then pulls once more: what is there, and what was sent twice.

Needs no network: a slow server on this machine is the mirror. Run: python benchmarks/kill_pull.py [--kills 20]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from fault_server import FaultServer

NAME = "mobilenet_1_0_224_tf_no_top.h5"
PIECE = 32 << 10


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What happened.

    Attributes:
        killed: processes that died by the signal.
        part_there: after how many of the kills a part of the file lay in the cache.
        num_requests: how often a process came as far as asking for the file.
        sent: bytes the server sent in all; the file once, if nothing had to be sent again.
        whole: whether the file is right in the end.
        verified: whether ``weights verify`` says so.
        visible: what lies in the cache.
    """

    killed: int
    part_there: int
    num_requests: int
    sent: int
    whole: bool
    verified: bool
    visible: list[str]


def kill_pulls(folder: Path, *, kills: int, size: int, bytes_per_second: float, seed: int) -> Outcome:
    """Pull ``size`` bytes into ``folder``, killed so many times, each time after a part of the file came."""
    chance = random.Random(seed)
    body = random.Random(1).randbytes(size)
    with FaultServer(body, piece=PIECE, pause=PIECE / bytes_per_second) as server:
        env = {
            **os.environ,
            "HEADSTART_CACHE": str(folder),
            "HEADSTART_WEIGHTS_MIRROR": server.address,
            "no_proxy": "*",
        }
        partial = folder / "weights" / ".partial" / NAME
        killed = part_there = 0
        for _ in range(kills):
            asked = len(server.requests)
            with _start(env, "pull", "MobileNet") as pull:
                if chance.random() < 0.8:  # Mostly while the file is coming; at times while Python is starting.
                    _wait_for(lambda asked=asked, pull=pull: len(server.requests) > asked or pull.poll() is not None)
                    time.sleep(chance.uniform(0, 0.8 * size / bytes_per_second / kills * 2))
                else:
                    time.sleep(chance.uniform(0, 0.4))
                pull.kill()
                killed += pull.wait() == -9
            part_there += partial.is_file() and 0 < partial.stat().st_size < size
        server.pause = 0
        _run(env, "pull", "MobileNet")
        verified = json.loads(_run(env, "verify", "--json"))["files"]
        path = folder / "weights" / NAME
        return Outcome(
            killed, part_there, len(server.requests), server.sent, path.is_file() and path.read_bytes() == body,
            [(each["ok"], each["status"]) for each in verified] == [(True, "recorded")],
            sorted(each.name for each in path.parent.glob("[!.]*")),
        )  # fmt: skip


def _start(env, *arguments):
    command = [sys.executable, "-m", "headstart", "weights", *arguments]
    return subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def _run(env, *arguments):
    with _start(env, *arguments) as process:
        said, _ = process.communicate(timeout=120)
        if process.returncode:
            raise RuntimeError(f"headstart weights {' '.join(arguments)} ended with {process.returncode}")
        return said


def _wait_for(happened, seconds=30):
    end = time.monotonic() + seconds
    while not happened() and time.monotonic() < end:
        time.sleep(0.005)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--megabytes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    size = chosen.megabytes * 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        outcome = kill_pulls(
            Path(folder), kills=chosen.kills, size=size, bytes_per_second=size / chosen.kills, seed=chosen.seed
        )
    print(json.dumps({**dataclasses.asdict(outcome), "size": size, "seconds": round(time.perf_counter() - start, 1)}))
    return 0 if outcome.whole and outcome.verified else 1


if __name__ == "__main__":
    sys.exit(main())
