"""What is seen of a need, and what is judged of it: real sockets on loopback that do what networks do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from gotunnel.address import HostPort
from gotunnel.doctor import look_name
from gotunnel.doctor.judge import judge
from gotunnel.doctor.look import Limits, Means, look
from gotunnel.doctor.look_name import DohServer, ask_server, nameservers
from gotunnel.doctor.model import Need, NeedKind, Seen
from gotunnel.errors import Blame, DialError
from gotunnel.findings.catalogue import Finding
from gotunnel.modproxy.credentials import Credentials
from gotunnel.modproxy.dirhash import h1_of_go_mod
from gotunnel.upstream.dialer import Stream
from gotunnel.upstream.tls import client_context
from tests.lab import dns
from tests.lab.pki import Authority
from tests.lab.proc import dead_port, free_port

QUICK = Limits(total=6.0, name=1.0, connect=1.0, hops=1.0, tls=0.6, answer=0.6, compare=0.6)
LIST = "/golang.org/x/text/@v/list"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki", "Lab Root")


@contextlib.asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on 127.0.0.1; gives its port."""

    running: set[asyncio.Task[Any]] = set()

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await handler(reader, writer)
                writer.close()
                await asyncio.wait_for(writer.wait_closed(), 1.0)
        except (TimeoutError, asyncio.CancelledError):
            pass  # the test is over
        finally:
            writer.transport.abort()
            running.discard(task)

    server = await asyncio.start_server(guarded, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.sleep(0.02)
        for task in tuple(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.sleep(0.02)


def served_by(authority: Authority, *names: str, days: tuple[int, int] = (-1, 30)) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued = authority.issue(*names, days=days)
    context.load_cert_chain(issued.cert, issued.key)
    return context


def saying(answer: bytes, *, then: float = 0.0, seen: list[bytes] | None = None) -> Handler:
    """Answers every request so, and keeps the connection open for `then` seconds."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(head)
        writer.write(answer)
        await writer.drain()
        await asyncio.sleep(then)

    return handler


def reply(status: int, body: bytes = b"v0.1.0\n", *headers: str, date: float | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers]
    if date is not None:
        lines.append(f"Date: {formatdate(date, usegmt=True)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def need(
    port: int, kind: NeedKind = "source", host: str = "127.0.0.1", *, tls: bool = False, **more: Any
) -> Need:
    scheme = {"vcs-ssh": "ssh", "vcs-git": "git"}.get(kind, "https" if tls else "http")
    path = more.pop("path", LIST)
    return Need(kind, f"{scheme}://{host}:{port}{path}", host, port, tls, "a test", path=path, **more)


def means(authority: Authority | None = None, **more: Any) -> Means:
    ca = str(authority.cert) if authority else ""
    defaults: dict[str, Any] = {"limits": QUICK, "doh": (), "resolvers": ()}
    return Means(**{**defaults, "trust": lambda: client_context(ca), **more})


def ids(findings: list[Finding]) -> list[str]:
    return [one.id for one in findings]


async def judged(wanted: Need, with_: Means) -> tuple[Seen, Finding]:
    """The look, and the one finding that is made of it."""
    seen = await look(wanted, means=with_)
    (found,) = judge([seen])
    return seen, found


# --- TLS -----------------------------------------------------------------------------------------


async def test_a_healthy_need_is_seen_whole_and_nothing_is_found(authority: Authority) -> None:
    tls = served_by(authority, "127.0.0.1")
    async with serving(saying(reply(200, date=time.time())), tls) as port:
        seen = await look(need(port, tls=True), means=means(authority))
    assert (seen.finding, seen.status, seen.body, seen.families) == (None, 200, b"v0.1.0\n", {"ipv4": "ok"})
    assert seen.certificate is not None
    assert (seen.certificate.trusted, seen.certificate.issuer) == (True, "Lab Root")
    assert abs(seen.notes["skew"]) <= 2
    assert None not in (seen.connect_ms, seen.tls_ms, seen.first_byte_ms)
    assert judge([seen]) == []


@pytest.mark.parametrize(
    ("days", "name", "clock", "wanted", "words"),
    [
        ((-9, -2), "127.0.0.1", 0, "tls.expired", "has expired"),
        ((-9, -2), "127.0.0.1", -4, "tls.clock-skew", "clock is 4 days ahead"),
        ((2, 30), "127.0.0.1", 0, "tls.expired", "isn't valid yet"),
        ((2, 30), "127.0.0.1", 5, "tls.clock-skew", "clock is 5 days behind"),
        ((-1, 30), "modules.example", 0, "tls.wrong-name", "is for modules.example"),
    ],
)
async def test_certificates_that_do_not_hold(
    authority: Authority, days: tuple[int, int], name: str, clock: int, wanted: str, words: str
) -> None:
    """`clock`: days that the server's Date is ahead of ours."""
    tls = served_by(authority, name, days=days)
    async with serving(saying(reply(200, date=time.time() + 86400 * clock)), tls) as port:
        _, found = await judged(need(port, tls=True), means(authority))
    assert found.id == wanted
    assert words in found.summary
    assert found.evidence["certificate"]["issuer"] == "Lab Root"


async def test_an_interceptor_is_named(authority: Authority, tmp_path: Path) -> None:
    tls = served_by(Authority(tmp_path / "other", "Corp Inspection CA"), "127.0.0.1")
    async with serving(saying(reply(200)), tls) as port:
        seen, found = await judged(need(port, tls=True), means(authority))
    assert found.id == "tls.intercepted"
    assert found.evidence["issuer"] == "Corp Inspection CA"
    assert any("SSL_CERT_FILE" in line for line in found.fix)
    assert seen.certificate is not None
    assert not seen.certificate.trusted


async def test_a_name_that_is_filtered_is_told_from_a_dead_server(authority: Authority) -> None:
    alert = bytes.fromhex("15030300020270")  # unrecognized_name: somebody's word
    for filtered in (True, False):

        async def handler(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, filtered: bool = filtered
        ) -> None:
            hello = await reader.read(4096)
            if b"localhost" in hello or not filtered:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
                return
            writer.write(alert)
            await writer.drain()

        async with serving(handler) as port:
            wanted = need(port, "url", "localhost", tls=True)
            seen = await look(wanted, means=means(authority))
        found = next(one for one in judge([seen]) if one.severity == "error")
        assert found.id == "tcp.reset"
        assert ("SNI" in found.summary) is filtered


async def test_servers_that_speak_no_tls_or_nothing() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(2000)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    for handler, wanted in ((silent, "tls.timeout"), (http, "tls.not-tls")):
        async with serving(handler) as port:
            _, found = await judged(need(port, "url", tls=True), means())
        assert found.id == wanted


# --- HTTP ----------------------------------------------------------------------------------------

HTML = b"<!DOCTYPE html><html>Guests log in here</html>"


@pytest.mark.parametrize(
    ("answer", "wanted", "words"),
    [
        (reply(401, b"", 'WWW-Authenticate: Basic realm="x"'), "http.unauthorized", "asks for Basic"),
        (reply(403), "http.forbidden", "403"),
        (reply(407, b"", "Proxy-Authenticate: NTLM"), "proxy.auth-required", "asks for NTLM"),
        (reply(429, b"", "Retry-After: 9"), "http.rate-limited", "Retry-After: 9"),
        (reply(451), "http.forbidden", "451"),
        (reply(503), "http.server-error", "503"),
        (reply(511), "http.captive-portal", "log-in page"),
        (reply(200, HTML, "Content-Type: text/html"), "http.captive-portal", "log-in page"),
        (reply(200, HTML), "http.captive-portal", "log-in page"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nv0", "http.truncated", "broke off after 2 bytes"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nv0", "http.truncated", "broke off"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            + (b"10000\r\n" + bytes(65536) + b"\r\n") * 17,
            "http.endless",
            "no end after",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "unknown", "no HTTP"),
    ],
)
async def test_answers_that_go_can_not_use(answer: bytes, wanted: str, words: str) -> None:
    async with serving(saying(answer)) as port:
        _, found = await judged(need(port), means())
    assert found.id == wanted
    assert words in found.summary


@pytest.mark.parametrize("status", [200, 404, 410])
async def test_answers_that_a_healthy_source_gives(status: int) -> None:
    async with serving(saying(reply(status))) as port:
        assert judge([await look(need(port), means=means())]) == []


async def test_a_server_that_dislikes_long_heads_raises_no_alarm() -> None:
    async def strict(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(403 if len(head) > 1000 else 200))
        await writer.drain()

    async with serving(strict) as port:
        seen = await look(need(port), means=means())
    assert (seen.status, seen.finding) == (200, None)


async def test_an_answer_that_stops_or_never_comes() -> None:
    stops = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nv0"
    for answer, words in ((stops, "stopped after 2 bytes"), (b"", "no answer to the request")):
        async with serving(saying(answer, then=9)) as port:
            _, found = await judged(need(port), means())
        assert found.id == "http.timeout"
        assert words in found.summary


async def test_a_go_mod_is_held_against_go_sum() -> None:
    mod = b"module a.example/m\n"
    asked: dict[str, Any] = {"path": "/a.example/m/@v/v1.0.0.mod", "h1": h1_of_go_mod(mod)}
    async with serving(saying(reply(200, mod))) as port:
        assert judge([await look(need(port, **asked), means=means())]) == []
    async with serving(saying(reply(200, mod + b"require b.example/evil v1.0.0\n"))) as port:
        seen, found = await judged(need(port, **asked), means())
    assert (found.id, found.stage) == ("sum.mismatch", "verify")
    assert "--mirror" in found.fix[0]
    assert seen.notes["h1"].startswith("h1:")


async def test_a_portal_that_leads_from_https_to_http_is_one_though_go_does_not_follow(
    authority: Authority,
) -> None:
    away = reply(302, b"", "Location: http://hotspot.example/login")
    async with serving(saying(away), served_by(authority, "127.0.0.1")) as port:
        _, found = await judged(need(port, tls=True), means(authority))
    assert found.id == "http.captive-portal"
    assert found.fix[0] == "open http://hotspot.example/login in a browser and log in"


async def test_a_portal_leads_away_and_an_honest_redirect_does_not_alarm() -> None:
    async with serving(saying(reply(200, HTML, "Content-Type: text/html"))) as other:
        away = reply(302, b"", f"Location: http://127.0.0.1:{other}/login")
        async with serving(saying(away)) as port:
            seen, found = await judged(need(port), means())
    assert found.id == "http.captive-portal"
    assert found.fix[0] == f"open http://127.0.0.1:{other}/login in a browser and log in"
    assert seen.notes["final"]["status"] == 200
    async with serving(saying(reply(200))) as other:
        away = reply(302, b"", f"Location: http://127.0.0.1:{other}/list")
        async with serving(saying(away)) as port:
            assert judge([await look(need(port), means=means())]) == []


async def test_pages_of_import_paths_and_of_git_servers() -> None:
    tag = b"<html>" + bytes(9000) + b'<meta name="go-import" content="x.net/lib git https://x.net/lib.git">'
    git = "/lib.git/info/refs?service=git-upload-pack"
    cases: tuple[tuple[NeedKind, str, bytes, list[str]], ...] = (
        ("meta", "/lib?go-get=1", reply(200, tag, "Content-Type: text/html"), []),
        ("meta", "/lib?go-get=1", reply(404, tag, "Content-Type: text/html"), []),  # as go takes it
        ("meta", "/lib?go-get=1", reply(200, HTML, "Content-Type: text/html"), ["import.no-meta"]),
        ("meta", "/lib?go-get=1", reply(404), ["import.no-meta"]),
        ("vcs-https", git, reply(200, b"001e# service"), []),
        ("vcs-https", git, reply(401), ["vcs.credentials"]),
        ("vcs-https", git, reply(200, HTML), ["http.captive-portal"]),
    )
    for kind, path, answer, wanted in cases:
        async with serving(saying(answer)) as port:
            seen = await look(need(port, kind, path=path), means=means())
        assert ids(judge([seen])) == wanted, (kind, answer[:80])
        assert kind != "meta" or answer.endswith(seen.body)


async def test_credentials_go_over_verified_tls_only_and_only_after_a_refusal(authority: Authority) -> None:
    seen: list[bytes] = []
    refusal = reply(401, b"", "WWW-Authenticate: Basic")
    async with serving(saying(refusal, seen=seen)) as port:
        known = Credentials({f"127.0.0.1:{port}": ("dev", "geheim")})
        await look(need(port), means=means(credentials=known))
    assert len(seen) == 1
    assert b"Authorization" not in seen[0]
    seen.clear()
    async with serving(saying(refusal, seen=seen), served_by(authority, "127.0.0.1")) as port:
        known = Credentials({f"127.0.0.1:{port}": ("dev", "geheim")})
        looked, found = await judged(need(port, "vcs-https", tls=True), means(authority, credentials=known))
    assert [b"Authorization: Basic" in head for head in seen] == [False, True]  # nothing unasked
    assert looked.notes["credentials"] == "sent"
    assert found.id == "vcs.credentials"


# --- connection, git, ways out ---------------------------------------------------------------------


async def test_a_dead_port_of_a_local_source_is_the_setting_and_of_a_host_the_network() -> None:
    port = dead_port()
    _, found = await judged(need(port), means())
    assert (found.id, found.evidence["cause"]) == ("goproxy.unreachable", "tcp.refused")
    _, found = await judged(need(port, "url"), means())
    assert found.id == "tcp.refused"


async def test_git_over_ssh() -> None:
    async def sshd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\r\nSSH-2.0-test\r\n")
        await writer.drain()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(sshd) as good, serving(mute) as bad:
        seen = await look(need(good, "vcs-ssh"), means=means())
        assert (seen.finding, seen.notes["banner"]) == (None, "SSH-2.0-test")
        round_ = means(ssh_elsewhere={"127.0.0.1": HostPort("127.0.0.1", good)})
        for port in (bad, dead_port()):
            _, found = await judged(need(port, "vcs-ssh"), round_)
            assert found.id == "vcs.ssh-refused"
            assert found.evidence["ssh_443"] == f"127.0.0.1:{good}"
            assert found.fix[0].endswith(f"Port {good}\\n' >> ~/.ssh/config")


async def test_the_git_port_that_is_blocked() -> None:
    _, found = await judged(need(dead_port(), "vcs-git"), means())
    assert found.id == "vcs.port-blocked"
    assert "insteadOf git://127.0.0.1/" in found.fix[0]


class Dead:
    """A way out whose jump host refuses."""

    label = "ssh://dev@127.0.0.1:2222"

    async def dial(self, target: HostPort) -> Stream:
        raise DialError("tcp.refused", f"{self.label}: refused", blame=Blame.HOP, hop=self.label)

    async def warm(self) -> None: ...

    async def close(self) -> None: ...


async def test_a_way_out_that_is_dead_is_no_fault_of_the_need() -> None:
    seen = await look(need(443, tls=True), through=Dead(), means=means())
    assert (seen.finding, seen.via) == ("tcp.refused", Dead.label)
    assert judge([seen]) == []


# --- names -----------------------------------------------------------------------------------------


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str, error: int | None = None) -> None:
    """The system's resolver says so (it can't be led elsewhere without a namespace)."""

    async def resolve(target: HostPort) -> list[Any]:
        if error is not None:
            raise socket.gaierror(error, "no")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, target.port)) for a in addresses]

    monkeypatch.setattr(look_name, "resolve", resolve)


async def test_resolvers_are_asked_themselves(tmp_path: Path) -> None:
    with dns.DnsServer(tmp_path, {"git.corp.net": "10.1.2.3"}) as server:
        where = HostPort(server.address, server.port)
        told = await ask_server(where, "git.corp.net", 2.0)
        assert (told.addresses, told.rcode, told.error) == (("10.1.2.3",), "NOERROR", "")
        assert (await ask_server(where, "no.corp.net", 2.0)).rcode == "NXDOMAIN"
    assert (await ask_server(HostPort("127.0.0.1", free_port()), "x.net", 1.0)).error == "connection refused"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        told = await ask_server(HostPort("127.0.0.1", mute.getsockname()[1]), "x.net", 0.3)
    assert (told.error, told.rcode) == ("no answer", "")


async def test_silence_refusal_and_denial_of_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wanted = need(80, host="lib.corp.net", private=True)
    resolving(monkeypatch, error=socket.EAI_AGAIN)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute, dns.DnsServer(tmp_path, {}) as server:
        mute.bind(("127.0.0.1", 0))
        cases = (
            (HostPort("127.0.0.1", mute.getsockname()[1]), "dns.timeout"),
            (HostPort("127.0.0.1", free_port()), "dns.refused"),
            (HostPort(server.address, server.port), "dns.not-found"),
        )
        for resolver, id in cases:
            _, found = await judged(wanted, means(resolvers=(resolver,)))
            assert found.id == id


async def test_where_the_first_resolver_is_silent_the_second_leads_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    resolving(monkeypatch, error=socket.EAI_AGAIN)
    with dns.DnsServer(tmp_path, {"lib.corp.net": "127.0.0.1"}) as server:
        async with serving(saying(reply(200))) as port:
            where = means(resolvers=(HostPort(server.address, server.port),))
            seen = await look(need(port, host="lib.corp.net"), means=where)
    assert (seen.finding, seen.status, seen.addresses) == (None, 200, ("127.0.0.1",))


async def test_a_lying_resolver_is_found_by_dns_over_https(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def doh(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        answer, name, _ = dns.reply(await reader.readexactly(length), {"lib.public.net": "93.184.5.6"})
        asked.append(name)
        writer.write(reply(200, answer, "Content-Type: application/dns-message"))
        await writer.drain()

    imposter = served_by(Authority(tmp_path / "liar", "Nobody"), "portal.example")
    resolving(monkeypatch, "127.0.0.1")
    async with (
        serving(doh, served_by(authority, "doh.lab")) as doh_port,
        serving(saying(reply(200)), imposter) as port,
    ):
        with_ = means(
            authority,
            doh=(DohServer("doh.lab", HostPort("127.0.0.1", doh_port)),),
            doh_trust=lambda: client_context(str(authority.cert)),
        )
        _, found = await judged(need(port, "url", "lib.public.net", tls=True), with_)
        assert set(asked) == {"lib.public.net"}
        assert found.id == "dns.hijacked"
        assert found.evidence["elsewhere"] == ["93.184.5.6"]
        asked.clear()
        seen = await look(need(port, "url", "lib.public.net", tls=True, private=True), means=with_)
        assert asked == []  # a private need is asked of no public resolver
        assert ids(judge([seen])) == ["tls.intercepted"]


def test_the_resolvers_of_resolv_conf(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# x\nsearch corp\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nnameserver\n")
    assert [server.host for server in nameservers(path)] == ["10.0.0.1", "fe80::1%eth0"]
    assert [server.host for server in nameservers(tmp_path / "none")] == ["127.0.0.1"]
