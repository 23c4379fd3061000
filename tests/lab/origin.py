"""A module origin: serves a GOPROXY tree over https (or http), slowly or badly when told to.

    python -m tests.lab.origin ADDRESS PORT ROOT --control FILE --log FILE [--cert FILE --key FILE]

Rules:
- What it is told (`Behaviour`, `faults.Fault`) stands in the control file, which is looked at with each
  request: no restart.  A new control file begins to count its faults anew.
- The access log has two records a request, `begin` when its head was read and `end` when it is over.
- Two origins of one tree have different strong validators, as mirrors do; a weak one is the same everywhere.
- A thread a connection; bodies of plain http go out by sendfile.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import email.utils
import json
import random
import re
import select
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.lab import faults, proc, ranges, webserver
from tests.lab.faults import Fault
from tests.lab.pki import Certificate
from tests.lab.proc import Place

_KINDS = {".info": "application/json", ".zip": "application/zip"}


@dataclasses.dataclass(frozen=True, slots=True)
class Behaviour:
    """How requests are answered.

    `delay` in seconds before each answer, `zip_rate` in bytes a second for the body of a zip (0: no
    bound), `status` maps regular expressions for the path to the status to answer instead.  `etag` is
    strong, weak or none; without `ranges` a Range is ignored; without `dates` there is no Last-Modified.
    `faults` come after `status`; their random places follow from `seed`.
    """

    delay: float = 0.0
    zip_rate: float = 0.0
    status: Mapping[str, int] = dataclasses.field(default_factory=dict)
    etag: str = "strong"
    ranges: bool = True
    dates: bool = True
    faults: Sequence[Fault] = ()
    seed: int = 0


class Origin(proc.PythonService):
    """Such a server.  Without a certificate it speaks plain http."""

    module = "origin"

    def __init__(
        self,
        directory: Path,
        root: Path,
        *,
        certificate: Certificate | None = None,
        name: str = "",
        place: Place | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
        listen: str | None = None,
    ) -> None:
        super().__init__(directory, place=place, address=address, port=port, listen=listen)
        self.root, self.certificate, self.name = root, certificate, name
        self._control, self._access = directory / "control.json", directory / "access.jsonl"
        self.behave()

    def behave(self, *faults: Fault, **settings: Any) -> None:
        """Answer like this from the next request on (`Behaviour`); without arguments: fast and well."""
        new = self._control.with_suffix(".new")
        new.write_text(json.dumps(dataclasses.asdict(Behaviour(faults=faults, **settings))))
        new.replace(self._control)

    @property
    def url(self) -> str:
        """Its URL by name (its address where it has none), for GOPROXY."""
        scheme, usual = ("https", 443) if self.certificate else ("http", 80)
        port = "" if self.port == usual else f":{self.port}"
        return f"{scheme}://{self.name or self.address}{port}"

    def requests(self) -> list[dict[str, Any]]:
        """The `end` records: client, method, path, host, range, status, bytes, complete, fault, ms."""
        return [record for record in webserver.read_log(self._access) if record["event"] == "end"]

    def begun(self, pattern: str = "") -> list[dict[str, Any]]:
        """The `begin` records (client, method, path, host, range) whose path matches the expression."""
        records = webserver.read_log(self._access)
        return [r for r in records if r["event"] == "begin" and re.search(pattern, r["path"])]

    def wait_for(self, pattern: str, count: int = 1, timeout: float = 30.0) -> None:
        """Wait until `count` requests whose path matches have begun."""
        proc.wait_until(f"{count} requests for {pattern}", lambda: len(self.begun(pattern)) >= count, timeout)

    def clear_log(self) -> None:
        """Forget the requests so far, those included that are just ending."""
        with contextlib.suppress(proc.LabError):
            proc.wait_until("no request under way", lambda: len(self.begun()) <= len(self.requests()), 3.0)
        if self._access.exists():
            with self._access.open("r+") as log:
                log.truncate(0)

    def _arguments(self) -> list[str]:
        words = [str(self.root), "--control", str(self._control), "--log", str(self._access)]
        if self.certificate:
            words += ["--cert", str(self.certificate.cert), "--key", str(self.certificate.key)]
        return words


class _Control:
    """The control file as it stands, read again only when it was replaced."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._seen: tuple[int, int] = (0, 0)
        self._now = (Behaviour(), faults.Chooser(()), random.Random(0))

    def now(self) -> tuple[Behaviour, faults.Chooser, random.Random]:
        """How to behave, who counts the faults, and where their chance comes from."""
        with self._lock:
            stat = self._path.stat()
            if (seen := (stat.st_ino, stat.st_mtime_ns)) != self._seen:
                told = json.loads(self._path.read_text())
                told["faults"] = tuple(Fault(**fault) for fault in told["faults"])
                self._seen, behaviour = seen, Behaviour(**told)
                self._now = (behaviour, faults.Chooser(behaviour.faults), random.Random(behaviour.seed))
            return self._now


class _Gone(Exception):
    """The fault is done: nothing more is to be said on this connection."""


class _Handler(webserver.Handler):
    root: Path
    control: _Control
    log: webserver.JsonLog
    salt: str

    def do_GET(self) -> None:
        """Answer with a file of the tree."""
        self.behaviour, chooser, self.chance = self.control.now()
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        who = {"client": self.client_address[0], "method": self.command, "path": path,
               "host": self.headers.get("Host", ""), "range": self.headers.get("Range", "")}  # fmt: skip
        self.log.write(event="begin", **who)
        start, self._sent, self._status, complete = time.monotonic(), 0, 0, False
        told = (Fault("status", status=s) for p, s in self.behaviour.status.items() if re.search(p, path))
        fault = next(told, None) or chooser.choose(path)
        try:
            time.sleep(self.behaviour.delay)
            self._answer(path, fault or Fault("slow"))
            self.wfile.flush()
            complete = True
        except _Gone:
            self.close_connection = True
        finally:
            ms = round((time.monotonic() - start) * 1000, 1)
            self.log.write(event="end", **who, status=self._status, bytes=self._sent, complete=complete,
                           fault=fault.kind if fault else "", ms=ms)  # fmt: skip

    do_HEAD = do_GET

    # --- what is said ---------------------------------------------------------------------------------

    def _answer(self, path: str, fault: Fault) -> None:
        match fault.kind:
            case "slow":
                time.sleep(fault.seconds)
            case "silent":
                self._until_gone()
            case "close":
                self._hang_up(fault.how)
            case "status":
                wait = {"Retry-After": f"{fault.seconds:g}"} if fault.seconds else {}
                return self._say(fault.status, b"the lab was told to answer so\n", **wait)
            case "redirect":
                return self._say(fault.status or 302, b"", Location=fault.to.replace("{path}", path))
            case "page":
                return self._say(200, faults.PAGE, **{"Content-Type": "text/html; charset=utf-8"})
            case "heads":
                fields = {f"X-Flood-{number}": "x" * 1000 for number in range(fault.by // 1000 + 1)}
                return self._say(200, b"{}", **fields)
            case "endless":
                return self._endless()
        file = self.root.joinpath(*(part for part in path.split("/") if part not in ("", ".", "..")))
        if not file.is_file():
            return self._say(404, f"not found: {path}\n".encode())
        return self._file(file, fault)

    def _say(self, status: int, body: bytes, **fields: str) -> None:
        self._status = status
        self.send_response(status)
        for name, value in ({"Content-Type": "text/plain; charset=utf-8"} | fields).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
            self._sent += len(body)

    def _file(self, file: Path, fault: Fault) -> None:
        stat, told = file.stat(), self.behaviour
        modified = email.utils.formatdate(int(stat.st_mtime), usegmt=True) if told.dates else ""
        etag = {"strong": f'"{self.salt}-{stat.st_size:x}-{stat.st_mtime_ns:x}"',
                "weak": f'W/"{stat.st_size:x}"', "none": ""}[told.etag]  # fmt: skip
        asked = self.headers.get("Range") if told.ranges else None
        part = ranges.decide(stat.st_size, asked, self.headers.get("If-Range"), etag, modified)
        if part is None:
            return self._say(416, b"", **{"Content-Range": f"bytes */{stat.st_size}"})
        self._status = 206 if part.partial else 200
        self.send_response(self._status)
        length = part.end - part.start
        claimed = length * 2 if fault.kind == "double" else length + fault.by * (fault.kind == "length")
        fields = {"Content-Type": _KINDS.get(file.suffix, "text/plain; charset=utf-8"),
                  "Content-Length": str(max(claimed, 0)), "ETag": etag, "Last-Modified": modified,
                  "Accept-Ranges": "bytes" if told.ranges else ""}  # fmt: skip
        if part.partial:
            fields["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{stat.st_size}"
        for name, value in fields.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self._body(file, part.start, part.end, fault)
        return None

    def _body(self, file: Path, start: int, end: int, fault: Fault) -> None:
        place = start + fault.place(end - start, self.chance)
        match fault.kind:
            case "cut":
                self._send(file, start, place)
                self._hang_up(fault.how)
            case "stall":
                self._send(file, start, place)
                self.wfile.flush()
                if not fault.seconds:
                    self._until_gone()
                time.sleep(fault.seconds)
                self._send(file, place, end)
            case "flip":
                self._write(faults.pieces(file, start, end, place - start))
            case "double":
                self._write(faults.pieces(file, start, end))
                self._write(faults.pieces(file, start, end))
            case "length":
                self._send(file, start, end)
                self._hang_up("close")
            case "drip":
                self._write(faults.pieces(file, start, end), fault.rate)
            case _ if self.behaviour.zip_rate and file.suffix == ".zip":
                self._write(faults.pieces(file, start, end), self.behaviour.zip_rate)
            case _:
                self._send(file, start, end)

    # --- how it is sent ---------------------------------------------------------------------------------

    def _send(self, file: Path, start: int, end: int) -> None:
        """The bytes [start, end) as fast as it goes."""
        if end - start <= self.wbufsize or self.tls:  # head and body in one write; TLS has no sendfile
            self._write(faults.pieces(file, start, end))
            return
        self.wfile.flush()
        with file.open("rb") as body:
            self._sent += self.connection.sendfile(body, start, end - start)

    def _write(self, data: Iterable[bytes], rate: float = 0.0) -> None:
        step = max(512, int(rate / 20)) if rate else 0
        for piece in data:
            for at in range(0, len(piece), step or len(piece)):
                part = piece[at : at + step] if step else piece
                self.wfile.write(part)
                self._sent += len(part)
                if step:
                    self.wfile.flush()
                    time.sleep(len(part) / rate)

    def _endless(self) -> None:
        self._status = 200
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        piece = bytes(faults.PIECE)
        while True:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self._sent += len(piece)

    def _until_gone(self) -> None:
        """Hold the connection until the client closes it."""
        self.wfile.flush()
        with contextlib.suppress(OSError):
            while True:
                select.select([self.connection], [], [])
                if not self.connection.recv(4096):
                    break
        raise _Gone

    def _hang_up(self, how: str) -> None:
        """Close: what was sent arrives first, unless it is to be a reset."""
        self.wfile.flush()
        if how == "rst":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw = socket.socket(fileno=self.connection.detach())  # no goodbye of TLS before the reset
            raw.close()
        raise _Gone


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("root", type=Path)
    parser.add_argument("--control", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--cert", default="")
    parser.add_argument("--key", default="")
    args = parser.parse_args()
    _Handler.root, _Handler.control = args.root, _Control(args.control)
    _Handler.log = webserver.JsonLog(args.log)
    _Handler.salt = f"{args.address}:{args.port}"
    webserver.serve(webserver.Server(args.address, args.port, _Handler, args.cert, args.key))


if __name__ == "__main__":
    main()
