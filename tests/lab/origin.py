"""A module origin: serves a GOPROXY tree over https (or http), slowly or badly when told to.

    python -m tests.lab.origin ADDRESS PORT ROOT --control FILE --log FILE [--cert FILE --key FILE]

Rules:
- What it is told (`Behaviour`) stands in the control file, which is read at each request: no restart.
- The access log has two records a request, `begin` when its head was read and `end` when it is over.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import re
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.lab import proc, webserver
from tests.lab.pki import Certificate
from tests.lab.proc import Place

_KINDS = {".info": "application/json", ".zip": "application/zip"}


@dataclasses.dataclass(frozen=True, slots=True)
class Behaviour:
    """How requests are answered.

    `delay` in seconds before each answer, `zip_rate` in bytes a second for the body of a zip (0: no
    bound), `status` maps regular expressions for the path to the status to answer instead.
    """

    delay: float = 0.0
    zip_rate: float = 0.0
    status: Mapping[str, int] = dataclasses.field(default_factory=dict)


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

    def behave(
        self, *, delay: float = 0.0, zip_rate: float = 0.0, status: Mapping[str, int] | None = None
    ) -> None:
        """Answer like this from the next request on; without arguments: fast and well."""
        new = self._control.with_suffix(".new")
        new.write_text(json.dumps(dataclasses.asdict(Behaviour(delay, zip_rate, dict(status or {})))))
        new.replace(self._control)

    @property
    def url(self) -> str:
        """Its URL by name (its address where it has none), for GOPROXY."""
        scheme, usual = ("https", 443) if self.certificate else ("http", 80)
        port = "" if self.port == usual else f":{self.port}"
        return f"{scheme}://{self.name or self.address}{port}"

    def requests(self) -> list[dict[str, Any]]:
        """The `end` records: client, method, path, host, status, bytes, complete, ms."""
        return [record for record in webserver.read_log(self._access) if record["event"] == "end"]

    def begun(self, pattern: str = "") -> list[dict[str, Any]]:
        """The `begin` records (client, method, path, host) whose path matches the regular expression."""
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


class _Handler(webserver.Handler):
    root: Path
    control: Path
    log: webserver.JsonLog

    def do_GET(self) -> None:
        """Answer with a file of the tree."""
        behaviour = Behaviour(**json.loads(self.control.read_text()))
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        who = {"client": self.client_address[0], "method": self.command, "path": path,
               "host": self.headers.get("Host", "")}  # fmt: skip
        self.log.write(event="begin", **who)
        start, self._sent, self._status, complete = time.monotonic(), 0, 0, False
        try:
            time.sleep(behaviour.delay)
            self._answer(path, behaviour)
            complete = True
        finally:
            ms = round((time.monotonic() - start) * 1000, 1)
            self.log.write(
                event="end", **who, status=self._status, bytes=self._sent, complete=complete, ms=ms
            )

    do_HEAD = do_GET

    def _answer(self, path: str, behaviour: Behaviour) -> None:
        for pattern, status in behaviour.status.items():
            if re.search(pattern, path):
                self._status = status
                self.answer(status, b"the lab was told to answer so\n")
                return
        file = self.root.joinpath(*(part for part in path.split("/") if part not in ("", ".", "..")))
        if not file.is_file():
            self._status = 404
            self.answer(404, f"not found: {path}\n".encode())
            return
        self._status = 200
        self.send_response(200)
        self.send_header("Content-Type", _KINDS.get(file.suffix, "text/plain; charset=utf-8"))
        self.send_header("Content-Length", str(file.stat().st_size))
        self.end_headers()
        if self.command == "GET":
            self._send(file, behaviour.zip_rate if file.suffix == ".zip" else 0.0)
        self.wfile.flush()

    def _send(self, file: Path, rate: float) -> None:
        piece = max(512, int(rate / 20)) if rate else 1 << 16
        with file.open("rb") as body:
            for data in iter(functools.partial(body.read, piece), b""):
                self.wfile.write(data)
                self._sent += len(data)
                if rate:
                    self.wfile.flush()
                    time.sleep(len(data) / rate)


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
    _Handler.root, _Handler.control, _Handler.log = args.root, args.control, webserver.JsonLog(args.log)
    webserver.serve(webserver.Server(args.address, args.port, _Handler, args.cert, args.key))


if __name__ == "__main__":
    main()
