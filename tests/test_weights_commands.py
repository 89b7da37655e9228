"""`headstart weights`: pull, list, verify, pack and import, and what an archive may not do."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from fault_server import FaultServer
from headstart import download
from headstart.networks import cached
from headstart.networks.cached import weights_folder, write_record
from headstart.networks.catalogue import find_backbone
from headstart.networks.pulling import pull_weights
from journey import call

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from kill_pull import kill_pulls

MOBILENET = find_backbone("MobileNet").weights.name  # Keras publishes no hash of these two.
MOBILENET_V2 = find_backbone("MobileNetV2").weights.name
VGG16 = find_backbone("VGG16").weights.name
BODY = bytes(range(256)) * 100


@pytest.fixture(autouse=True)
def quick(monkeypatch, empty_cache):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "PATIENCE", download.Patience(attempts=2, timeout=0.5, sleep=lambda _: None))


@pytest.fixture
def mirror(monkeypatch):
    with FaultServer(BODY) as server:
        monkeypatch.setenv("HEADSTART_WEIGHTS_MIRROR", server.address)
        yield server


def put(name, content=BODY):
    weights_folder().mkdir(parents=True, exist_ok=True)
    path = weights_folder() / name
    path.write_bytes(content)
    write_record(path, "somewhere", hashlib.sha256(content).hexdigest(), len(content))
    return path


def visible():
    return sorted(path.name for path in weights_folder().glob("[!.]*"))


# --- pull -------------------------------------------------------------------------------------------------------------


def test_pull_goes_on_where_one_fails(mirror):
    answer = call(
        "weights", "pull", "vgg16", "MobileNet", "MobileNetV2", "--source", "imagenet", "--jobs", "2", "--json"
    )
    assert answer.code == 1
    assert [row["backbone"] for row in answer.json["weights"]] == ["MobileNet", "MobileNetV2"]
    (problem,) = answer.json["problems"]
    assert "sent other bytes than expected" in problem
    assert "1 of 3 could not be fetched." in answer.err
    assert f"2 of 3 are here: {weights_folder()}" in answer.err
    assert visible() == sorted([MOBILENET, MOBILENET + ".json", MOBILENET_V2, MOBILENET_V2 + ".json"])


def test_pull_refuses_a_wrong_name_before_anything_is_fetched(mirror):
    said = call("weights", "pull", "MobileNet", "VGG61").complaint()
    assert said.startswith("There is no backbone 'VGG61'. Did you mean VGG1")
    said = call("weights", "pull", "MobileNet", "--source", "imagnet").complaint()
    assert said == "There is no source of weights 'imagnet'. Did you mean imagenet?"
    assert mirror.requests == []


def test_pull_seed_is_eight_at_once(mirror):
    mirror.fault, mirror.pause = "404", 0
    answer = call("weights", "pull", "seed", "--source", "imagenet", "--jobs", "8", "--json")
    assert len(answer.json["problems"]) == 8
    assert answer.json["problems"][0].startswith("ImageNet weights for VGG16: ")


def test_an_interrupted_pull_ends_at_once_and_goes_on_later(mirror):
    mirror.fault = "stalled"
    arguments = ["weights", "pull", "MobileNet", "MobileNetV2", "--source", "imagenet"]
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from headstart.cli import main\nsys.argv[:] = ['headstart', *sys.argv[1:]]\nmain()"
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env={**os.environ, "no_proxy": "*"}, stderr=subprocess.PIPE
    ) as pull:
        parts = [weights_folder() / ".partial" / name for name in (MOBILENET, MOBILENET_V2)]
        end = time.monotonic() + 30
        while not all(part.is_file() and part.stat().st_size == len(BODY) // 2 for part in parts):
            assert time.monotonic() < end
            time.sleep(0.01)
        start = time.monotonic()
        pull.send_signal(signal.SIGINT)
        _, said = pull.communicate(timeout=20)
    assert pull.returncode == 130, said
    assert time.monotonic() - start < 5
    assert said.decode().splitlines()[-1].startswith("error: Interrupted.")
    mirror.fault = ""
    assert call("weights", "pull", "MobileNet").code == 0
    assert mirror.requests[-1] == (f"/{MOBILENET}", f"bytes={len(BODY) // 2}-")


def test_a_pull_that_is_given_up_stops_fetching(mirror):
    put(MOBILENET)
    mirror.piece, mirror.pause = len(BODY) // 20, 0.03
    results = pull_weights([find_backbone("MobileNet"), find_backbone("MobileNetV2")], "imagenet")
    assert next(results).spec.name == "MobileNet"
    results.close()
    time.sleep(1)
    assert not (weights_folder() / MOBILENET_V2).exists()


def test_killed_pulls_leave_what_the_next_one_uses(tmp_path):
    """With more kills and a larger file: benchmarks/kill_pull.py."""
    size = 4_000_000
    found = kill_pulls(tmp_path / "killed", kills=4, size=size, bytes_per_second=size / 2, seed=3)
    assert found.killed == 4
    assert found.part_there
    assert found.whole
    assert found.verified
    assert found.visible == [MOBILENET, MOBILENET + ".json"]
    assert size <= found.sent < 1.5 * size


@pytest.mark.slow
def test_twenty_killed_pulls(tmp_path):
    found = kill_pulls(tmp_path, kills=20, size=20_000_000, bytes_per_second=1_000_000, seed=1)
    assert (found.killed, found.whole, found.verified) == (20, True, True)


# --- list, verify -----------------------------------------------------------------------------------------------------


def test_list_says_what_is_here_and_under_which_licence():
    path = put(MOBILENET)
    (row,) = call("weights", "list", "mobilenet", "--json").json["weights"]
    assert row == {
        "backbone": "MobileNet", "source": "imagenet", "cached": True, "file": MOBILENET, "path": str(path),
        "size": len(BODY), "pinned": "none", "licence": "Apache-2.0",
    }  # fmt: skip
    rows = call("weights", "list", "MobileNetV2", "VGG16", "ConvNeXtTiny", "--json").json["weights"]
    assert [(row["source"], row["cached"], row["pinned"]) for row in rows] == [
        ("imagenet", False, "none"), ("packaged", False, "SHA-256"), ("imagenet", False, "MD5"),
        ("imagenet", False, "SHA-256"),
    ]  # fmt: skip
    assert "here" in call("weights", "list", "MobileNet").out
    assert call("weights", "list", "MobilNet").code == 1


def test_verify_says_how_it_knows():
    put(MOBILENET)
    put(VGG16)
    (weights_folder() / "mine.h5").write_bytes(b"mine")
    answer = call("weights", "verify", "--json")
    assert answer.code == 1
    rows = {Path(row["path"]).name: (row["status"], row["ok"]) for row in answer.json["files"]}
    assert rows == {MOBILENET: ("recorded", True), VGG16: ("pinned", False), "mine.h5": ("first use", True)}
    assert "1 of 3 files are damaged. Delete " in answer.err
    assert "its MD5 is " in answer.err
    assert "it was trusted, and its hash recorded" in answer.err


# --- pack and import --------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path):
    """Two files, packed; then the cache is emptied."""
    put(MOBILENET)
    put(MOBILENET_V2, BODY[::-1])
    path = tmp_path / "weights.zip"
    answer = call("weights", "pack", path, "--json")
    assert answer.code == 0, answer.err
    assert [row["name"] for row in answer.json["files"]] == [MOBILENET, MOBILENET_V2]
    assert answer.json["size"] == path.stat().st_size
    for file in weights_folder().glob("*.*"):
        file.unlink()
    return path


def test_an_archive_brings_everything_along(archive):
    answer = call("weights", "import", archive, "--json")
    assert answer.code == 0, answer.err
    assert [row["status"] for row in answer.json["files"]] == ["imported", "imported"]
    assert (weights_folder() / MOBILENET_V2).read_bytes() == BODY[::-1]
    files = call("weights", "verify", "--json").json["files"]
    assert [(row["ok"], row["source"]) for row in files] == [(True, f"somewhere (by {archive.name})")] * 2
    again = call("weights", "import", archive, "--json")
    assert [row["status"] for row in again.json["files"]] == ["here already"] * 2
    assert not list((weights_folder() / ".partial").rglob("*.h5"))


def test_the_same_files_make_the_same_archive(archive, tmp_path):
    call("weights", "import", archive)
    for path in weights_folder().glob("*.json"):
        path.unlink()
    put(MOBILENET), put(MOBILENET_V2, BODY[::-1])
    assert call("weights", "pack", tmp_path / "again.zip", "MobileNet", "MobileNetV2").code == 0
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()
    with zipfile.ZipFile(archive) as zipped:
        assert zipped.namelist()[0] == "MANIFEST.json"


def test_pack_refuses(archive, tmp_path):
    assert call("weights", "pack", archive).complaint().startswith(f"{archive} is there already.")
    new = tmp_path / "new.zip"
    assert call("weights", "pack", new).complaint().startswith("There are no weights in ")
    assert "The weights of VGG16 are not in " in call("weights", "pack", new, "VGG16").complaint()
    put(MOBILENET).write_bytes(b"damaged")
    assert "when it came it was" in call("weights", "pack", new).complaint()
    assert not new.exists()


def test_import_never_replaces_a_good_file_by_another(archive):
    path = put(MOBILENET, b"another")
    said = call("weights", "import", archive).complaint()
    assert f"holds another {MOBILENET}" in said
    assert "Nothing was imported." in said
    assert visible() == [MOBILENET, MOBILENET + ".json"]
    path.write_bytes(b"damaged")
    answer = call("weights", "import", archive, "--json")
    assert [row["status"] for row in answer.json["files"]] == ["replaced", "imported"]
    assert path.read_bytes() == BODY


def test_import_checks_the_published_hashes(archive, monkeypatch):
    monkeypatch.setattr(cached, "pin_of", lambda _: cached.Pin(sha256="0" * 64))
    assert "the published one is 000" in call("weights", "import", archive).complaint()
    assert visible() == []


def entry(name, content, size=None, sha256=None):
    return {"name": name, "size": len(content) if size is None else size, "source": "x",
            "sha256": sha256 or hashlib.sha256(content).hexdigest()}  # fmt: skip


def write_zip(path, members, rows=None, manifest=None, compression=zipfile.ZIP_STORED):
    rows = [entry(name, content) for name, content in members] if rows is None else rows
    text = json.dumps({"format": "headstart weights 1", "files": rows}) if manifest is None else manifest
    with zipfile.ZipFile(path, "w", compression) as zipped:
        if manifest != b"":
            zipped.writestr("MANIFEST.json", text)
        for name, content in members:
            zipped.writestr(name, content)


GOOD = (MOBILENET, BODY)
LINK = zipfile.ZipInfo(MOBILENET_V2)
LINK.external_attr = 0o120777 << 16
HOSTILE = {
    "path": ([GOOD, ("../evil.h5", b"x")], {}, "which is no weights file of any backbone"),
    "absolute": ([GOOD, ("/tmp/evil.h5", b"x")], {}, "which is no weights file of any backbone"),
    "record": ([GOOD, (MOBILENET + ".json", b"x")], {}, "which is no weights file of any backbone"),
    "hidden": ([GOOD, (".partial/x", b"x")], {}, "which is no weights file of any backbone"),
    "unlisted": ([GOOD, (MOBILENET_V2, b"x")], {"rows": [entry(*GOOD)]}, "holds other files than its MANIFEST.json"),
    "missing": ([GOOD], {"rows": [entry(*GOOD), entry(MOBILENET_V2, b"x")]}, "holds other files than its"),
    "listed twice": ([GOOD], {"rows": [entry(*GOOD), entry(*GOOD)]}, "holds other files than its"),
    "wrong size": ([GOOD], {"rows": [entry(*GOOD, size=5)]}, "with another size"),
    "wrong hash": ([GOOD], {"rows": [entry(*GOOD, sha256="0" * 64)]}, "its SHA-256 is not 000"),
    "wrong hash last": ([GOOD, (MOBILENET_V2, b"x")],
                        {"rows": [entry(*GOOD), entry(MOBILENET_V2, b"x", sha256="0" * 64)]}, "its SHA-256 is not 000"),
    "compressed": ([GOOD], {"compression": zipfile.ZIP_DEFLATED}, "that is compressed"),
    "no manifest": ([GOOD], {"manifest": b""}, "has no MANIFEST.json"),
    "other manifest": ([GOOD], {"manifest": b"[]"}, "cannot be understood"),
    "deep manifest": ([GOOD], {"manifest": b"[" * 100_000}, "cannot be understood"),
    "other format": ([GOOD], {"manifest": b'{"format": "x", "files": []}'}, "has another format"),
    "numbers": ([GOOD], {"manifest": b'{"format": "headstart weights 1", "files": [{"name": 1}]}'}, "cannot be understood"),
    "huge manifest": ([GOOD], {"manifest": b" " * (2 << 20)}, "larger than"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(HOSTILE))
def test_a_hostile_archive_brings_nothing(case, tmp_path):
    members, options, problem = HOSTILE[case]
    path = tmp_path / "hostile.zip"
    write_zip(path, members, **options)
    said = call("weights", "import", path).complaint()
    assert problem in said
    assert str(path) in said
    assert "Nothing was" in said
    left = [each for each in weights_folder().rglob("*") if each.is_file() and each.suffix != ".lock"]
    assert left == []
    assert not (tmp_path / "evil.h5").exists()


def test_a_link_in_an_archive_is_no_link_in_the_cache(tmp_path):
    write_zip(tmp_path / "a.zip", [(LINK, b"/etc/passwd")], rows=[entry(MOBILENET_V2, b"/etc/passwd")])
    assert call("weights", "import", tmp_path / "a.zip").code == 0
    assert not (weights_folder() / MOBILENET_V2).is_symlink()
    assert (weights_folder() / MOBILENET_V2).read_bytes() == b"/etc/passwd"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_is_refused(tmp_path):
    write_zip(tmp_path / "a.zip", [GOOD, GOOD], rows=[entry(*GOOD)])
    assert "a name in it twice" in call("weights", "import", tmp_path / "a.zip").complaint()


def test_a_damaged_archive_brings_nothing(archive):
    good = archive.read_bytes()
    middle = good.index(BODY)
    cases = [b"", good[:100], good[: len(good) // 2], good[:-30], b"\0" * 1000, b"PK\5\6" + b"\xff" * 18]
    cases += [
        good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in (middle, middle + 5000, good.index(b"sha256") + 12)
    ]
    for case in cases:
        archive.write_bytes(case)
        assert str(archive) in call("weights", "import", archive).complaint()
        assert visible() == []
    archive.unlink()
    assert call("weights", "import", archive).complaint().startswith(f"{archive}: there is no such file.")


def test_any_flipped_byte_of_an_archive_is_refused_or_harmless(archive):
    """Never anything but a message, and never other weights than those that were packed."""
    good = archive.read_bytes()
    for at in [*range(0, 700, 7), *range(len(good) - 400, len(good), 5)]:
        archive.write_bytes(good[:at] + bytes([good[at] ^ 0x55]) + good[at + 1 :])
        answer = call("weights", "import", archive)
        assert answer.code in {0, 1}
        for name, content in ((MOBILENET, BODY), (MOBILENET_V2, BODY[::-1])):
            path = weights_folder() / name
            if path.exists():
                assert path.read_bytes() == content
                path.unlink()
            Path(f"{path}.json").unlink(missing_ok=True)
