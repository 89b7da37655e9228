"""Tiny things to test with: networks, checkpoints in PyTorch's formats written without PyTorch, folders of pictures.

The tensors of MobileNetV2 are listed here from the paper's table (https://arxiv.org/abs/1801.04381, table 2) and
torchvision's naming, not from headstart's converter: a second opinion on what goes where.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

# --- networks ---------------------------------------------------------------------------------------------------------


def tiny_backbone(size=32, *, seed=0, views=None):
    """A network of two stages with random weights and statistics: what `build_backbone` gives, but quick."""
    from headstart.networks.backbone import AS_IS, FLIPS, Backbone, fingerprint, flip_views, preprocess
    from headstart.networks.backend import keras
    from headstart.networks.catalogue import find_backbone
    from headstart.networks.freezing import freeze
    from headstart.networks.stages import find_stages
    from headstart.networks.weights import Weights

    views = views or AS_IS
    pixels = keras.Input((size, size, 3), dtype="uint8", name="pixels")
    tensor = preprocess(flip_views(pixels) if views == FLIPS else pixels, "tf")
    for number, channels in enumerate((4, 6), 1):
        tensor = keras.layers.Conv2D(channels, 3, strides=2, padding="same", name=f"conv{number}")(tensor)
        tensor = keras.layers.BatchNormalization(name=f"norm{number}")(tensor)
        tensor = keras.layers.ReLU(name=f"relu{number}")(tensor)
    model = keras.Model(pixels, tensor, name="tiny")
    random = np.random.default_rng(seed)
    for weight in model.weights:  # A variance is positive.
        lowest = 0.1 if "variance" in weight.path else -0.5
        weight.assign(random.uniform(lowest, 1.0, tuple(weight.shape)))
    freeze(model)
    spec = dataclasses.replace(find_backbone("MobileNet"), name="Tiny", image_size=size, num_stages=2)
    weights = Weights("random (none)", None, "", "tf")
    return Backbone(spec, model, find_stages(model), weights, fingerprint(model), views)


def narrowed(spec):
    """A row of KerasHub with fewer and narrower blocks: the rows of a family differ in such numbers alone."""
    from headstart.networks.architectures import VisionTransformer

    net = spec.architecture
    if isinstance(net, VisionTransformer):
        net = dataclasses.replace(net, depth=5, width=48, num_heads=4, hidden=96)
    else:
        net = dataclasses.replace(net, width=24, depths=(2, 2, 2, 2))
    return dataclasses.replace(spec, architecture=net)


# --- PyTorch's files --------------------------------------------------------------------------------------------------

STORAGES = {"f4": "Float", "f8": "Double", "f2": "Half", "i8": "Long", "i4": "Int", "i2": "Short", "i1": "Char",
            "u1": "Byte", "b1": "Bool"}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Global:
    """A name that the pickle asks for, such as ``torch._utils._rebuild_tensor_v2``; it need not exist here."""

    module: str
    name: str

    def __call__(self):
        """Never called: the pickler wants something that could be."""


@dataclasses.dataclass(frozen=True)
class Call:
    """What the pickle calls when it is read: a `Global` with arguments."""

    function: Global
    arguments: tuple

    def __reduce__(self):
        return self.function, self.arguments


@dataclasses.dataclass(frozen=True, eq=False)
class Storage:
    """Numbers in a row, as a tensor refers to them; ``num_elements`` and ``kind`` may lie."""

    key: str
    values: np.ndarray
    num_elements: int | None = None
    kind: object = "storage"

    @property
    def type_name(self):
        return STORAGES[self.values.dtype.str[1:]] + "Storage"


def rebuild(storage, shape, strides, offset=0):
    """A tensor as PyTorch pickles it."""
    function = Global("torch._utils", "_rebuild_tensor_v2")
    return Call(function, (storage, offset, tuple(shape), tuple(strides), False, collections.OrderedDict()))


def contiguous(key, values):
    """A tensor that holds an array in C order."""
    values = np.array(values, order="C")
    strides = tuple(step // values.itemsize for step in values.strides)
    return rebuild(Storage(key, values.ravel()), values.shape, strides)


def tensors_to_state(tensors):
    """Arrays by name to a state dict of tensors."""
    return collections.OrderedDict(
        (name, contiguous(str(number), values)) for number, (name, values) in enumerate(tensors.items())
    )


class _Pickler(pickle._Pickler):
    """Python's own pickler, for names that cannot be imported, remembering the storages it meets."""

    def __init__(self, file):
        super().__init__(file, protocol=2)
        self.storages = {}

    def persistent_id(self, thing):
        if not isinstance(thing, Storage):
            return None
        self.storages[thing.key] = thing
        count = len(thing.values) if thing.num_elements is None else thing.num_elements
        return (thing.kind, Global("torch", thing.type_name), thing.key, "cpu", count, *self.tail)

    def _save_global_name(self, thing):
        self.write(f"c{thing.module}\n{thing.name}\n".encode())

    dispatch = {**pickle._Pickler.dispatch, Global: _save_global_name}  # noqa: RUF012  as Python's pickler has it


def to_pickle(thing, *, legacy=False):
    """The bytes of one pickle and the storages in it."""
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.tail = (None,) if legacy else ()  # The older layout also says what the storage is a part of.
    pickler.dump(thing)
    return file.getvalue(), pickler.storages


def legacy_bytes(state, *, counts=None, magic=0x1950A86A20F9469CFC6C):
    """A checkpoint as PyTorch wrote it before 1.6; ``counts`` may lie about the lengths of storages."""
    body, storages = to_pickle(state, legacy=True)
    parts = [to_pickle(each)[0] for each in (magic, 1001, {"little_endian": True})]
    parts += [body, to_pickle(sorted(storages))[0]]
    for key in sorted(storages):
        values = storages[key].values
        parts += [(counts or {}).get(key, len(values)).to_bytes(8, "little", signed=True), values.tobytes()]
    return b"".join(parts)


def zip_bytes(state, *, compression=zipfile.ZIP_STORED, folder="archive/"):
    """A checkpoint as PyTorch writes it since 1.6."""
    body, storages = to_pickle(state)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr(f"{folder}data.pkl", body)
        for key, storage in storages.items():
            archive.writestr(f"{folder}data/{key}", storage.values.tobytes())
        archive.writestr(f"{folder}version", "3\n")
    return file.getvalue()


# --- MobileNetV2 ------------------------------------------------------------------------------------------------------

# Expansion, channels, repeats, stride of the first repeat.
MOBILENET_V2 = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


def mobilenet_v2_shapes(*, flat=False):
    """Name -> shape of every tensor of PyTorch's MobileNetV2 trunk: torchvision's names, or the older flat ones."""
    shapes = {}

    def convolution(name, outs, ins, side):
        shapes[f"{name}.weight"] = (outs, ins, side, side)

    def norm(name, channels):
        shapes.update({f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{name}.num_batches_tracked"] = ()

    convolution("features.0.0", 32, 3, 3)
    norm("features.0.1", 32)
    channels, number = 32, 1
    for expansion, outs, repeats, _ in MOBILENET_V2:
        for _ in range(repeats):
            wide, prefix = channels * expansion, f"features.{number}.conv"
            if expansion == 1:
                places = iter("0134" if flat else ["0.0", "0.1", "1", "2"])
            else:
                places = iter("013467" if flat else ["0.0", "0.1", "1.0", "1.1", "2", "3"])
                convolution(f"{prefix}.{next(places)}", wide, channels, 1)
                norm(f"{prefix}.{next(places)}", wide)
            convolution(f"{prefix}.{next(places)}", wide, 1, 3)
            norm(f"{prefix}.{next(places)}", wide)
            convolution(f"{prefix}.{next(places)}", outs, wide, 1)
            norm(f"{prefix}.{next(places)}", outs)
            channels, number = outs, number + 1
    convolution("features.18.0", 1280, channels, 1)
    norm("features.18.1", 1280)
    return shapes


def mobilenet_v2_tensors(seed, *, flat=False):
    """Random tensors of that trunk, statistics included.

    Drawn small: a network that makes its input larger at every layer makes float32's rounding larger too, up to 0.15 at
    the end; with these it stays below 1e-5. Some variances are near batch normalisation's epsilon, so that mistaking
    that shows.
    """
    random = np.random.default_rng(seed)
    tensors = {}
    for name, shape in mobilenet_v2_shapes(flat=flat).items():
        if len(shape) == 4:
            values = random.normal(size=shape) * np.sqrt(0.3 / np.prod(shape[1:]))
        elif name.endswith("running_var"):
            values = random.uniform(0.002, 0.5, shape)
        elif name.endswith("num_batches_tracked"):
            tensors[name] = np.array(1, np.int64)
            continue
        else:
            values = random.uniform(0.3, 0.8, shape) if name.endswith("weight") else random.normal(size=shape) * 0.2
        tensors[name] = values.astype(np.float32)
    return tensors


def drawn_pixels(size, number=1, seed=0):
    """Pictures drawn with NumPy: gradients with disks on them, (number, size, size, 3) uint8."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:size, 0:size] / (size - 1)
    pictures = []
    for _ in range(number):
        picture = np.stack([rows, columns, 1 - rows * columns], axis=-1) * 255
        for _ in range(5):
            y, x, radius, *colour = random.uniform(size=6)
            picture[(rows - y) ** 2 + (columns - x) ** 2 < (0.05 + 0.2 * radius) ** 2] = np.array(colour) * 255
        pictures.append(picture)
    return np.stack(pictures).astype(np.uint8)


def reference_pixels():
    """One picture by integer arithmetic alone, the same for ever: (225, 225, 3) uint8 RGB.

    Waves and gradients that differ in each colour, a red disk and a blue bar: mirrored, turned, resized or with its
    colours in another order it is another picture.
    """
    rows, columns = np.mgrid[0:225, 0:225]
    red = (columns + rows * rows // 37) % 256
    green = (2 * rows + columns * rows // 90) % 256
    blue = (columns * columns + 2 * rows * rows) // 128 % 256
    picture = np.stack([red, green, blue], axis=-1)
    picture[(rows - 60) ** 2 + (columns - 150) ** 2 < 40**2] = 230, 40, 30
    picture[150:180, 20:110] = 20, 60, 210
    return picture.astype(np.uint8)


# --- pictures ---------------------------------------------------------------------------------------------------------


def write_images(folder: Path, number, *, start=0, label="thing", side=24):
    """Write small PNG files, each with other pixels, and describe them as a scan would."""
    from headstart.pictures.folder import ImageFile

    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for seed in range(start, start + number):
        path = folder / f"{seed:03}.png"
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(path)
        images.append(ImageFile(path, path.name, label, hashlib.sha256(path.read_bytes()).hexdigest()))
    return images


# --- damage -----------------------------------------------------------------------------------------------------------


def damaged(data, number, most=3, seed=0):
    """``number`` copies of some bytes, each with one to ``most`` of them changed."""
    random = np.random.default_rng(seed)
    for _ in range(number):
        broken = bytearray(data)
        for place in random.integers(0, len(data), random.integers(1, most + 1)):
            broken[place] ^= int(random.integers(1, 256))
        yield bytes(broken)


def flip(path, place, bits=1):
    """Flip bits of one byte of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= bits
    path.write_bytes(data)
