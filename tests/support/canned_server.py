"""A server that says the same bytes to whoever connects. What stands in for `{authorization}` is what was sent."""

import socketserver
import threading
from types import TracebackType
from typing import Self

ECHO = b"{authorization}"


class CannedServer:
    """`with CannedServer(b"HTTP/1.1 200 OK\\r\\n…") as server: …`; it hangs up after each answer."""

    def __init__(self, said: bytes) -> None:
        self.authorizations: list[bytes] = []
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                authorization = self._read()
                outer.authorizations.append(authorization)
                self.wfile.write(said.replace(ECHO, authorization))

            def _read(self) -> bytes:
                """Reads the request to its end, lest closing resets the connection; what authorizes it."""
                length, authorization = 0, b""
                for line in self.rfile:
                    if line == b"\r\n":
                        break
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                    authorization = value.strip() if name.lower() == b"authorization" else authorization
                self.rfile.read(length)
                return authorization

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
