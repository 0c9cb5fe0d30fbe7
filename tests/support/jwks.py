"""A project's public keys on an address of their own, which may change, fail, redirect or flood."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

MAKERS: dict[str, Any] = {
    "RS256": (lambda: rsa.generate_private_key(65537, 2048), RSAAlgorithm),
    "ES256": (lambda: ec.generate_private_key(ec.SECP256R1()), ECAlgorithm),
    "EdDSA": (ed25519.Ed25519PrivateKey.generate, OKPAlgorithm),
}


@dataclass(frozen=True)
class Signer:
    """A key pair that signs tokens."""

    kid: str
    algorithm: str
    private: Any

    @classmethod
    def make(cls, kid: str, algorithm: str = "ES256") -> "Signer":
        return cls(kid, algorithm, MAKERS[algorithm][0]())

    def public(self) -> dict[str, Any]:
        known: dict[str, Any] = MAKERS[self.algorithm][1].to_jwk(self.private.public_key(), as_dict=True)
        return {**known, "kid": self.kid, "alg": self.algorithm, "use": "sig"}

    def sign(self, claims: dict[str, Any]) -> str:
        return jwt.encode(claims, self.private, algorithm=self.algorithm, headers={"kid": self.kid})


@dataclass
class KeyServer:
    """What the address answers, and how often it was asked."""

    url: str = ""
    keys: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    asked: int = 0
    pause: float = 0.0
    """Seconds before the answer."""
    drip: float = 0.0
    """Seconds between the bytes of a header that has no end."""
    over: threading.Event = field(default_factory=threading.Event)


@contextmanager
def key_server() -> Iterator[KeyServer]:
    state = KeyServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked += 1
            state.over.wait(state.pause)
            with suppress(OSError):
                self._answer()

        def _answer(self) -> None:
            if state.drip:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
            while state.drip and not state.over.wait(state.drip):
                self.wfile.write(b"x")
                self.wfile.flush()
            body = orjson.dumps({"keys": state.keys})
            self.send_response(state.status)
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}/keys"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield state
    state.over.set()
    server.shutdown()
    thread.join(5)
    server.server_close()
