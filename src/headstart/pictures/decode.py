"""The one decoder: the bytes of a picture file -> uint8 RGB pixels.

Training, prediction, serving and the export checks all come through here, so that they see the same pixels. Whatever
the bytes are, the only exception is `ImageError`, whose text is the reason alone, in plain words.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import math
import os
import stat
import struct
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from headstart.errors import ImageError

DECODER_VERSION = "1"
"""Part of every cache key: raise it whenever a change here can change a pixel."""

MAX_PIXELS = 89_000_000
"""Width times height, checked before any pixel is decoded. 169 megapixels fit into 20 KB."""

MAX_SIDE = 65_535
"""Resizing a strip of 1 x 80 million pixels would need gigabytes for the filter; no JPEG, GIF or WebP is longer."""

MAX_BYTES = 500_000_000
"""The largest file that is read."""

_PLUGINS = {
    "JPEG": (JpegImagePlugin.JpegImageFile, (".jpg", ".jpeg", ".jpe", ".jfif")),
    "MPO": (MpoImagePlugin.MpoImageFile, (".mpo",)),
    "PNG": (PngImagePlugin.PngImageFile, (".png",)),
    "WEBP": (WebPImagePlugin.WebPImageFile, (".webp",)),
    "BMP": (BmpImagePlugin.BmpImageFile, (".bmp",)),
    "GIF": (GifImagePlugin.GifImageFile, (".gif",)),
    "TIFF": (TiffImagePlugin.TiffImageFile, (".tif", ".tiff")),
    "AVIF": (AvifImagePlugin.AvifImageFile, (".avif",)),
}

FORMATS = tuple(name for name in _PLUGINS if name not in ("WEBP", "AVIF") or features.check(name.lower()))
"""The formats that are read, by Pillow's names; MPO is what some phones write under the name .jpg."""

SUFFIXES = frozenset(suffix for name in FORMATS for suffix in _PLUGINS[name][1])
"""The suffixes, in lower case, under which `scan` looks for pictures. The content decides what a file really is."""

READABLE = ", ".join(sorted(name.lower().replace("jpeg", "jpg") for name in FORMATS if name != "MPO"))

_TRUNCATED = "truncated: the file ends before the picture does"
_NOT_A_PICTURE = f"not a picture in a format headstart reads ({READABLE})"

_A_LOOK = (16, 16)  # Pixels of a picture, which tell nearly every one in colour.

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file says about itself: Pillow's format name, width and height in pixels (before the EXIF turn)."""

    format: str
    width: int
    height: int


def read(path: str | Path) -> bytes:
    """Read a regular file whole; a pipe or a device is refused instead of waited for.

    Raises:
        ImageError: the file is missing, not a regular file, may not be read, or is larger than `MAX_BYTES`.
    """
    path = Path(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("a folder, not a file")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a regular file (a pipe, a socket or a device)")
        if status.st_size > MAX_BYTES:
            megabytes = math.ceil(status.st_size / 1_000_000)
            raise ImageError(f"{megabytes} MB; the limit is {MAX_BYTES // 1_000_000} MB")
        with path.open("rb") as file:
            return file.read(status.st_size + 1)
    except OSError as error:
        raise ImageError(why_unreadable(path, error)) from error
    except ValueError as error:
        raise ImageError("the name holds a NUL character, which no file name can") from error


def why_unreadable(path: Path, error: OSError) -> str:
    """Why the system would not open a file or folder, in plain words."""
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if error.errno == errno.ELOOP:
        return "a link that leads back to itself"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        with contextlib.suppress(OSError):
            if path.is_symlink():
                return f"a broken link: {os.readlink(path)!a} does not exist"  # noqa: PTH115  Path would tidy the text
        return "there is no such file"
    return (error.strerror or str(error)).lower()


def header(data: bytes) -> Header:
    """Check the format and the number of pixels without decoding any.

    Raises:
        ImageError: no format that headstart reads, a damaged header, or too many pixels.
    """
    with _plain_errors(), _open(data) as image:
        return Header(image.format or "", image.width, image.height)


def decode(data: bytes, size: tuple[int, int] | None) -> npt.NDArray[np.uint8]:
    """Decode a picture to upright RGB over white, its first frame if it has several.

    Args:
        data: the content of the file.
        size: (height, width) to resize to, antialiased; the aspect ratio is not kept, so nothing is cut away.
            None keeps the picture's own size.

    Returns:
        uint8 pixels of shape (height, width, 3).

    Raises:
        ImageError: the bytes are not a picture that headstart reads; the text is the reason alone.
    """
    with _plain_errors(), _open(data) as image:
        picture = _one_channel_if_grey(_upright(image))
        if size is not None:
            picture = picture.resize((size[1], size[0]), Image.Resampling.BICUBIC)
        return _rgb(picture)


def decode_parts(
    data: bytes, sizes: Sequence[tuple[int, int]], boxes: Sequence[tuple[float, float, float, float]]
) -> list[list[npt.NDArray[np.uint8]]]:
    """Decode a picture once and resize several parts of it, each to several sizes; else as `decode`.

    Args:
        data: the content of the file.
        sizes: (height, width) each.
        boxes: left, top, right and bottom, as parts of the picture's width and height.

    Returns:
        For each size, for each box: uint8 pixels (height, width, 3). The whole picture gives what `decode` does.
    """
    with _plain_errors(), _open(data) as image:
        picture = _one_channel_if_grey(_upright(image))
        wide, high = picture.size
        places = [(left * wide, top * high, right * wide, bottom * high) for left, top, right, bottom in boxes]
        return [
            [_rgb(picture.resize((width, height), Image.Resampling.BICUBIC, box=place)) for place in places]
            for height, width in sizes
        ]


def thumbnail(data: bytes, longest: int) -> bytes:
    """Make a small JPEG to look at, upright and with its aspect ratio; never for the network.

    Args:
        data: the content of the file.
        longest: the longer side in pixels; a smaller picture keeps its size.

    Raises:
        ImageError: as for `decode`.
    """
    with _plain_errors(), _open(data) as image:
        image.draft(image.mode, (longest, longest))  # a JPEG is decoded at an eighth of its size where that is enough
        picture = _upright(image)
        picture.thumbnail((longest, longest), Image.Resampling.BICUBIC)
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=85)
        return out.getvalue()


def _open(data: bytes) -> Image.Image:
    """Open by content. Not `Image.open`: it reports too many pixels in its own words before we can look at the size."""
    _hush()
    if not data:
        raise ImageError("the file is empty")
    for name in FORMATS:
        opener, accept = Image.OPEN.get(name, (None, None))  # MPO has none of its own: JPEG's opener returns it
        if opener is not None and accept is not None and accept(data[:16]) is True:
            image = opener(io.BytesIO(data), "")
            _check_size(image.width, image.height)
            return image
    raise ImageError(_NOT_A_PICTURE)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        megapixels = math.ceil(width * height / 1_000_000)
        limit = MAX_PIXELS // 1_000_000
        raise ImageError(f"{width} x {height} pixels is {megapixels} megapixels; the limit is {limit}")
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"{width} x {height} pixels; the longest side may be {MAX_SIDE}")


def _upright(image: Image.Image) -> Image.Image:
    """In RGB, or in L where the file is grey."""
    image.load()
    orientation = None
    with contextlib.suppress(Exception):  # unreadable EXIF data is no reason to lose a picture
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    picture = _over_white(image)
    return picture.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else picture


def _one_channel_if_grey(picture: Image.Image) -> Image.Image:
    """A grey picture, stored in colour or not, in L: resized it is bit for bit the same, and sooner."""
    if picture.mode == "L" or not _looks_grey(picture):
        return picture
    red, green, blue = picture.split()
    return red if red.tobytes() == green.tobytes() == blue.tobytes() else picture


def _looks_grey(picture: Image.Image) -> bool:
    some = picture.resize(_A_LOOK, Image.Resampling.NEAREST).tobytes()
    return some[::3] == some[1::3] == some[2::3]


def _rgb(picture: Image.Image) -> npt.NDArray[np.uint8]:
    """Pixels (height, width, 3) of their own, of a picture in RGB or L."""
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _over_white(image: Image.Image) -> Image.Image:
    """To RGB or L; what is transparent becomes white, so that a colour hidden below it never reaches the network."""
    if image.mode == "F":
        raise ImageError("floating-point grey, which has no fixed black and white; save it as 8- or 16-bit grey")
    if image.mode.startswith("I"):
        return _sixteen_bit_grey(image)
    if not image.has_transparency_data:
        return image if image.mode in {"RGB", "L"} else image.convert("RGB")
    clear = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(clear, mask=clear)
    return canvas


def _sixteen_bit_grey(image: Image.Image) -> Image.Image:
    """The top 8 of 16 bits: 256 levels. (`Image.convert` would clip everything above 255 to white.)"""
    levels = np.asarray(image)
    if levels.min() < 0 or levels.max() > 65_535:
        raise ImageError("32-bit grey with values outside 0 to 65535; save it as 8- or 16-bit grey")
    grey = (levels >> 8).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[levels == clear] = 255
    return Image.fromarray(grey)


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn whatever Pillow raises (it raises nearly everything) into an `ImageError`."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(_reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "there is not enough memory to decode it"
    if isinstance(error, Image.DecompressionBombError):
        return f"it holds a frame or tile of more than {MAX_PIXELS // 1_000_000} megapixels, which is the limit"
    text = " ".join(str(error).split())
    ended = isinstance(error, EOFError) or isinstance(error.__cause__, EOFError | IndexError | struct.error)
    if ended or "truncated" in text.lower():
        return _TRUNCATED
    if not any(letter.isalpha() for letter in text):  # a KeyError's text is the bare key
        return "damaged: its header makes no sense"
    return f"damaged: {text[:200]}"


def _hush() -> None:
    """Keep Pillow's warnings about a file from the user, who is told about the file by an `ImageError` or not at all.

    A filter and not `warnings.catch_warnings`, which restores what other threads have changed meanwhile. It covers
    Pillow's own modules only, and goes back to the front when somebody put a filter before it.
    """
    first = warnings.filters[0] if warnings.filters else None
    if first is None or first[0] != "ignore" or getattr(first[3], "pattern", None) != r"PIL\.":
        warnings.filterwarnings("ignore", module=r"PIL\.")
