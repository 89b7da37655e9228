"""A server for the tests of downloading, which knows twelve ways not to serve a file; some once, some always.

``with FaultServer(body, "reset", times=1) as server: ...`` breaks the first connection and then behaves.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import socket
import ssl
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path

FAULTS = (
    "slow", "stalled", "reset", "truncated", "wrong bytes", "403", "404", "500", "redirect", "wrong length", "no server",
    "tls refused",
)  # fmt: skip

# Made for these tests and of use nowhere else: openssl req -x509 -newkey ec ... -subj "/CN=headstart test, trust nowhere"
TEST_CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg91HegzhfT4edEhIn
U4Invj+jRB2d+yfSHOqVqnEIueGhRANCAAS9vf72u1XqwH5ei0r5GnRpfUytDszG
DriO+/k5rgw8XnSlU2rKyy4Gj0rK7LH9T2XFVFkglVdwdD23moq2GmEp
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIB0zCCAXmgAwIBAgIUNpeyn/5cNDYxHt+o1YkF6oA51DQwCgYIKoZIzj0EAwIw
KDEmMCQGA1UEAwwdaGVhZHN0YXJ0IHRlc3QsIHRydXN0IG5vd2hlcmUwIBcNMjYx
MTI0MDkyNTU4WhgPMjEyNjEwMzEwOTI1NThaMCgxJjAkBgNVBAMMHWhlYWRzdGFy
dCB0ZXN0LCB0cnVzdCBub3doZXJlMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
vb3+9rtV6sB+XotK+Rp0aX1MrQ7Mxg64jvv5Oa4MPF50pVNqyssuBo9Kyuyx/U9l
xVRZIJVXcHQ9t5qKthphKaN/MH0wHQYDVR0OBBYEFJpOCyYtqQOAuE2xNm+rpsTL
57R4MB8GA1UdIwQYMBaAFJpOCyYtqQOAuE2xNm+rpsTL57R4MBoGA1UdEQQTMBGH
BH8AAAGCCWxvY2FsaG9zdDAOBgNVHQ8BAf8EBAMCAoQwDwYDVR0TAQH/BAUwAwEB
/zAKBggqhkjOPQQDAgNIADBFAiAZCm0hpWfSfQ2l7m0JtVCoCM87sDMeRTRMZEzP
AoED4wIhAPwVpDq97mYIQM2eldhybtHFViuCIeYIkPmfSBrc5nrP
-----END CERTIFICATE-----
"""


class FaultServer:
    """Serves one body under every path, with ranges and an ETag, but for a fault.

    Attributes:
        requests: (path, Range header or "") of each request.
        passwords: the Authorization header of each.
        sent: bytes of bodies that were put on connections.
        num_full: bodies that were sent from the first byte to the last.
        release: set it to let go of connections that are kept waiting.
    """

    def __init__(self, body, fault="", *, times=10**9, piece=None, pause=0.0, headers=None, tls=False):
        self.body, self.fault, self.times, self.piece, self.pause = body, fault, times, piece or len(body) or 1, pause
        self.headers = headers or {}
        self.tls = tls or fault == "tls refused"
        self.requests, self.passwords, self.sent, self.num_full = [], [], 0, 0
        self.etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        self.release, self.lock = threading.Event(), threading.Lock()

    def __enter__(self):
        handler = type("Mine", (_Handler,), {"owner": self})
        self._server = _Quiet(("127.0.0.1", 0), handler)
        if self.tls:
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
                file.write(TEST_CERTIFICATE)
                file.flush()
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(file.name)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.address = f"{'https' if self.tls else 'http'}://127.0.0.1:{self._server.server_port}"
        if self.fault == "no server":
            self._server.server_close()
        else:
            self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_):
        self.release.set()
        if self.fault != "no server":
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def takes_a_fault(self):
        """The fault of this request: the first ones have it."""
        with self.lock:
            self.times -= 1
            return self.fault if self.times >= 0 else ""


class _Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 50

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        owner = self.owner
        with owner.lock:
            owner.requests.append((self.path, self.headers.get("Range", "")))
            owner.passwords.append(self.headers.get("Authorization"))
        fault = owner.takes_a_fault()
        if fault.isdigit():
            self.send_response(int(fault))
            self._finish_headers({"Content-Length": "0", **owner.headers})
        elif fault == "redirect" and not self.path.startswith("/moved"):
            self.send_response(302)
            self._finish_headers({"Location": f"/moved{self.path}", "Content-Length": "0", **owner.headers})
        else:
            self._send_body(fault)

    def _send_body(self, fault):
        owner, body = self.owner, self.owner.body
        start = self._start() if fault not in {"no ranges", "wrong bytes"} else 0
        if start >= len(body) and body:
            self.send_response(416)
            self._finish_headers({"Content-Length": "0"})
            return
        if fault == "wrong bytes":
            body = body[:-1] + bytes([body[-1] ^ 1])
        announced = len(body) - start - (100 if fault == "wrong length" else 0)
        headers = {"Content-Length": str(announced), "ETag": owner.etag, "Accept-Ranges": "bytes", **owner.headers}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self.send_response(206 if start else 200)
        self._finish_headers({key: value for key, value in headers.items() if value is not None})
        half = start + (len(body) - start) // 2
        end = half if fault in {"stalled", "reset", "truncated"} else len(body)
        self._write(body, start, end, fault)
        if fault == "stalled":
            owner.release.wait(30)
        elif fault == "reset":
            time.sleep(0.05)  # A reset throws away what was not read yet.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif end == len(body) and not start:
            with owner.lock:
                owner.num_full += 1

    def _start(self):
        asked = self.headers.get("Range", "")
        if self.headers.get("If-Range", self.owner.etag) != self.owner.etag or not asked.startswith("bytes="):
            return 0
        return int(asked.removeprefix("bytes=").rstrip("-"))

    def _write(self, body, start, end, fault):
        owner = self.owner
        piece, pause = (max(1, len(body) // 10), 0.02) if fault == "slow" else (owner.piece, owner.pause)
        if fault == "trickle":
            piece, pause = 1, 0.05
        for position in range(start, end, piece):
            data = body[position : min(position + piece, end)]
            with owner.lock:  # Before they go, or who has them all could look before they are counted.
                owner.sent += len(data)
            self.wfile.write(data)
            if pause and owner.release.wait(pause):
                return

    def _finish_headers(self, headers):
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def finish(self):
        with contextlib.suppress(OSError):  # The other side has left, or was thrown out.
            super().finish()

    def log_message(self, *_):
        """Say nothing."""


def certificate_file(folder):
    """Where a client finds the certificate to trust it."""
    path = Path(folder) / "certificate.pem"
    path.write_text(TEST_CERTIFICATE[TEST_CERTIFICATE.index("-----BEGIN CERT") :])
    return path
