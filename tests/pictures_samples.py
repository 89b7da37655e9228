"""Picture files made on the spot: every format, every mode, and some that no camera would write."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HEIGHT, WIDTH = 24, 32


def picture(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    """Smooth colours that differ at every corner, and with the seed."""
    rows, columns = np.mgrid[0:height, 0:width]
    bands = [rows * 255 // max(1, height - 1), columns * 255 // max(1, width - 1), np.full_like(rows, seed * 37 % 256)]
    return Image.fromarray(np.stack(bands, axis=-1).astype(np.uint8))


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def sample(kind: str, seed: int = 0) -> bytes:
    """A small file of one of the decoder's formats."""
    options = {"save_all": True, "append_images": [picture(seed + 1)]} if kind == "MPO" else {}
    return encode(picture(seed), kind, **options)


def png(width: int, height: int, rows: bytes, *, depth: int = 8, colour: int = 0, extra: bytes = b"") -> bytes:
    """A PNG written by hand; ``rows`` are the filtered rows before compression."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def tiff(tags: list[tuple[int, int, int, int]], tail: bytes = b"") -> bytes:
    """A TIFF of nothing but the given (tag, type, count, value) entries."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + tail


def write(path: Path, seed: int = 0, kind: str = "PNG") -> Path:
    """Write a picture whose content depends on the seed, making the folders on the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sample(kind, seed))
    return path


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, which pytest's own is not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextlib.contextmanager
def no_privileges() -> Iterator[None]:
    """Root may open everything, so for once be nobody."""
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65_534)
    except OSError:
        pytest.skip("this root cannot become another user, and may open everything")
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(0)
