"""What the lab's https servers share: threads, keep-alive, TLS, and a log of JSON lines.

Rules:
- A TLS handshake is done in the connection's own thread: a client that stalls holds up nobody.
- Head and body of an answer leave together, without Nagle's delay.
"""

from __future__ import annotations

import email.utils
import functools
import http.server
import json
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any


class JsonLog:
    """Appends records to a file, one JSON object a line, from any thread; each gets the time as `ts`."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def write(self, **record: object) -> None:
        """Add one record."""
        with self._lock:
            self._file.write(json.dumps({"ts": time.time(), **record}) + "\n")
            self._file.flush()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of such a file, without a last line that is still being written."""
    if not path.exists():
        return []
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines() if line]


class Server(http.server.ThreadingHTTPServer):
    """A threaded server, with TLS if `cert` and `key` are given."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: str, port: int, handler: type[Handler], cert: str, key: str) -> None:
        if ":" in address:
            self.address_family = socket.AF_INET6
        super().__init__((address, port), handler)
        self._context: ssl.SSLContext | None = None
        if cert:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(cert, key)
            self._context.set_alpn_protocols(["http/1.1"])

    def server_bind(self) -> None:
        """Bind without asking a resolver for our own name, as the base class does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept; the handshake comes later, in the handler's thread."""
        peer, address = super().get_request()
        if self._context is not None:
            peer = self._context.wrap_socket(peer, server_side=True, do_handshake_on_connect=False)
        return peer, address

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed in the middle are what the lab is for."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Base of the handlers."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    tls = False

    def setup(self) -> None:
        """Do the handshake, if there is one to do."""
        self.tls = isinstance(self.request, ssl.SSLSocket)
        if isinstance(self.request, ssl.SSLSocket):
            self.request.settimeout(30)
            self.request.do_handshake()
            self.request.settimeout(None)
        super().setup()

    def date_time_string(self, timestamp: float | None = None) -> str:
        """As the base class's, once a second."""
        return super().date_time_string(timestamp) if timestamp is not None else _date(int(time.time()))

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the servers keep logs of their own."""

    def answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        """A whole answer at once."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@functools.lru_cache(maxsize=2)
def _date(second: int) -> str:
    return email.utils.formatdate(second, usegmt=True)


def serve(server: Server) -> None:
    """Say `ready` and serve until killed."""
    print("ready", flush=True)
    server.serve_forever()
