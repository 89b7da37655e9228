"""Processes that fill one store of features are killed at any moment, or are eight: nothing is wrong, nothing lost."""

from __future__ import annotations

import random
import shutil
import signal
import sys
import time

import numpy as np
import pytest

from filling import VIEWS, fill, processes, received
from headstart.features.extract import Extractor
from headstart.features.store import FeatureKey, FeatureStore
from headstart.features.upkeep import list_stores, prune, stores_folder, verify
from tiny import tiny_backbone, write_images

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")


@pytest.fixture(scope="module")
def extractor():
    return Extractor(tiny_backbone())


def computed_afresh(extractor, images, folder):
    """The right features: image -> view -> bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(folder))
        values = extractor.extract(images, VIEWS).values
    return {
        image.sha256: dict(zip(VIEWS, map(np.ndarray.tobytes, rows), strict=True))
        for image, rows in zip(images, values, strict=True)
    }


class Ledger:
    """What processes said they had stored, held against what is there."""

    def __init__(self, expected):
        self.expected = expected
        self.stored = {}
        self.extracted = set()
        self.wrong = self.num_images = self.num_rows = 0

    def write(self, reports):
        for kind, first, second in reports:
            if kind == "stored":
                self.stored.setdefault(first, set()).update(second)
                self.num_rows += len(second)
            else:
                self.extracted.update(first)
                self.num_images += len(first)
                pairs = zip(first, second, strict=True)
                self.wrong += sum(rows != b"".join(self.expected[image].values()) for image, rows in pairs)

    def lost(self):
        """How many rows that were reported stored are not there or are not right."""
        lost = 0
        for store in list_stores():
            key = FeatureKey(**store.key)
            reported = self.stored.get(store.folder.name, set())
            rows = FeatureStore(key).load(reported)
            lost += sum(
                rows[image].tobytes() != self.expected[image][key.view] if image in rows else 1 for image in reported
            )
        assert set(self.stored) <= {store.folder.name for store in list_stores()}
        return lost


def kill_fillers(images, ledger, *, kills, seed):
    """Start so many processes, one after another, and kill each; returns how many died of it, and mid-writing."""
    chance, context, cache = random.Random(seed), processes(), stores_folder().parent
    killed = unfinished = 0
    for _ in range(kills):
        left = [image for image in images if image.sha256 not in ledger.extracted]
        if len(left) < len(images) // 2:  # Enough to last until the kill, however fast the machine is.
            shutil.rmtree(stores_folder())
            ledger.stored, ledger.extracted, left = {}, set(), list(images)
        chance.shuffle(left)
        reports, end = context.Pipe(duplex=False)
        process = context.Process(target=fill, args=(cache, left, chance.randint(1, 3), end))
        process.start()
        end.close()
        before = halves()
        if chance.random() < 0.8:  # Mostly while it is writing; at times while the network is being built.
            ledger.write(received(reports, 60))
            time.sleep(chance.uniform(0, 0.4))
        else:
            time.sleep(chance.uniform(0, 1))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        unfinished += halves() > before
        ledger.write(received(reports))
        reports.close()
        process.close()
        assert (ledger.wrong, ledger.lost()) == (0, 0)
    return killed, unfinished


def halves():
    """How many files are of no use by themselves."""
    shards = [path for path in stores_folder().glob("*/*.npy") if not path.with_suffix(".json").exists()]
    return len(shards) + len(list(stores_folder().glob("*/.*.part")))


@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])])
def test_kill_at_random_moments(extractor, tmp_path, empty_cache, kills):
    images = write_images(tmp_path / "photos", 600)
    expected = computed_afresh(extractor, images, tmp_path / "afresh")
    ledger = Ledger(expected)
    start = time.perf_counter()
    killed, unfinished = kill_fillers(images, ledger, kills=kills, seed=kills)
    print(
        f"{killed} of {kills} killed, {unfinished} of them in the middle of a file; {ledger.num_images} images and "
        f"{ledger.num_rows} rows reported done, in {time.perf_counter() - start:.0f} s"
    )
    assert killed >= 0.9 * kills
    assert ledger.num_images > kills
    assert not verify().damaged
    found = extractor.extract(images, VIEWS)
    assert not found.failures
    assert {image.sha256 for image in images if image.name in found.computed}.isdisjoint(ledger.extracted)
    assert found.values.tobytes() == b"".join(row for image in images for row in expected[image.sha256].values())
    assert extractor.extract(images, VIEWS).num_passes == 0
    prune(damaged=True)
    assert ledger.lost() == 0


def test_eight_processes_fill_one_store(extractor, tmp_path, empty_cache):
    images = write_images(tmp_path / "photos", 40)
    expected = computed_afresh(extractor, images, tmp_path / "afresh")
    context, ledgers, running = processes(), [], []
    barrier = context.Barrier(8)
    for number in range(8):
        mine = random.Random(number).sample(images, len(images))
        reports, end = context.Pipe(duplex=False)
        process = context.Process(target=fill, args=(empty_cache, mine, 1 + number, end, barrier))
        process.start()
        end.close()
        running.append((process, reports))
        ledgers.append(Ledger(expected))
    for ledger, (process, reports) in zip(ledgers, running, strict=True):
        while len(ledger.extracted) < len(images):
            before = len(ledger.extracted)
            ledger.write(received(reports, 120))
            assert len(ledger.extracted) > before or process.is_alive()
        process.join(60)
        assert process.exitcode == 0
        reports.close()
        process.close()
    assert [(ledger.wrong, ledger.lost()) for ledger in ledgers] == [(0, 0)] * 8
    assert sum(any(ledger.stored.values()) for ledger in ledgers) > 1  # Several did store something.
    assert not verify().damaged
    assert [store.num_images for store in list_stores()] == [40, 40]
    again = extractor.extract(images, VIEWS)
    assert again.num_passes == 0
    assert again.values.tobytes() == b"".join(row for image in images for row in expected[image.sha256].values())
