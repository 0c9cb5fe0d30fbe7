"""A server that says exactly the bytes it was given, whatever HTTP thinks of them."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ANSWERED_IN = 30.0  # seconds; a client that neither reads nor leaves is let go

Script = Callable[[], Iterable[bytes]]
"""The bytes of one answer, piece by piece."""


class RawServer:
    """Answers every connection's first request with the script, then closes it; hangs after it with `hangs`.

    `requests` holds what was asked, head and body, as far as it had come when the answer began.
    """

    def __init__(
        self,
        script: Script | bytes,
        *,
        host: str = "127.0.0.1",
        hangs: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._script: Script = (lambda: (script,)) if isinstance(script, bytes) else script
        self._hangs = hangs
        self._tls = tls
        self._listener = socket.create_server((host, 0), backlog=64)
        self._leaving = threading.Event()
        self._threads: list[threading.Thread] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self.port: int = self._listener.getsockname()[1]

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(ANSWERED_IN)

    def _start(self, work: Callable[..., None], *about: object) -> None:
        thread = threading.Thread(target=work, args=about, name="raw-server", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener's end is the end
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                self._start(self._answer, client)

    def _secured(self, client: socket.socket) -> socket.socket:
        client.settimeout(ANSWERED_IN)
        return client if self._tls is None else self._tls.wrap_socket(client, server_side=True)

    def _answer(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), self._secured(client) as client:  # clients leave when they like
            asked = b""
            while b"\r\n\r\n" not in asked:
                piece = client.recv(65536)
                if not piece:
                    return
                asked += piece
            self.requests.append(asked)
            for part in self._script():
                client.sendall(part)
                if self._leaving.is_set():
                    return
            if self._hangs:
                self._leaving.wait(ANSWERED_IN)


def answer(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """A whole HTTP answer. `length` announces another length than the body has."""
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Length: {len(body) if length is None else length}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def self_signed(folder: Path, name: str) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate for `name` that nobody else has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    file = folder / "server.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, form, plain)
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
