"""``model.keras``: written whole or not at all, and read only if nothing in it can run code.

A ``.keras`` file is a zip of a JSON description and weights. Keras builds whatever class the description names, so the
names are checked first: layers and operations of Keras itself, less those that carry code.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headstart.cache import write_atomically
from headstart.errors import RunError
from headstart.networks.backend import keras

_REFUSED = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}
_MAX_CONFIG_BYTES = 100_000_000


def save_model(model: keras.Model, path: Path) -> None:
    """Save a model at ``path``; what stood there is replaced only by a whole file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as folder:
        model.save(Path(folder) / "model.keras")
        with (Path(folder) / "model.keras").open("rb") as source, write_atomically(path) as file:
            while chunk := source.read(1 << 22):
                file.write(chunk)


def load_model(path: Path) -> keras.Model:
    """Load a model that holds layers of Keras and nothing else.

    Raises:
        RunError: there is no such file, it is damaged, or it names something that could run code.
    """
    try:
        _check_classes(path)
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except FileNotFoundError as error:
        raise RunError(f"{path} does not exist.") from error
    except RunError:
        raise
    except Exception as error:  # Keras, h5py and zipfile raise many kinds for a damaged file.
        raise RunError(f"{path} cannot be loaded: it is damaged, or no Keras 3 model ({error}).") from error


def _check_classes(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if archive.getinfo("config.json").file_size > _MAX_CONFIG_BYTES:
            raise RunError(f"{path} was refused: its description is larger than any network's.")
        config = json.loads(archive.read("config.json"))
    for module, name in _classes(config):
        if name in _REFUSED or module.partition(".")[0] not in {"keras", "builtins", ""}:
            raise RunError(f"{path} was refused: it holds {module}.{name}, which could run code.")


def _classes(node: Any) -> Iterator[tuple[str, str]]:
    """Every (module, class name) in a description, however deep."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if isinstance(node.get("class_name"), str):
                yield str(node.get("module") or ""), node["class_name"]
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
