"""A name, asked of everybody who may know it: the system, its resolvers one by one, public resolvers.

Rules:
- Every question is bounded (seconds) and timed; nothing is raised, an `error` says what went wrong.
- The system's resolver is what git and curl use, the resolv.conf's servers what a pure Go program asks.
- Public resolvers are asked by DNS over HTTPS (RFC 8484) at their addresses, and only where the caller says
  that the name is public; through a way out the dialer given carries the question.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gotunnel.address import HostPort, one_line
from gotunnel.dataclass import dataclass
from gotunnel.doctor.look_http import Request, fetch
from gotunnel.doctor.model import ResolverAnswer
from gotunnel.errors import DialError
from gotunnel.upstream.dialer import Dialer
from gotunnel.upstream.direct import resolve, translate
from gotunnel.upstream.tls import start_tls

if TYPE_CHECKING:
    import dns.message

_MOST_SERVERS = 3  # glibc's MAXNS


@dataclass(frozen=True, slots=True)
class DohServer:
    """A public resolver: where it is, without a look-up, and what its certificate is for."""

    name: str
    address: HostPort
    path: str = "/dns-query"


DOH = (
    DohServer("cloudflare-dns.com", HostPort("1.1.1.1", 443)),
    DohServer("dns.google", HostPort("8.8.8.8", 443)),
    DohServer("dns.alidns.com", HostPort("223.5.5.5", 443)),
)


def nameservers(path: Path) -> tuple[HostPort, ...]:
    """The servers of a resolv.conf(5), at most three, as glibc takes them; 127.0.0.1 where it names none."""
    found: list[HostPort] = []
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver":
                found.append(HostPort(words[1], 53))
    return tuple(found[:_MOST_SERVERS]) or (HostPort("127.0.0.1", 53),)


async def ask_system(target: HostPort, timeout: float) -> tuple[ResolverAnswer, DialError | None]:
    """getaddrinfo's answer, and its failure in our tree."""
    started = time.monotonic()
    failure: DialError | None = None
    addresses: tuple[str, ...] = ()
    try:
        async with asyncio.timeout(timeout):
            addresses = tuple(dict.fromkeys(str(info[4][0]) for info in await resolve(target)))
    except TimeoutError:
        failure = translate(socket.gaierror(socket.EAI_AGAIN, "no answer"), target)
    except OSError as error:
        failure = translate(error, target)
    words = failure.detail if failure else ""
    return ResolverAnswer("system", addresses, "", 1000 * (time.monotonic() - started), words), failure


async def ask_server(server: HostPort, name: str, timeout: float) -> ResolverAnswer:
    """What one resolver says when it is asked itself, by UDP and, for a long answer, TCP."""
    started = time.monotonic()
    both = await asyncio.gather(
        _ask_type(server, name, "A", timeout), _ask_type(server, name, "AAAA", timeout)
    )
    label = server.host if server.port == 53 else str(server)
    return _joined(label, both, 1000 * (time.monotonic() - started))


async def ask_doh(
    server: DohServer,
    name: str,
    *,
    dialer: Dialer,
    label: str,
    trust: ssl.SSLContext,
    timeout: float,
) -> ResolverAnswer:
    """A public resolver's answer through `dialer`; `error` is set where it can't be reached."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(timeout):
            both = await asyncio.gather(
                *(_doh_type(server, name, kind, dialer, trust) for kind in ("A", "AAAA"))
            )
    except TimeoutError:
        return ResolverAnswer(label, error="no answer", ms=1000 * (time.monotonic() - started))
    except Exception as error:  # a public resolver is an extra: whatever it does wrong, it is only silent
        return ResolverAnswer(label, error=one_line(str(error) or type(error).__name__, 150))
    return _joined(label, both, 1000 * (time.monotonic() - started))


@dataclass(frozen=True, slots=True)
class _Half:
    addresses: tuple[str, ...] = ()
    rcode: str = ""
    error: str = ""


def _joined(label: str, halves: Sequence[_Half], ms: float) -> ResolverAnswer:
    addresses = tuple(address for half in halves for address in half.addresses)
    # one type answered is an answer: resolvers that drop AAAA are common
    rcodes = [half.rcode for half in halves if half.rcode]
    rcode = "NOERROR" if "NOERROR" in rcodes else next(iter(rcodes), "")
    errors = [half.error for half in halves if half.error]
    return ResolverAnswer(label, addresses, rcode, ms, "" if rcode else next(iter(errors), ""))


def _query(name: str, kind: str) -> dns.message.Message:
    import dns.message

    return dns.message.make_query(name.rstrip(".") + ".", kind)


async def _ask_type(server: HostPort, name: str, kind: str, timeout: float) -> _Half:
    import dns.asyncquery

    try:
        query = _query(name, kind)
        async with asyncio.timeout(timeout):
            reply = await _datagram(server, query, 0.4 * timeout)
            if reply.flags & 0x0200:  # TC
                reply = await dns.asyncquery.tcp(query, server.host, port=server.port)
        return _read(reply, kind)
    except TimeoutError:
        return _Half(error="no answer")
    except OSError as error:
        refused = error.errno == errno.ECONNREFUSED
        return _Half(error="connection refused" if refused else one_line(error.strerror or str(error), 150))
    except Exception as error:  # what a strange answer makes of dnspython is anybody's guess
        return _Half(error=one_line(f"{type(error).__name__}: {error}", 150))


async def _datagram(server: HostPort, query: dns.message.Message, patience: float) -> dns.message.Message:
    """By UDP, over a connected socket, which hears of a port that is closed.  Waits without end."""
    import dns.message

    loop = asyncio.get_running_loop()
    info = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
    family, _, _, _, address = info[0]
    wire = query.to_wire()
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(address)
        await loop.sock_sendall(sock, wire)
        for wait in (patience, None):  # a datagram may be lost: once more
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    while True:
                        reply = dns.message.from_wire(await loop.sock_recv(sock, 65535))
                        if query.is_response(reply):
                            return reply
            await loop.sock_sendall(sock, wire)
    raise TimeoutError


async def _doh_type(server: DohServer, name: str, kind: str, dialer: Dialer, trust: ssl.SSLContext) -> _Half:
    import dns.message

    query = _query(name, kind)
    query.id = 0  # RFC 8484 §4.1: answers may be cached
    below = await dialer.dial(server.address)
    stream = await start_tls(below, trust, server.name)
    try:
        answer = await fetch(
            stream,
            Request(
                server.name,
                server.path,
                method="POST",
                body=query.to_wire(),
                headers=(("Content-Type", "application/dns-message"), ("Accept", "application/dns-message")),
            ),
            label=server.name,
        )
    finally:
        stream.abort()
    if answer.status != 200:
        return _Half(error=f"status {answer.status}")
    return _read(dns.message.from_wire(answer.body), kind)


def _read(reply: dns.message.Message, kind: str) -> _Half:
    import dns.rcode
    import dns.rdatatype

    wanted = dns.rdatatype.from_text(kind)
    addresses = [
        record.to_text() for rrset in reply.answer if rrset.rdtype == wanted for record in rrset
    ]  # the CNAMEs before them are passed over
    return _Half(tuple(addresses), dns.rcode.to_text(reply.rcode()))
