"""Downloading from a server that misbehaves."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fault_server import FAULTS, FaultServer, certificate_file
from headstart import download
from headstart.errors import WeightsError
from headstart.networks.cached import cached_files, weights_folder
from headstart.networks.catalogue import find_backbone
from headstart.networks.rows import WeightsFile
from headstart.networks.weights import find_weights

BODY = bytes(range(256)) * 800
VGG16 = find_backbone("VGG16")
NAME = "vgg16_test.h5"


@pytest.fixture(autouse=True)
def quick(monkeypatch, empty_cache):
    """No proxies, and little patience; the waits are kept instead of waited."""
    waits = []
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "HEADSTART_WEIGHTS_MIRROR",
                 "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    patience = download.Patience(attempts=3, timeout=0.3, window=0.4, least_bytes=1000, sleep=waits.append)
    monkeypatch.setattr(download, "PATIENCE", patience)
    return waits


def spec_at(address, *, pinned=True, body=BODY):
    """VGG16 whose weights lie there."""
    md5 = hashlib.md5(body, usedforsecurity=False).hexdigest() if pinned else None
    return dataclasses.replace(VGG16, weights=WeightsFile(f"{address}/{NAME}", NAME, md5))


def visible():
    """What a user sees in the cache."""
    return sorted(path.name for path in weights_folder().glob("[!.]*")) if weights_folder().exists() else []


def partial():
    return weights_folder() / ".partial" / NAME


def pull(server, **options):
    return find_weights(spec_at(server.address, **options), "imagenet")


def pull_well(body=BODY, **options):
    """A good download after whatever happened brings the right bytes."""
    with FaultServer(body) as server:
        found = find_weights(spec_at(server.address, **options), "imagenet")
    assert found.path.read_bytes() == body
    assert [file.ok for file in cached_files()] == [True]
    assert visible() == [NAME, NAME + ".json"]


def refuse(server, **options):
    with pytest.raises(WeightsError) as error:
        pull(server, **options)
    text = str(error.value)
    assert f"{server.address}/{NAME}" in text
    assert str(weights_folder()) in text
    assert f"Put {NAME} into" in text
    assert visible() == []
    return text


# --- the twelve faults ------------------------------------------------------------------------------------------------

ALWAYS = {
    "slow": None,
    "stalled": "did not answer for 0.3 seconds. Given up after 3 attempts.",
    "reset": "broke the connection (",
    "truncated": "of 204800 bytes and stopped. Given up after 3 attempts.",
    "wrong bytes": "sent other bytes than expected (MD5 ",
    "403": "answered 403 Forbidden.",
    "404": "answered 404 Not Found.",
    "500": "answered 500 Internal Server Error. Given up after 3 attempts.",
    "redirect": None,
    "wrong length": "sent more than the 204,700 bytes expected. Given up after 2 attempts.",
    "no server": "refused). Given up after 2 attempts.",
    "tls refused": "cannot be reached safely (TLS: ",
}
FINAL = {"403", "404", "no server", "tls refused"}


CASES = [(fault, pinned) for fault in FAULTS for pinned in (True, False) if (fault, pinned) != ("wrong bytes", False)]


@pytest.mark.parametrize(("fault", "pinned"), CASES)
def test_a_fault_ends_in_the_right_bytes_or_in_one_message(fault, pinned):
    with FaultServer(BODY, fault) as server:
        if ALWAYS[fault] is None:
            assert pull(server, pinned=pinned).path.read_bytes() == BODY
        else:
            assert ALWAYS[fault] in refuse(server, pinned=pinned)
    for path in weights_folder().glob("*"):
        if not path.name.startswith("."):
            path.unlink()
    pull_well(pinned=pinned)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in FINAL])
def test_a_fault_that_passes_is_outlived(fault, quick):
    with FaultServer(BODY, fault, times=1) as server:
        assert pull(server).path.read_bytes() == BODY
    assert len(quick) == (fault not in {"slow", "redirect"})


def test_a_final_answer_is_not_asked_for_again(quick):
    for fault in ("403", "404"):
        with FaultServer(BODY, fault) as server:
            refuse(server)
            assert len(server.requests) == 1
    assert quick == []


def test_waits_twice_as_long_each_time_and_as_the_server_asks(quick):
    with FaultServer(BODY, "500") as server:
        refuse(server)
    assert quick == [1, 2]
    quick.clear()
    for asked, waited in (("7", 7), ("3600", 30), ("soon", 1), ("Fri, 01 Jan 2100 00:00:00 GMT", 30)):
        with FaultServer(BODY, "429", times=1, headers={"Retry-After": asked}) as server:
            pull(server)
        assert quick.pop() == waited
        (weights_folder() / NAME).unlink()


def test_a_trickle_is_a_stall():
    with FaultServer(BODY, "trickle") as server:
        assert "bytes in " in refuse(server)


def test_headers_that_trickle_are_cut_off():
    stop = threading.Event()

    class Dripping(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(1000)
            for letter in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 400:
                if stop.wait(0.05):
                    return
                try:
                    self.request.sendall(bytes([letter]))
                except OSError:
                    return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Dripping) as server:
        server.daemon_threads = True
        server.address = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        start = time.monotonic()
        assert "broke the connection" in refuse(server)
        assert time.monotonic() - start < 5
        stop.set()
        server.shutdown()


# --- going on where it stopped ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("fault", ["stalled", "reset", "truncated"])
def test_goes_on_where_it_stopped(fault, pinned):
    with FaultServer(BODY, fault, times=1) as server:
        assert pull(server, pinned=pinned).path.read_bytes() == BODY
        assert [asked for _, asked in server.requests] == ["", f"bytes={len(BODY) // 2}-"]
        assert server.sent == len(BODY)


def leave_half(server, **options):
    """Give up in the middle, as a process that is killed does."""
    spec = spec_at(server.address, **options)

    def stop(_, done, total):
        if done > total // 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_weights(spec, "imagenet", progress=stop)
    assert 0 < partial().stat().st_size < len(BODY)


def test_another_process_goes_on_where_one_was_killed():
    with FaultServer(BODY, piece=len(BODY) // 10, pause=0.01) as server:
        leave_half(server)
        size = partial().stat().st_size
        server.pause = 0
        assert pull(server).path.read_bytes() == BODY
        assert server.requests[-1] == (f"/{NAME}", f"bytes={size}-")


@pytest.mark.parametrize("pinned", [True, False])
def test_a_part_of_another_version_is_not_used(pinned):
    new = bytes(reversed(BODY))
    with FaultServer(BODY, piece=len(BODY) // 10, pause=0.01) as server:
        leave_half(server, pinned=pinned)
        server.pause, server.body, server.etag = 0, new, '"new"'
        assert pull(server, pinned=pinned, body=new).path.read_bytes() == new
        assert len(server.requests) == 2 or pinned


def test_a_part_from_another_server_is_not_used():
    with FaultServer(BODY, piece=len(BODY) // 10, pause=0.01) as server:
        leave_half(server, pinned=False)
    new = bytes(reversed(BODY))
    with FaultServer(new) as other:
        other.etag = server.etag
        assert pull(other, pinned=False).path.read_bytes() == new


def test_a_part_without_a_version_is_only_used_where_the_hash_would_tell():
    for pinned, asked in ((False, 0), (True, 1)):
        with FaultServer(BODY, piece=len(BODY) // 10, pause=0.01, headers={"ETag": None}) as server:
            leave_half(server, pinned=pinned)
            server.pause = 0
            assert pull(server, pinned=pinned).path.read_bytes() == BODY
            assert bool(server.requests[-1][1]) == asked
        (weights_folder() / NAME).unlink()


def test_a_damaged_part_is_thrown_away_at_the_end():
    with FaultServer(BODY, piece=len(BODY) // 10, pause=0.01) as server:
        leave_half(server)
        partial().write_bytes(b"?" * partial().stat().st_size)
        server.pause = 0
        assert pull(server).path.read_bytes() == BODY
        assert len(server.requests) == 3


def test_a_server_without_ranges_starts_again():
    with FaultServer(BODY, piece=len(BODY) // 10, pause=0.01) as server:
        leave_half(server)
        server.pause, server.fault, server.times = 0, "no ranges", 10
        assert pull(server).path.read_bytes() == BODY


def test_a_range_that_cannot_be_starts_again():
    with FaultServer(BODY, piece=len(BODY) // 10, pause=0.01) as server:
        leave_half(server)
        server.pause, server.fault, server.times = 0, "416", 1
        assert pull(server).path.read_bytes() == BODY
        assert server.requests[-1][1] == ""


@pytest.mark.parametrize("state", [b"", b"[", b"[" * 9000, b'{"address": 1}', b"\xff"])
def test_a_part_that_nothing_is_known_of_is_not_used(state):
    with FaultServer(BODY, piece=len(BODY) // 10, pause=0.01) as server:
        leave_half(server)
        partial().with_name(NAME + ".json").write_bytes(state)
        server.pause = 0
        assert pull(server).path.read_bytes() == BODY
        assert server.requests[-1][1] == ""


def test_a_whole_part_needs_no_server():
    with FaultServer(BODY, piece=len(BODY) // 10, pause=0.01) as server:
        leave_half(server)
        partial().write_bytes(BODY)
        assert pull(server).path.read_bytes() == BODY
        assert len(server.requests) == 1


def test_a_link_in_the_way_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    with FaultServer(BODY, piece=len(BODY) // 10, pause=0.01) as server:
        leave_half(server)
        partial().unlink()
        partial().symlink_to(victim)
        server.pause = 0
        found = pull(server)
    assert victim.read_bytes() == b"mine"
    assert not found.path.is_symlink()


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({"Content-Type": "text/html; charset=utf-8"}, "sent a web page, not weights"),
        ({"Content-Encoding": "gzip"}, "sent the file packed (gzip)"),
        ({"Content-Length": None}, "does not say how long the file is"),
        (
            {"Content-Length": str(10**12)},
            "announces 1,000,000,000,000 bytes; vgg16_test.h5 has 1,123,637,568 at most.",
        ),
        ({"Content-Length": "0"}, "sent an empty file"),
    ],
)
def test_answers_that_cannot_be_weights(headers, problem):
    with FaultServer(BODY, headers=headers) as server:
        assert problem in refuse(server, pinned=False)


def test_a_server_that_never_stops_is_stopped():
    with FaultServer(b"x" * 20_000_000, headers={"Content-Length": None}) as server:
        spec = dataclasses.replace(spec_at(server.address), num_params=1)
        with pytest.raises(WeightsError, match="sent more than the 16,777,224 bytes expected"):
            find_weights(spec, "imagenet")
    assert visible() == []


def test_from_https_only_to_https(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate_file(tmp_path)))
    with FaultServer(BODY) as plain:
        moved = {"Location": f"{plain.address}/{NAME}"}
        with FaultServer(BODY, "302", tls=True, headers=moved) as server:
            assert "sends on from https to http" in refuse(server)
        with FaultServer(BODY, "302", headers={"Location": "ftp://127.0.0.1/x"}) as server:
            assert "sends on from http to ftp" in refuse(server)
        with FaultServer(BODY, "302", headers=moved) as server:
            pull(server)


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_certificates_come_from_the_environment(variable, tmp_path, monkeypatch):
    with FaultServer(BODY, tls=True) as server:
        assert "name its file in SSL_CERT_FILE" in refuse(server)
        monkeypatch.setenv(variable, str(certificate_file(tmp_path)))
        assert pull(server).path.read_bytes() == BODY


def test_a_bundle_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/gone.pem")
    with (
        FaultServer(BODY, tls=True) as server,
        pytest.raises(WeightsError, match=r"REQUESTS_CA_BUNDLE names /gone\.pem"),
    ):
        pull(server)


def test_the_proxy_of_the_environment_is_asked(monkeypatch):
    with FaultServer(BODY) as proxy:
        monkeypatch.setenv("http_proxy", proxy.address)
        find_weights(spec_at("http://weights.invalid"), "imagenet")
        assert proxy.requests == [(f"http://weights.invalid/{NAME}", "")]
        monkeypatch.setenv("no_proxy", "weights.invalid")
        (weights_folder() / NAME).unlink()
        with pytest.raises(WeightsError, match="cannot be reached"):
            find_weights(spec_at("http://weights.invalid"), "imagenet")


def test_a_full_disk_is_one_message_and_leaves_nothing(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with FaultServer(BODY) as server:
        monkeypatch.setattr(download, "_copy", full)
        text = refuse(server)
    assert f"{partial()} cannot be written (No space left on device)" in text
    assert not partial().exists()


def test_a_cache_that_cannot_be_written_is_one_message():
    weights_folder().parent.mkdir()
    weights_folder().write_text("a file where a folder should be")
    with FaultServer(BODY) as server, pytest.raises(WeightsError) as error:
        pull(server)
    assert f"{weights_folder()}" in str(error.value)
    assert "cannot be written" in str(error.value)


# --- the mirror -------------------------------------------------------------------------------------------------------


def test_a_mirror_is_asked_by_name_and_nothing_else_is(monkeypatch):
    with FaultServer(BODY) as origin, FaultServer(BODY) as mirror:
        monkeypatch.setenv("HEADSTART_WEIGHTS_MIRROR", f"{mirror.address}/keras/")
        assert pull(origin).path.read_bytes() == BODY
        assert (mirror.requests, origin.requests) == ([(f"/keras/{NAME}", "")], [])
        assert cached_files()[0].source == f"{mirror.address}/keras/{NAME}"


def test_what_a_mirror_lacks_is_not_fetched_elsewhere(monkeypatch):
    with FaultServer(BODY) as origin, FaultServer(BODY, "404") as mirror:
        monkeypatch.setenv("HEADSTART_WEIGHTS_MIRROR", mirror.address)
        text = refuse(origin)
        assert f"{mirror.address}/{NAME} answered 404 Not Found." in text
        assert f"only that mirror was asked: put {NAME} there, or unset HEADSTART_WEIGHTS_MIRROR" in text
        assert origin.requests == []


def test_hashes_are_checked_whatever_the_mirror_says(monkeypatch):
    with FaultServer(bytes(reversed(BODY))) as mirror:
        monkeypatch.setenv("HEADSTART_WEIGHTS_MIRROR", mirror.address)
        with pytest.raises(WeightsError, match="sent other bytes than expected"):
            find_weights(spec_at("http://weights.invalid"), "imagenet")
    assert visible() == []


@pytest.mark.parametrize("as_address", [True, False], ids=["file address", "path"])
@pytest.mark.parametrize("name", ["published.h5", NAME])
def test_a_mirror_can_be_a_folder_with_either_name(as_address, name, tmp_path, monkeypatch):
    folder = tmp_path / "the mirror"
    folder.mkdir()
    (folder / name).write_bytes(BODY)
    monkeypatch.setenv("HEADSTART_WEIGHTS_MIRROR", folder.as_uri() if as_address else str(folder))
    spec = spec_at("http://weights.invalid")
    spec = dataclasses.replace(
        spec, weights=dataclasses.replace(spec.weights, address="http://weights.invalid/published.h5")
    )
    assert find_weights(spec, "imagenet").path == weights_folder() / NAME
    assert (weights_folder() / NAME).read_bytes() == BODY


def test_an_empty_folder_is_no_mirror(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_WEIGHTS_MIRROR", str(tmp_path))
    with pytest.raises(WeightsError, match=rf"{tmp_path.as_uri()}/{NAME}: there is no such file\."):
        find_weights(spec_at("http://weights.invalid"), "imagenet")
    monkeypatch.setenv("HEADSTART_WEIGHTS_MIRROR", "ftp://host/")
    with pytest.raises(WeightsError, match="HEADSTART_WEIGHTS_MIRROR is ftp://host/: expected an http, https or file"):
        find_weights(spec_at("http://weights.invalid"), "imagenet")


def test_the_password_of_a_mirror_is_sent_and_never_shown(monkeypatch):
    with FaultServer(BODY) as mirror:
        host = mirror.address.removeprefix("http://")
        monkeypatch.setenv("HEADSTART_WEIGHTS_MIRROR", f"http://me:se%40cret@{host}")
        find_weights(spec_at("http://weights.invalid"), "imagenet")
    assert mirror.passwords == ["Basic bWU6c2VAY3JldA=="]
    assert not any(b"se%40cret" in path.read_bytes() for path in weights_folder().rglob("*.json"))


# --- one fetch for all ------------------------------------------------------------------------------------------------


def test_eight_processes_fetch_a_file_once(empty_cache):
    code = "import sys\nfrom headstart.cli import run\nsys.exit(run(['weights', 'pull', 'MobileNet']))"
    with FaultServer(BODY, piece=len(BODY) // 20, pause=0.1) as server:
        env = {**os.environ, "HEADSTART_WEIGHTS_MIRROR": server.address, "no_proxy": "*"}
        pulls = [
            subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
            for _ in range(8)
        ]
        said = [each.communicate(timeout=60)[1].decode() for each in pulls]
        assert [each.returncode for each in pulls] == [0] * 8, said
        assert (server.num_full, len(server.requests)) == (1, 1)
    assert any("Waiting for another process" in each for each in said)
    assert [file.ok for file in cached_files()] == [True]
    assert Path(weights_folder() / "mobilenet_1_0_224_tf_no_top.h5").read_bytes() == BODY
