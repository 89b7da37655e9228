"""How connections are made: proxies and certificates from the environment, redirects, and an end to waiting.

Proxies are those of HTTP_PROXY, HTTPS_PROXY and NO_PROXY, as urllib reads them; certificates are those of
SSL_CERT_FILE, or the system's, and those of REQUESTS_CA_BUNDLE.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headstart.errors import WeightsError


def build_opener(patience: float) -> urllib.request.OpenerDirector:
    """What opens http and https addresses.

    Args:
        patience: seconds until all the headers of an answer have to be there.
    """
    return urllib.request.build_opener(_Redirects, _Plain(patience), _Secure(patience))


def shown(address: str) -> str:
    """An address without the password that may be in it."""
    parts = urllib.parse.urlsplit(address)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def reason_of(error: BaseException) -> str:
    """An error in words; some have none."""
    return str(error) or type(error).__name__


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme != "https" and (scheme != "http" or req.type == "https"):
            fp.close()
            raise WeightsError(
                f"{shown(req.full_url)} sends on from {req.type} to {scheme} ({shown(newurl)}), which is not followed."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Connection(http.client.HTTPConnection):
    patience = 60.0

    def getresponse(self) -> http.client.HTTPResponse:
        with _deadline(self.sock, self.patience):
            return super().getresponse()


class _SecureConnection(http.client.HTTPSConnection):
    patience = 60.0

    def getresponse(self) -> http.client.HTTPResponse:
        with _deadline(self.sock, self.patience):
            return super().getresponse()


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, patience: float) -> None:
        super().__init__()
        self._patience = patience

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connect, req)

    def _connect(self, host: str, /, **options: Any) -> _Connection:
        connection = _Connection(host, **options)
        connection.patience = self._patience
        return connection


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self, patience: float) -> None:
        super().__init__()
        self._patience = patience

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connect, req, context=_trust())

    def _connect(self, host: str, /, **options: Any) -> _SecureConnection:
        connection = _SecureConnection(host, **options)
        connection.patience = self._patience
        return connection


def _trust() -> ssl.SSLContext:
    """The system's certificates, those of SSL_CERT_FILE (OpenSSL reads it itself), and those of REQUESTS_CA_BUNDLE."""
    context = ssl.create_default_context()
    bundle = os.environ.get("REQUESTS_CA_BUNDLE")
    if bundle:
        where = "capath" if Path(bundle).is_dir() else "cafile"
        try:
            context.load_verify_locations(**{where: bundle})
        except OSError as error:
            raise WeightsError(
                f"REQUESTS_CA_BUNDLE names {bundle}, which holds no certificates ({reason_of(error)})."
            ) from error
    return context


@contextlib.contextmanager
def _deadline(sock: socket.socket, seconds: float) -> Iterator[None]:
    """Cut the connection should this not be over in time: a time-out alone starts anew with each byte."""

    def cut() -> None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)  # Below TLS, whose own would wait for the other side.

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
