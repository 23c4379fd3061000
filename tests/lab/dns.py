"""A small name server over UDP and TCP: `python -m tests.lab.dns ADDRESS PORT LOG [NAME=ADDRESS…]`.

Rules:
- It knows the names it was given and no others: NXDOMAIN for the rest.
- Every query is a record of the log: name, type, client, proto.
"""

from __future__ import annotations

import argparse
import ipaddress
import socketserver
import struct
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.lab import proc, webserver
from tests.lab.proc import Place

_TYPES = {1: "A", 28: "AAAA"}
_HEADER = struct.Struct(">6H")


class DnsServer(proc.PythonService):
    """Such a server; `Namespace.use_resolver` leads a namespace's programs to it (port 53)."""

    module = "dns"

    def __init__(
        self,
        directory: Path,
        names: Mapping[str, str],
        *,
        place: Place | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
        listen: str | None = None,
    ) -> None:
        super().__init__(directory, place=place, address=address, port=port, listen=listen)
        self.names = dict(names)
        self._queries = directory / "queries.jsonl"

    def queries(self) -> list[dict[str, Any]]:
        """Every query so far: name (lower case, no dot at its end), type, client, proto."""
        return webserver.read_log(self._queries)

    def asked(self) -> set[str]:
        """The names that were asked for."""
        return {record["name"] for record in self.queries()}

    def clear_log(self) -> None:
        """Forget the queries so far."""
        if self._queries.exists():
            with self._queries.open("r+") as log:
                log.truncate(0)

    def _arguments(self) -> list[str]:
        return [str(self._queries), *(f"{name}={address}" for name, address in self.names.items())]


def _question(query: bytes) -> tuple[str, int, bytes]:
    """The name, the type and the bytes of a query's question.  Raises ValueError."""
    labels, at = [], _HEADER.size
    while (length := query[at]) != 0:
        if length > 63:
            raise ValueError("a compressed name in a question")
        labels.append(query[at + 1 : at + 1 + length].decode("ascii"))
        at += 1 + length
    kind, _ = struct.unpack_from(">2H", query, at + 1)
    return ".".join(labels).lower(), kind, query[_HEADER.size : at + 5]


def reply(query: bytes, names: Mapping[str, str]) -> tuple[bytes, str, str]:
    """The answer to a query, and the name and type that it asks for.  Raises ValueError."""
    try:
        name, kind, question = _question(query)
        number, flags = struct.unpack_from(">2H", query)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"no query: {error}") from None
    address = ipaddress.ip_address(names[name]) if name in names else None
    answer = b""
    if address is not None and kind == (1 if address.version == 4 else 28):
        data = address.packed
        answer = b"\xc0\x0c" + struct.pack(">2HIH", kind, 1, 60, len(data)) + data
    # an authoritative answer; recursion is offered, or resolvers take us for a lame server
    flags = 0x8480 | (flags & 0x0100) | (0 if address is not None else 3)
    head = _HEADER.pack(number, flags, 1, 1 if answer else 0, 0, 0)
    return head + question + answer, name, _TYPES.get(kind, str(kind))


class _Handler(socketserver.BaseRequestHandler):
    names: Mapping[str, str]
    log: webserver.JsonLog

    def _reply(self, query: bytes, proto: str) -> bytes:
        answer, name, kind = reply(query, self.names)
        self.log.write(name=name, type=kind, client=self.client_address[0], proto=proto)
        return answer


class _Udp(_Handler):
    def handle(self) -> None:
        query, server = self.request
        server.sendto(self._reply(query, "udp"), self.client_address)


class _Tcp(_Handler):
    def handle(self) -> None:
        stream = self.request.makefile("rwb")
        while len(head := stream.read(2)) == 2:
            answer = self._reply(stream.read(int.from_bytes(head)), "tcp")
            stream.write(len(answer).to_bytes(2) + answer)
            stream.flush()


class _UdpServer(socketserver.ThreadingUDPServer):
    daemon_threads = True


class _TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("log", type=Path)
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    _Handler.names = dict(pair.lower().split("=", 1) for pair in args.names)
    _Handler.log = webserver.JsonLog(args.log)
    where = (args.address, args.port)
    with _UdpServer(where, _Udp) as udp, _TcpServer(where, _Tcp) as tcp:
        threading.Thread(target=udp.serve_forever, daemon=True).start()
        print("ready", flush=True)
        tcp.serve_forever()


if __name__ == "__main__":
    main()
