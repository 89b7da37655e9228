"""Fetches the weights of several backbones at once; one that fails does not keep the others."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Callable, Generator, Sequence

from headstart.errors import HeadstartError, UnknownNameError
from headstart.networks.rows import BackboneSpec
from headstart.networks.weights import Weights, find_weights
from headstart.progress import Progress, silent

PULLED_SOURCES = ("auto", "imagenet", "kerashub", "packaged")


@dataclasses.dataclass(frozen=True)
class Pulled:
    """What became of one backbone: its weights, or the problem."""

    spec: BackboneSpec
    weights: Weights | None
    problem: Exception | None = None


class _StoppedError(Exception):
    """Somebody else was interrupted."""


def pull_weights(
    specs: Sequence[BackboneSpec], source: str = "auto", *, jobs: int = 4, progress: Progress = silent
) -> Generator[Pulled, None, None]:
    """Fetch the weights of every backbone, several at a time.

    The threads are daemons: one that waits for a silent server does not keep an interrupted program from ending. What
    they have received stays in the cache for the next time.

    Args:
        specs: the backbones.
        source: "auto", "imagenet", "kerashub" or "packaged".
        jobs: how many at a time.
        progress: told of each download, from several threads.

    Yields:
        One for each backbone, in the order in which they are done.

    Raises:
        UnknownNameError: there is no such source.
    """
    if source not in PULLED_SOURCES:
        raise UnknownNameError("source of weights", source, PULLED_SOURCES)
    return _run(specs, source, max(1, min(jobs, len(specs))), progress)


def _run(specs: Sequence[BackboneSpec], source: str, jobs: int, progress: Progress) -> Generator[Pulled, None, None]:
    waiting: queue.SimpleQueue[BackboneSpec] = queue.SimpleQueue()
    done: queue.SimpleQueue[Pulled] = queue.SimpleQueue()
    stopped = threading.Event()

    def tell(step: str, number: int, total: int) -> None:
        if stopped.is_set():
            raise _StoppedError
        progress(step, number, total)

    for spec in specs:
        waiting.put(spec)
    work = _worker(waiting, done, stopped, lambda spec: find_weights(spec, source, progress=tell))
    threads = [threading.Thread(target=work, daemon=True) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    try:
        for _ in specs:
            yield _next(done)
    finally:
        stopped.set()
        for thread in threads:
            thread.join(timeout=0.5 / jobs)


def _worker(
    waiting: queue.SimpleQueue[BackboneSpec],
    done: queue.SimpleQueue[Pulled],
    stopped: threading.Event,
    find: Callable[[BackboneSpec], Weights],
) -> Callable[[], None]:
    def work() -> None:
        while not stopped.is_set():
            try:
                spec = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.put(Pulled(spec, find(spec)))
            except _StoppedError:
                return
            except Exception as error:  # Handed to the caller, who decides.
                done.put(Pulled(spec, None, error))

    return work


def _next(done: queue.SimpleQueue[Pulled]) -> Pulled:
    """The next result. The short time-outs let Ctrl-C through on Windows too."""
    while True:
        try:
            pulled = done.get(timeout=0.2)
        except queue.Empty:
            continue
        if pulled.problem is not None and not isinstance(pulled.problem, (HeadstartError, OSError)):
            raise pulled.problem
        return pulled
