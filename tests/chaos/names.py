"""A name server that lies when told to: `python -m tests.chaos.names ADDRESS PORT CONTROL`.

Rules:
- The control file (JSON: name to address) is looked at with each query; a name that isn't there is unknown.
- UDP alone.
"""

from __future__ import annotations

import json
import socketserver
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.lab import dns, proc
from tests.lab.proc import Place


class Names(proc.PythonService):
    """Such a server; `lie` about a name until `tell_truth`."""

    def __init__(self, directory: Path, names: Mapping[str, str], *, place: Place, address: str) -> None:
        super().__init__(directory, place=place, address=address, port=53)
        self.names = dict(names)
        self._lies: dict[str, str] = {}
        self._control = directory / "control.json"
        self._write()

    def lie(self, name: str, address: str = "") -> None:
        """Answer so, "": that there is no such name."""
        self._lies[name] = address
        self._write()

    def tell_truth(self, name: str) -> None:
        """No more lies about a name."""
        self._lies.pop(name, None)
        self._write()

    def _write(self) -> None:
        told = {name: address for name, address in (self.names | self._lies).items() if address}
        new = self._control.with_suffix(".new")
        new.write_text(json.dumps(told))
        new.replace(self._control)

    def _await_ready(self, process: proc.Process) -> None:
        process.wait_ready("names", lambda: "ready" in process.output())

    def _argv(self) -> list[str]:
        return [sys.executable, "-m", "tests.chaos.names", self.listen, str(self.port), str(self._control)]


class _Handler(socketserver.BaseRequestHandler):
    control: Path

    def handle(self) -> None:
        query, server = self.request
        server.sendto(dns.reply(query, json.loads(self.control.read_text()))[0], self.client_address)


class _Server(socketserver.ThreadingUDPServer):
    daemon_threads = True


if __name__ == "__main__":
    _Handler.control = Path(sys.argv[3])
    with _Server((sys.argv[1], int(sys.argv[2])), _Handler) as _server:
        print("ready", flush=True)
        _server.serve_forever()
