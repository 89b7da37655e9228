"""What processes that fill a store of features do, and a quick way to start and kill them.

They are forked from a server that has imported TensorFlow already: starting one takes a moment instead of ten seconds.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import sys
import threading
from unittest import mock

VIEWS = ("as_is", "mirrored")


def processes():
    """The context to start processes with."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["headstart.networks.backend", "keras", "tiny", "headstart.features.extract", "openvino"]
    )
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):  # Python 3.11 does not hand it on.
        multiprocessing.forkserver.ensure_running()
    return context


def fill(cache, images, chunk, reports, start=None):
    """Compute features, some images at a time, and report what is stored as soon as its writer says so.

    Args:
        cache: HEADSTART_CACHE.
        images: their `ImageFile`.
        chunk: how many at a time.
        reports: a connection; gets ("stored", folder, hashes) and ("extracted", hashes, rows as bytes).
        start: a barrier to wait at, if all are to begin at once.
    """
    os.environ["HEADSTART_CACHE"] = str(cache)
    from headstart.features.extract import Extractor
    from headstart.features.store import FeatureStore
    from tiny import tiny_backbone

    add, one_at_a_time = FeatureStore.add, threading.Lock()

    def report(*message):
        with one_at_a_time:
            reports.send(message)

    def add_and_report(store, rows):
        added = add(store, rows)
        report("stored", store.folder.name, list(rows))
        return added

    FeatureStore.add = add_and_report
    extractor = Extractor(tiny_backbone())
    if start:
        start.wait(120)
    for place in range(0, len(images), chunk):
        some = images[place : place + chunk]
        values = extractor.extract(some, VIEWS).values
        report("extracted", [image.sha256 for image in some], [rows.tobytes() for rows in values])


def received(reports, seconds=0.0):
    """The reports that have come; waits for the first of them, but not for ever."""
    with contextlib.suppress(EOFError, OSError):  # The end, perhaps in the middle of a report.
        while reports.poll(seconds):
            yield reports.recv()
            seconds = 0.0
