"""The one decoder: every format and mode to the same pixels, every bad file to one plain sentence."""

from __future__ import annotations

import contextlib
import io
import os
import random
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from headstart.errors import ImageError
from headstart.pictures import decode as decoder
from headstart.pictures.decode import FORMATS, SUFFIXES, decode, decode_parts, header, read, thumbnail
from pictures_samples import (
    HEIGHT,
    WIDTH,
    chunk,
    encode,
    no_privileges,
    open_folder,
    picture,
    png,
    sample,
    tiff,
)

LOSSY = {"JPEG": 12, "MPO": 12, "WEBP": 12, "AVIF": 14, "GIF": 40}


def pixels_of(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


def difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data, (8, 8))
    return str(caught.value)


# Formats and modes


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_picture(kind):
    data = sample(kind)
    assert header(data) == decoder.Header(kind, WIDTH, HEIGHT)
    pixels = decode(data, None)
    assert (pixels.shape, pixels.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
    assert difference(pixels, pixels_of(picture())) <= LOSSY.get(kind, 0)
    assert decode(data, (7, 5)).shape == (7, 5, 3)


def test_the_formats_and_their_suffixes():
    assert {"JPEG", "MPO", "PNG", "BMP", "GIF", "TIFF"} <= set(FORMATS)
    assert {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff"} <= SUFFIXES
    assert decoder.DECODER_VERSION


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB", "RGBA", "LA", "PA"])
def test_every_mode_comes_out_as_rgb(mode):
    source = picture().convert("P").convert("PA") if mode == "PA" else picture().convert(mode)
    data = encode(source, "TIFF")
    with Image.open(io.BytesIO(data)) as stored:
        assert stored.mode == mode
    assert difference(decode(data, None), pixels_of(source)) <= 1


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind):
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert decode(encode(red, kind), None)[8, 8] == pytest.approx([255, 0, 0], abs=3)


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "I;16"), ("TIFF", "I;16"), ("TIFF", "I;16B"), ("TIFF", "I")])
def test_sixteen_bit_grey_keeps_256_levels(kind, mode):
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16) * 256 + 200
    dtype = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode]
    image = Image.frombytes(mode, (16, 16), levels.astype(dtype).tobytes())
    pixels = decode(encode(image, kind), None)
    assert np.array_equal(pixels, np.repeat((levels >> 8)[..., None], 3, axis=-1))


@pytest.mark.parametrize("value", [-1, 65_536])
def test_wider_grey_is_refused(value):
    data = encode(Image.new("I", (8, 8), value), "TIFF")
    assert reason(data) == "32-bit grey with values outside 0 to 65535; save it as 8- or 16-bit grey"


def test_floating_point_grey_is_refused():
    data = encode(Image.new("F", (8, 8), 0.5), "TIFF")
    assert reason(data) == "floating-point grey, which has no fixed black and white; save it as 8- or 16-bit grey"


def hidden(kind: str) -> bytes:
    """The left half is a strong colour under full transparency, the right half opaque black."""
    if kind == "palette":
        image = Image.new("P", (8, 8), 1)
        image.putpalette([255, 0, 0, 0, 0, 0])
        image.paste(0, (0, 0, 4, 8))
        return encode(image, "PNG", transparency=0)
    if kind == "palette with levels":
        image = Image.new("P", (8, 8), 1)
        image.putpalette([255, 0, 0, 0, 0, 0])
        image.paste(0, (0, 0, 4, 8))
        return encode(image, "PNG", transparency=bytes([0, 255]))
    if kind == "gif":
        image = Image.new("RGBA", (8, 8), (0, 0, 0, 255))
        image.paste((255, 0, 0, 0), (0, 0, 4, 8))
        return encode(image, "GIF")
    if kind == "colour key":
        image = Image.new("RGB", (8, 8), (0, 0, 0))
        image.paste((255, 0, 0), (0, 0, 4, 8))
        return encode(image, "PNG", transparency=(255, 0, 0))
    if kind == "16-bit key":
        row = b"\0" + struct.pack(">8H", *([30_000] * 4 + [0] * 4))
        return png(8, 8, row * 8, depth=16, extra=chunk(b"tRNS", struct.pack(">H", 30_000)))
    mode = kind.split(maxsplit=1)[0]
    bands = {"RGBA": ((255, 0, 0, 0), (0, 0, 0, 255)), "LA": ((90, 0), (0, 255))}[mode]
    image = Image.new(mode, (8, 8), bands[1])
    image.paste(bands[0], (0, 0, 4, 8))
    return encode(image, "WEBP" if "webp" in kind else "TIFF" if "tiff" in kind else "PNG", **WEBP_EXACT.get(kind, {}))


WEBP_EXACT = {"RGBA webp": {"lossless": True, "exact": True}}


@pytest.mark.parametrize(
    "kind",
    ["RGBA", "LA", "RGBA webp", "RGBA tiff", "palette", "palette with levels", "gif", "colour key", "16-bit key"],
)
def test_what_is_transparent_is_white_whatever_lies_below(kind):
    pixels = decode(hidden(kind), None)
    assert np.all(pixels[:, :4] == 255)
    assert np.all(pixels[:, 4:] == 0)


def test_half_transparent_is_half_white():
    assert np.all(decode(encode(Image.new("RGBA", (4, 4), (0, 0, 0, 128))), None) == 127)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_frame_counts(kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("blue", "red")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert decode(data, None)[8, 8].tolist() == [0, 0, 255]


# EXIF orientation


@pytest.mark.parametrize("kind", [each for each in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") if each in FORMATS])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(kind, orientation):
    upright = picture()
    turned = upright
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that undoes the decoder's
    if orientation in back:
        turned = upright.transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    pixels = decode(encode(turned, kind, exif=exif), None)
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert difference(pixels, pixels_of(upright)) <= LOSSY.get(kind, 0)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_broken_exif_loses_no_picture(exif):
    assert difference(decode(encode(picture(), "JPEG", exif=exif), None), pixels_of(picture())) <= 12


def test_an_orientation_that_does_not_exist_is_ignored():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 77
    assert decode(encode(picture(), "PNG", exif=exif), None).shape == (HEIGHT, WIDTH, 3)


# Resizing and thumbnails


def test_resizing_is_antialiased_and_cuts_nothing_away():
    stripes = np.zeros((64, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    pixels = decode(encode(Image.fromarray(stripes)), (32, 32))
    assert pixels.shape == (32, 32, 3)
    assert np.all(np.abs(pixels.astype(int) - 127) <= 6)  # nearest or unfiltered bilinear gives black and white


def test_equal_size_is_untouched():
    assert np.array_equal(decode(encode(picture()), (HEIGHT, WIDTH)), pixels_of(picture()))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    mode=st.sampled_from(["L", "RGB", "RGBA", "P"]),
    colours=st.integers(0, 2),
)
def test_grey_or_not_the_pixels_are_those_of_resizing_in_colour(seed, height, width, size, mode, colours):
    chance = np.random.default_rng(seed)
    pixels = chance.integers(0, 256, (height, width, 1), np.uint8).repeat(3, axis=2)
    for _ in range(colours if mode == "RGB" else 0):  # One pixel of a colour, which a first look may miss.
        pixels[chance.integers(height), chance.integers(width), chance.integers(3)] ^= 1
    stored = Image.fromarray(pixels[:, :, 0]).convert("P") if mode == "P" else Image.fromarray(pixels).convert(mode)
    left, top = chance.uniform(0, 0.4, 2)
    box = (left, top, left + 0.6, top + 0.6)
    place = (left * width, top * height, (left + 0.6) * width, (top + 0.6) * height)
    coloured, (tall, wide) = Image.fromarray(pixels), size
    data = encode(stored)
    assert np.array_equal(decode(data, None), pixels)
    whole, part = decode_parts(data, [size], [(0, 0, 1, 1), box])[0]
    assert np.array_equal(whole, np.asarray(coloured.resize((wide, tall), Image.Resampling.BICUBIC)))
    assert np.array_equal(part, np.asarray(coloured.resize((wide, tall), Image.Resampling.BICUBIC, box=place)))
    assert np.array_equal(decode(data, size), whole)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_pixels_are_a_writable_copy(mode):
    pixels = decode(encode(picture().convert(mode)), (4, 4))
    pixels[0, 0] = 1
    assert pixels[0, 0].tolist() == [1, 1, 1]


def test_thumbnail_keeps_the_aspect_ratio_and_applies_the_orientation():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = thumbnail(encode(picture(height=300, width=600), "JPEG", exif=exif), 100)
    with Image.open(io.BytesIO(data)) as small:
        assert (small.format, small.mode, small.size) == ("JPEG", "RGB", (50, 100))
    assert header(thumbnail(sample("PNG"), 1_000)) == decoder.Header("JPEG", WIDTH, HEIGHT)


# Bad files


def test_empty_file():
    assert reason(b"") == "the file is empty"


@pytest.mark.parametrize(
    "data", [b"hello, I am a text\n" * 50, b"\0" * 100, b"%PDF-1.7", b"\x89PN", random.Random(0).randbytes(64)]
)
def test_not_a_picture(data):
    text = reason(b"?" + data)
    assert text.startswith("not a picture in a format headstart reads (")
    assert "jpg, png" in text


@pytest.mark.parametrize("kind", ["PPM", "ICO", "PCX", "TGA", "EPS"])
def test_formats_outside_the_allowlist_are_refused(kind):
    assert reason(encode(picture(), kind)).startswith("not a picture in a format headstart reads")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "GIF"])
def test_truncated(kind):
    data = encode(Image.effect_noise((64, 64), 90).convert("RGB"), kind)
    assert reason(data[: len(data) * 2 // 3]) == "truncated: the file ends before the picture does"


def test_a_truncated_jpeg_has_a_good_header():
    data = sample("JPEG")[:-100]
    assert header(data).format == "JPEG"
    assert reason(data).startswith("truncated")


def test_damaged_png():
    data = bytearray(sample("PNG"))
    data[len(data) // 2] ^= 0xFF
    assert reason(bytes(data)).startswith("damaged: ")


@pytest.mark.parametrize("use", [header, lambda data: decode(data, (8, 8)), lambda data: thumbnail(data, 8)])
def test_a_bomb_is_refused_by_its_header(use):
    rows = zlib.compressobj(9)
    idat = b"".join(rows.compress(b"\0" * 1_000_000) for _ in range(20)) + rows.flush()  # 20 MB of the 3.6 GB it claims
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", idat) + chunk(b"IEND", b"")
    assert len(data) < 30_000
    with pytest.raises(ImageError) as caught:
        use(data)
    assert str(caught.value) == "60000 x 60000 pixels is 3600 megapixels; the limit is 89"


def test_just_above_the_limit_and_endless_strips():
    assert reason(png(9_434, 9_434, b"\0")) == "9434 x 9434 pixels is 90 megapixels; the limit is 89"
    assert reason(png(1, 80_000_000, b"\0")) == "1 x 80000000 pixels; the longest side may be 65535"
    with pytest.raises(ImageError, match=r"truncated|damaged"):
        decode(png(9_433, 9_433, b"\0"), (8, 8))


def test_a_gif_frame_larger_than_its_screen_is_refused():
    head = b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0) + b"\x02\x02\x4c\x01\x00;"
    assert "limit" in reason(head + frame)


def test_zlib_bombs_in_png_text():
    bomb = zlib.compress(b"A" * 80_000_000, 9)
    for kind, body in ((b"zTXt", b"k\0\0" + bomb), (b"iTXt", b"k\0\1\0\0\0" + bomb), (b"iCCP", b"k\0\0" + bomb)):
        data = png(8, 8, b"\0" * 72, extra=chunk(kind, body))
        try:
            assert decode(data, None).shape == (8, 8, 3)
        except ImageError as error:
            assert str(error).startswith("damaged: ")


@pytest.mark.parametrize(
    "tags",
    [
        [(256, 4, 1, 0), (257, 4, 1, 0)],
        [(256, 4, 1, 4_000_000_000), (257, 4, 1, 4_000_000_000)],
        [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 0xFFFFFFFF, 8)],
        [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 0x7FFFFFFF, 8), (279, 4, 1, 64)],
        [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (262, 3, 1, 1), (322, 4, 1, 2**31), (323, 4, 1, 2**31)],
        [(256, 2, 4, 8), (257, 12, 1, 8)],
        [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (259, 3, 1, 60_000), (262, 3, 1, 1), (273, 4, 1, 9)],
    ],
)
def test_absurd_tiff_tags(tags):
    assert reason(tiff(tags, b"\0" * 64))


@pytest.mark.parametrize("kind", FORMATS)
def test_no_bytes_raise_anything_but_image_error(kind):
    good = sample(kind)

    @settings(max_examples=60, deadline=None, database=None)
    @given(
        cut=st.integers(0, len(good)),
        flips=st.lists(st.tuples(st.integers(0, len(good) - 1), st.integers(1, 255)), max_size=6),
        near=st.booleans(),
    )
    def check(cut, flips, near):
        data = bytearray(good)
        for where, mask in flips:
            data[where % min(len(data), 120) if near else where] ^= mask
        for each in (bytes(data), bytes(data[:cut])):
            for use in (header, lambda body: decode(body, (6, 6)), lambda body: thumbnail(body, 6)):
                try:
                    use(each)
                except ImageError as error:
                    assert str(error)
                    assert "\n" not in str(error)

    check()


def test_pillow_warnings_neither_leak_nor_decide():
    size_and_bits = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8)]
    data = tiff([*size_and_bits, (700, 1, 9_999, 9)])  # a tag that says it is longer than the file
    with pytest.warns(UserWarning, match="Tag data larger than file"), contextlib.suppress(Exception):
        Image.open(io.BytesIO(data)).load()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: decode(data, (8, 8)), range(20)))
    assert caught == []


def test_importing_changes_no_filter():
    code = "import numpy, PIL.Image, warnings; before = list(warnings.filters); import headstart.pictures.decode; "
    code += "raise SystemExit(before != list(warnings.filters))"
    source = str(Path(decoder.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ, "PYTHONPATH": source})
    assert done.returncode == 0


# Reading


def why_not_read(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read(path)
    return str(caught.value)


def test_read(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"abc")
    assert read(path) == read(str(path)) == b"abc"


def test_what_is_not_a_file(tmp_path):
    (tmp_path / "broken").symlink_to(tmp_path / "gone")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "file").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    assert why_not_read(tmp_path) == "a folder, not a file"
    assert why_not_read(tmp_path / "gone") == "there is no such file"
    assert why_not_read(tmp_path / "file" / "inside") == "there is no such file"
    assert why_not_read(tmp_path / "broken") == f"a broken link: '{tmp_path}/gone' does not exist"
    assert why_not_read(tmp_path / "circle") == "a link that leads back to itself"
    assert why_not_read(tmp_path / "pipe") == "not a regular file (a pipe, a socket or a device)"
    assert why_not_read(Path("/dev/zero")) == "not a regular file (a pipe, a socket or a device)"
    assert why_not_read(tmp_path / ("x" * 300)) == "file name too long"
    assert why_not_read(Path("a\0b")) == "the name holds a NUL character, which no file name can"


def test_no_permission():
    with open_folder() as root:
        path = root / "locked.jpg"
        path.write_bytes(b"abc")
        path.chmod(0)
        with no_privileges():
            assert why_not_read(path) == "no permission to read it"


def test_too_large_a_file(tmp_path):
    path = tmp_path / "large.tif"
    with path.open("wb") as file:
        file.truncate(decoder.MAX_BYTES + 1)  # sparse: takes no room on the disk
    assert why_not_read(path) == "501 MB; the limit is 500 MB"
