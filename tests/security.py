"""What the security tests share: a real `serve` with an evil world behind it, and clients that say anything.

    serve --(http upstream)--> World: whatever host is asked for, a script of the test answers

Rules:
- The attacked program is a process of its own, started as a user starts it; nothing of it is patched.
- No host of the world has an address: a target that the program asks for is only a name in `World.asked`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.lab.proc import ROOT, wait_until

GOTUNNEL = [sys.executable, "-m", "gotunnel"]
Talk = Callable[[socket.socket, bytes], None]
"""Gets the connection and the head of a request; what it leaves open is closed."""


def reply(body: bytes = b"", *, status: str = "200 OK", headers: str = "") -> Talk:
    """An answer that keeps to HTTP."""
    head = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return lambda conn, _: conn.sendall(head.encode() + body)


def moved(location: str) -> Talk:
    """A redirect."""
    return reply(status="302 Found", headers=f"Location: {location}\r\n")


def raw_reply(*pieces: bytes) -> Talk:
    """Just these bytes."""

    def talk(conn: socket.socket, _: bytes) -> None:
        for piece in pieces:
            conn.sendall(piece)

    return talk


class World:
    """An HTTP proxy that takes each CONNECT and plays the target itself.

    `talks` by "HOST:PORT/PATH"; what isn't there is 404.  `asked` holds the targets, `heads` the requests.
    """

    def __init__(self) -> None:
        self.talks: dict[str, Talk] = {}
        self.asked: list[str] = []
        self.heads: list[bytes] = []
        self.connected = b"HTTP/1.1 200 OK\r\n\r\n"
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                conn, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn: socket.socket) -> None:
        with conn, contextlib.suppress(OSError, IndexError):
            conn.settimeout(60)
            target = head_of(conn).split(b" ")[1].decode()
            self.asked.append(target)
            conn.sendall(self.connected)
            head = head_of(conn)
            self.heads.append(head)
            path = head.split(b" ")[1].decode("latin-1")
            self.talks.get(f"{target}{path}", reply(b"no\n", status="404 Not Found"))(conn, head)


def head_of(conn: socket.socket) -> bytes:
    """Up to and with the empty line."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = conn.recv(1)
        if not piece:
            raise OSError("closed")
        head += piece
    return head


class House:
    """A home that others may look into, a world, and a `serve` between."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.world = World()
        run = directory / "run"
        run.mkdir(mode=0o755)
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "PYTHONPATH": str(ROOT),
            "XDG_RUNTIME_DIR": str(run),
            "GOTUNNEL_CONFIG": str(directory / "config.toml"),
            "GOPROXY": "http://mirror.example",
            "GOSUMDB": "off",
            "GOFLAGS": "-modcacherw",
            "GOTOOLCHAIN": "local",
            "GOTELEMETRY": "off",
            "GOENV": "off",
            "GOMODCACHE": str(directory / "modcache"),
            "GOCACHE": str(directory / "gocache"),
        }
        (directory / "config.toml").write_text(
            f'[[upstream]]\nname = "world"\nvia = "http://127.0.0.1:{self.world.port}"\n'
            '[pool]\nprobe = { url = "http://probe.example/" }\n'
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        with (self.directory / "serve.txt").open("ab") as out:
            self.process = subprocess.Popen(
                [*GOTUNNEL, "serve", *options], env=self.env, stderr=out, stdin=subprocess.DEVNULL,
                umask=0,  # the worst that a user may have set
            )  # fmt: skip
        wait_until("serve is ready", lambda: "ready: a way out works" in self.said, 40.0)

    @property
    def said(self) -> str:
        return (self.directory / "serve.txt").read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def running(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "run" / "gotunnel" / "server.json").read_text())
        return found

    def port(self, what: str) -> int:
        """Of `proxy`, `modproxy` or `admin`."""
        return urlsplit(self.running[what]).port or 0

    @property
    def secret(self) -> str:
        """Of the proxy."""
        text: str = self.running["proxy"]
        return text.rpartition("@")[0].rpartition(":")[2]

    @property
    def prefix(self) -> str:
        """Of the module proxy: /SECRET."""
        text: str = self.running["modproxy"]
        return "/" + text.rpartition("/")[2]

    def module(self, path: str) -> tuple[int, bytes]:
        """Ask the module proxy; (status, body)."""
        return ask(self.port("modproxy"), f"{self.prefix}/{path}")

    def memory(self) -> int:
        """Bytes resident."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(30)
        self.world.close()


@contextlib.contextmanager
def house(*options: str) -> Iterator[House]:
    """Such a house with its `serve`, in a directory that every user may enter."""
    directory = Path(tempfile.mkdtemp(prefix="gotunnel-security-"))
    directory.chmod(0o755)
    made = House(directory)
    made.world.talks["probe.example:80/"] = reply(b"ok")
    try:
        made.start(*options)
        yield made
    finally:
        made.stop()
        shutil.rmtree(directory, ignore_errors=True)


def say(port: int, data: bytes, *, shut: bool = False, seconds: float = 30.0) -> bytes:
    """Everything that is answered until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), seconds) as conn, contextlib.suppress(ConnectionError):
        conn.sendall(data)
        if shut:
            conn.shutdown(socket.SHUT_WR)
        got = b""
        while piece := conn.recv(65536):
            got += piece
        return got
    return b""


def ask(port: int, path: str, headers: str = "", method: str = "GET", host: str = "") -> tuple[int, bytes]:
    """(status, body) of one request."""
    host = host or f"127.0.0.1:{port}"
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n"
    got = say(port, head.encode())
    return int(got.split(b" ")[1]), got.partition(b"\r\n\r\n")[2]


def status_of(answer: bytes) -> int:
    """Of the first answer; 0 for none."""
    return int(answer.split(b" ")[1]) if answer.startswith(b"HTTP/1.") else 0
