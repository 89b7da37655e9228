"""Where weights are downloaded from: Keras's addresses, or one mirror that holds the same files by name."""

from __future__ import annotations

import os
import urllib.parse
from pathlib import Path

from headstart.errors import WeightsError
from headstart.networks.rows import WeightsFile

MIRROR = "HEADSTART_WEIGHTS_MIRROR"


def mirror() -> str:
    """What the environment names as the mirror, or ""."""
    return os.environ.get(MIRROR, "").strip()


def download_addresses(file: WeightsFile) -> tuple[str, ...]:
    """The addresses to ask in order: Keras's own, or those on the mirror and on nothing else.

    Who sets a mirror has a reason to: a network that may not be left, or files that were looked at. So what the mirror
    lacks is not quietly fetched from the internet.

    Raises:
        WeightsError: the mirror's address is of a kind that cannot be fetched from.
    """
    if not mirror():
        return (file.address,)
    base = _mirror_address().rstrip("/")
    return tuple(f"{base}/{name}" for name in dict.fromkeys((file.name, file.published_name)))


def _mirror_address() -> str:
    chosen = mirror()
    scheme = urllib.parse.urlsplit(chosen).scheme.lower()
    if scheme in {"http", "https", "file"}:
        return chosen
    if len(scheme) > 1 and "://" in chosen:  # One letter is a drive of Windows.
        raise WeightsError(f"{MIRROR} is {chosen}: expected an http, https or file address, or the path of a folder.")
    return Path(chosen).expanduser().resolve().as_uri()
