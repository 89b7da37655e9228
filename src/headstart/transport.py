"""One request: opens an http(s) or file address and reads it in pieces. What went wrong is sorted into two kinds.

`PassingError` may be gone at the next attempt: a time-out, a broken connection, a server that is busy. `WeightsError`
will not: a certificate that is not trusted, a page that is not there. `download` decides how often to try again.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import email.utils
import http.client
import ssl
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from headstart.connection import build_opener, reason_of, shown
from headstart.errors import WeightsError

_MISSING = {403, 404, 410}  # Object stores answer 403 for what is not there, to those who may not list.
_PASSING = {408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524}


class PassingError(Exception):
    """What may be gone at the next attempt.

    Attributes:
        wait: seconds the server asked to be left alone for.
        restart: what was received is of no use.
        reached: the server was there.
    """

    def __init__(self, message: str, *, wait: float = 0.0, restart: bool = False, reached: bool = True) -> None:
        """Word the message."""
        super().__init__(message)
        self.wait, self.restart, self.reached = wait, restart, reached


class AbsentError(WeightsError):
    """The address leads nowhere; the same file may still be there under another name."""


@dataclasses.dataclass
class Answer:
    """An open answer: close it.

    Attributes:
        address: as a message may show it.
        stream: the open file or response.
        timeout: seconds that it may be silent.
        start: of the first byte it brings.
        total: bytes of the whole file, or None where the server does not say.
        framed: an end that comes too early is noticed.
        validator: the version of the file, for If-Range: a strong ETag or a date.
    """

    address: str
    stream: Any
    timeout: float = 0.0
    start: int = 0
    total: int | None = None
    framed: bool = True
    validator: str = ""

    def read(self, size: int) -> bytes:
        """The next bytes, as soon as there are any; empty at the end."""
        try:
            return bytes(self.stream.read1(size))
        except TimeoutError as error:
            raise PassingError(f"{self.address} did not answer for {self.timeout:g} seconds.") from error
        except (OSError, http.client.HTTPException) as error:
            raise PassingError(f"{self.address} broke the connection ({reason_of(error)}).") from error

    def __enter__(self) -> Answer:
        """The answer itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.stream.close()


def open_address(address: str, *, timeout: float, patience: float, start: int = 0, validator: str = "") -> Answer:
    """Ask for a file, from byte ``start`` on if the server can and still has the version ``validator``.

    Args:
        address: http, https or file.
        timeout: seconds that the server may be silent.
        patience: seconds until all the headers have to be there.
        start: how many bytes are here already.
        validator: their version, or "".

    Raises:
        PassingError: it may work another time.
        WeightsError: it will not.
    """
    if address.startswith("file:"):
        return _open_file(address)
    request = _request(address, start, validator)
    try:
        answer = build_opener(patience).open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()  # It is the open answer.
        raise _status_problem(shown(address), error) from error
    except urllib.error.URLError as error:
        raise _connection_problem(shown(address), error.reason) from error
    except TimeoutError as error:
        raise PassingError(f"{shown(address)} did not answer for {timeout:g} seconds.") from error
    except ValueError as error:
        raise WeightsError(f"{shown(address)} is no address, or that of a proxy is none ({error}).") from error
    except (OSError, http.client.HTTPException) as error:
        raise PassingError(f"{shown(address)} broke the connection ({reason_of(error)}).") from error
    return _understand(shown(address), answer, timeout)


def _request(address: str, start: int, validator: str) -> urllib.request.Request:
    parts = urllib.parse.urlsplit(address)
    user, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(urllib.parse.urlunsplit(parts._replace(netloc=host)))
    request.add_header("Accept-Encoding", "identity")
    if user:  # Not sent on to where the server may redirect.
        secret = base64.b64encode(urllib.parse.unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {secret}")
    if start:
        request.add_header("Range", f"bytes={start}-")
        if validator:
            request.add_header("If-Range", validator)
    return request


def _open_file(address: str) -> Answer:
    path = Path(urllib.request.url2pathname(urllib.parse.urlsplit(address).path))
    try:
        stream = path.open("rb")
        return Answer(address, stream, total=path.stat().st_size)
    except FileNotFoundError as error:
        raise AbsentError(f"{address}: there is no such file.") from error
    except OSError as error:
        raise WeightsError(f"{address} cannot be read ({reason_of(error)}).") from error


def _understand(address: str, answer: http.client.HTTPResponse, timeout: float) -> Answer:
    headers, length = answer.headers, answer.length
    start, total = 0, length
    try:
        if headers.get("Content-Encoding", "identity").lower() != "identity":
            raise WeightsError(
                f"{address} sent the file packed ({headers['Content-Encoding']}), which was not asked for."
            )
        if headers.get_content_type() == "text/html" and headers.get("Content-Type"):
            raise WeightsError(
                f"{address} sent a web page, not weights: a sign-in or a block of the network? Open it in a browser."
            )
        if answer.status == 206:
            start, total = _range(address, headers.get("Content-Range", ""), length)
    except BaseException:
        answer.close()
        raise
    framed = bool(answer.chunked) or length is not None
    if length is not None:
        answer.length = None  # Read on to the end, so that bytes beyond those announced are noticed.
    etag = headers.get("ETag", "")
    validator = etag if etag.startswith('"') else headers.get("Last-Modified", "")
    return Answer(address, answer, timeout, start, total, framed, validator)


def _range(address: str, header: str, length: int | None) -> tuple[int, int | None]:
    """Where the bytes begin and how long the whole is, from "bytes 100-199/200"."""
    unit, _, rest = header.strip().partition(" ")
    span, _, whole = rest.partition("/")
    first, _, last = span.partition("-")
    try:
        start, end = int(first), int(last) + 1
        total = end if whole == "*" else int(whole)
    except ValueError:
        start, end, total = -1, -1, -1
    if unit != "bytes" or not 0 <= start < end == total or length not in {None, end - start}:
        raise PassingError(f"{address} sent a part of the file that was not asked for ({header!r}).", restart=True)
    return start, total


def _status_problem(address: str, error: urllib.error.HTTPError) -> Exception:
    said = f"{address} answered {error.code} {error.reason}."
    if error.code == 416:
        return PassingError(said, restart=True)
    if error.code in _PASSING:
        return PassingError(said, wait=_seconds(error.headers.get("Retry-After", "")))
    return AbsentError(said) if error.code in _MISSING else WeightsError(said)


def _seconds(retry_after: str) -> float:
    """Retry-After is a number of seconds or a date."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(int(retry_after)))
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        date = email.utils.parsedate_to_datetime(retry_after)
        now = email.utils.localtime().timestamp()
        return max(0.0, date.timestamp() - now)
    return 0.0


def _connection_problem(address: str, reason: Any) -> Exception:
    if isinstance(reason, ssl.SSLError):
        hint = "If your network has a certificate of its own, name its file in SSL_CERT_FILE."
        return WeightsError(f"{address} cannot be reached safely (TLS: {reason_of(reason)}). {hint}")
    if isinstance(reason, TimeoutError):  # By then the system has sent its knock again several times.
        return WeightsError(f"{address} cannot be reached ({reason_of(reason)}).")
    if isinstance(reason, ConnectionError) and not isinstance(reason, ConnectionRefusedError):
        return PassingError(f"{address} broke the connection ({reason_of(reason)}).")
    if isinstance(reason, OSError):
        return PassingError(f"{address} cannot be reached ({reason_of(reason)}).", reached=False)
    return WeightsError(f"{address} cannot be reached ({reason}).")
