"""A running `serve`, as `run`, `env`, `status` and `connect` find and ask it.

Rules:
- Found by the runtime file of the same user, or named by --server or GOTUNNEL_SERVER: the admin endpoint's
  URL with its token as password (http://:TOKEN@127.0.0.1:9000), or with the user and the password of its
  `listen.auth`, or the path of such a runtime file.
- A file whose service doesn't answer, or doesn't prove to have written it, is stale and counts as none; a
  server that was named must answer.
- Spoken is HTTP/1.1 by hand: a run that uses a service shall not wait for a library.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from gotunnel.address import HostPort, one_line, redact
from gotunnel.daemon.state import Running, answers, load_running, read_running, runtime_directory
from gotunnel.dataclass import dataclass
from gotunnel.errors import GotunnelError, UsageError

_CONNECT = 2.0  # seconds; it is this machine, or a near one
_ANSWER = 20.0
_MOST = 4 << 20


class ServerError(GotunnelError):
    """The service that was named doesn't answer, or says no."""

    status = 69


@dataclass(frozen=True, slots=True)
class Server:
    """Where a service's admin endpoint is, and who we are there; `running` is its runtime file's content."""

    address: HostPort
    token: str
    running: Running | None = None

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The JSON answer.  Raises ServerError."""
        with self._request(method, path, body, _ANSWER) as answer:
            data = answer.read(_MOST)
        try:
            return json.loads(data) if data else None
        except ValueError as error:
            raise ServerError(f"the service at {self.address} talks nonsense; is it a gotunnel?") from error

    def lines(self, path: str) -> Iterator[str]:
        """The lines of an answer that goes on; ends with the service.  Raises ServerError."""
        with self._request("GET", path, None, 3600.0) as answer:
            while line := answer.readline(1 << 20):
                yield line.decode("utf-8", "replace")

    def seen_from_here(self, urls: str) -> str:
        """The service's URLs as we reach them: one on another machine that listens on every address calls
        itself loopback."""
        if self.address.is_loopback:
            return urls
        host = str(HostPort(self.address.host, 1)).removesuffix(":1")
        return re.sub(r"(//(?:[^/@,|]*@)?)(?:127\.0\.0\.1|\[::1\])(?=:)", lambda m: m[1] + host, urls)

    def _request(self, method: str, path: str, body: object, timeout: float) -> IO[bytes]:
        data = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.0\r\nHost: {self.address}\r\nAuthorization: Bearer {self.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        try:
            with socket.create_connection((self.address.host, self.address.port), timeout=_CONNECT) as sock:
                sock.settimeout(timeout)
                sock.sendall(head.encode() + data)
                answer = sock.makefile("rb")  # keeps the socket
            status = answer.readline(4096).split(b" ", 2)
            while answer.readline(65536).strip():
                pass
        except (OSError, ValueError) as error:
            words = getattr(error, "strerror", None) or str(error) or "no answer"
            raise ServerError(f"the service at {self.address} can't be reached: {words}") from error
        if len(status) < 2 or status[1] not in (b"200", b"201", b"204"):
            code = status[1].decode("latin-1") if len(status) > 1 else "nothing"
            words = one_line(redact(answer.read(2000).decode("utf-8", "replace")), 300)
            answer.close()
            raise ServerError(f"the service at {self.address} says {code}: {words}")
        return answer


def find(environ: Mapping[str, str], named: str = "", profile: str = "") -> Server | None:
    """The service to use: the one that was named, else the user's own if it answers.

    Raises UsageError for a name that can't be read, ServerError for a named one that doesn't answer.
    """
    named = named or environ.get("GOTUNNEL_SERVER", "")
    if named:
        server = _named(named)
        server.ask("GET", "/api/status")
        return server
    running = load_running(runtime_directory(environ), profile)
    if running is None or not answers(running):
        return None
    server = _of(running)
    try:
        server.ask("GET", "/api/status")
    except ServerError:
        return None
    return server


def _named(text: str) -> Server:
    if "://" not in text:
        path = Path(os.path.expanduser(text))
        running = read_running(path / "server.json" if path.is_dir() else path)
        if running is None:
            raise UsageError(f"--server {text}: no runtime file of a service that you may read")
        if not answers(running):
            raise ServerError(f"--server {text}: its service has ended")
        return _of(running)
    try:
        parts = urlsplit(text)
        if parts.scheme != "http" or not parts.hostname or not parts.port:
            raise ValueError
        token = unquote(parts.password or parts.username or "")
        return Server(HostPort.parse(parts.netloc.rpartition("@")[2]), token)
    except ValueError:
        shown = redact(text)
        raise UsageError(
            f"--server {shown}: want http://:TOKEN@HOST:PORT, as `gotunnel status` shows it"
        ) from None


def _of(running: Running) -> Server:
    return Server(HostPort.parse(running.admin.partition("//")[2]), running.token, running)
