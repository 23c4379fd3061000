"""Many small servers that go wrong, in one process: `python -m tests.faults.strange CONFIG`.

CONFIG is a JSON list of objects with `address`, `port`, `mode` and, for TLS, `cert` and `key`:

    names       a name server; `table` is a JSON file, name -> addresses, or SILENT, REFUSED, SERVFAIL
    doh         the same over HTTPS (RFC 8484); the names it is asked for go into the file `questions`
    files       https, files of the directory `root`; `days` is how far its clock is ahead
    login       https, asks for a user and a password, then passes all on to https at `to`
    say         answers each request with the text `answer`, whatever it was
    silent      accepts and never answers
    sni         resets a TLS client that says `name`, answers others with an alert
    socks       a SOCKS5 server without passwords that refuses every target

Rules:
- A table is read at each question: no restart.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import email.utils
import json
import ssl
import sys
import time
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

Settings = Mapping[str, Any]
Serve = Callable[[Settings, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_ALERT = b"\x15\x03\x03\x00\x02\x02\x28"  # handshake_failure


def reply(query: bytes, table: Path) -> bytes | None:
    """The answer to a query by what the table says of its name; None for silence."""
    asked = dns.message.from_wire(query)
    made = dns.message.make_response(asked, recursion_available=True)
    question = asked.question[0]
    known = json.loads(table.read_text()).get(question.name.to_text().rstrip(".").lower())
    if known == "SILENT":
        return None
    if isinstance(known, str):
        made.set_rcode(dns.rcode.from_text(known))
    elif known is None:
        made.set_rcode(dns.rcode.NXDOMAIN)
    else:
        kind = question.rdtype.name
        found = [a for a in known if (":" in a) == (kind == "AAAA")] if kind in ("A", "AAAA") else []
        if found:
            made.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *found))
    return made.to_wire()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, table: Path) -> None:
        self._table = table

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if (answer := reply(data, self._table)) is not None:
            self._transport.sendto(answer, addr)


async def _names(about: Settings, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    query = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
    answer = reply(query, Path(about["table"]))
    if answer is None:
        await reader.read()
    else:
        writer.write(len(answer).to_bytes(2) + answer)


async def _head(reader: asyncio.StreamReader) -> tuple[bytes, str, dict[str, str]]:
    """One request's head: its bytes, its path, its fields by lower-case names."""
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if ":" in line)
    return raw, first.split()[1], {name.lower(): value.strip() for name, _, value in pairs}


def _answer(status: str, body: bytes, kind: str, ahead: float = 0.0, more: str = "") -> bytes:
    date = email.utils.formatdate(time.time() + ahead, usegmt=True)
    return (
        f"HTTP/1.1 {status}\r\nDate: {date}\r\nContent-Type: {kind}\r\n{more}"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def _doh(about: Settings, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        _, path, fields = await _head(reader)
        if "content-length" in fields:
            query = await reader.readexactly(int(fields["content-length"]))
        else:
            coded = urllib.parse.parse_qs(urllib.parse.urlsplit(path).query)["dns"][0]
            query = base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4))
        name = dns.message.from_wire(query).question[0].name.to_text().rstrip(".").lower()
        with Path(about["questions"]).open("a") as file:
            file.write(f"{name}\n")
        answer = reply(query, Path(about["table"])) or b""
        writer.write(_answer("200 OK", answer, "application/dns-message"))


async def _files(about: Settings, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    ahead = datetime.timedelta(days=about.get("days", 0)).total_seconds()
    while True:
        _, path, _ = await _head(reader)
        parts = urllib.parse.unquote(urllib.parse.urlsplit(path).path).split("/")
        file = Path(about["root"], *(part for part in parts if part not in ("", ".", "..")))
        if file.is_file():
            writer.write(_answer("200 OK", file.read_bytes(), "application/octet-stream", ahead))
        else:
            writer.write(_answer("404 Not Found", b"not found\n", "text/plain", ahead))


async def _login(about: Settings, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    raw, _, fields = await _head(reader)
    login = base64.b64encode(b"lab:lab-password").decode()
    if fields.get("authorization") != f"Basic {login}":
        more = 'WWW-Authenticate: Basic realm="lab"\r\nConnection: close\r\n'
        writer.write(_answer("401 Unauthorized", b"who are you?\n", "text/plain", more=more))
        return
    trust = ssl.create_default_context(cafile=about["ca"])
    up, down = await asyncio.open_connection(about["to"], 443, ssl=trust, server_hostname=about["name"])
    down.write(raw)
    await asyncio.gather(_copy(reader, down), _copy(up, writer))


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
        sink.close()


async def _say(about: Settings, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(4096)
    writer.write(str(about["answer"]).encode())


async def _silent(about: Settings, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        pass


async def _sni(about: Settings, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    hello = await reader.read(4096)
    if str(about["name"]).encode() in hello:
        writer.transport.abort()  # a reset, since lingering is off
    else:
        writer.write(_ALERT)


async def _socks(about: Settings, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(2)
    await reader.read(255)
    writer.write(b"\x05\x00")
    await reader.read(300)
    writer.write(b"\x05\x02\x00\x01" + bytes(6))  # not allowed by the ruleset


_MODES: Mapping[str, Serve] = {
    "names": _names, "doh": _doh, "files": _files, "login": _login, "say": _say, "silent": _silent,
    "sni": _sni, "socks": _socks,
}  # fmt: skip


async def _start(about: Settings) -> None:
    serve = _MODES[about["mode"]]

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if about["mode"] == "sni":
            _no_linger(writer)
        with contextlib.suppress(OSError, EOFError, ssl.SSLError, asyncio.LimitOverrunError):
            await serve(about, reader, writer)
        with contextlib.suppress(OSError):
            writer.close()

    context = None
    if "cert" in about:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(about["cert"], about["key"])
        context.set_alpn_protocols(["http/1.1"])
    await asyncio.start_server(one, about["address"], about["port"], ssl=context)
    if about["mode"] == "names":
        await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Datagrams(Path(about["table"])), local_addr=(about["address"], about["port"])
        )


def _no_linger(writer: asyncio.StreamWriter) -> None:
    """Make closing a reset."""
    import socket
    import struct

    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _main(config: Path) -> None:
    for about in json.loads(config.read_text()):
        await _start(about)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
