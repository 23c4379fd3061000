"""The machine's own network: what a failed dial is called, and that a resolver holds up nobody."""

from __future__ import annotations

import asyncio
import errno
import socket
import subprocess
import sys
import time

import pytest

from gotunnel.address import HostPort
from gotunnel.errors import Blame
from gotunnel.upstream.direct import DirectDialer, resolve, translate
from tests.lab.proc import dead_port
from tests.peers import echo, refusal_of, say, serving, silence, slow_resolver, until

TARGET = HostPort("git.example", 443)


async def test_a_dial_by_name_and_by_address() -> None:
    async with serving(echo) as target:
        for host in ("127.0.0.1", "localhost"):
            stream = await DirectDialer().dial(HostPort(host, target.port))
            assert await say(stream, b"hello") == b"hello"
            sock = stream.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 120_000
            stream.abort()


async def test_nobody_listens() -> None:
    target = HostPort("127.0.0.1", dead_port())
    error = await refusal_of(DirectDialer(), target)
    assert (error.finding, error.blame, error.charges_hop) == ("tcp.refused", Blame.TARGET, False)
    assert str(error) == f"{target}: connection refused"


async def test_a_port_that_swallows_is_given_up_in_time() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = []
        for _ in range(4):  # until the backlog is full and SYNs are dropped
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(address)
            fillers.append(filler)
        started = time.monotonic()
        error = await refusal_of(DirectDialer(timeout=0.3), HostPort(*address))
        assert time.monotonic() - started < 5
        assert (error.finding, error.blame) == ("tcp.timeout", Blame.TARGET)
        for filler in fillers:
            filler.close()


async def test_a_name_that_does_not_exist() -> None:
    for host in ("nobody.invalid", "a" * 70 + ".invalid", "x..y"):
        error = await refusal_of(DirectDialer(), HostPort(host, 80))
        assert error.finding in ("dns.not-found", "dns.timeout")  # no resolver here may answer at all
        assert error.blame is Blame.TARGET
        assert host in str(error)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 by itself")
async def test_a_source_address_is_used() -> None:
    peers: list[str] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(writer.get_extra_info("peername")[0])

    async with serving(note) as target:
        stream = await DirectDialer(source="127.0.0.9").dial(target)
        await until(lambda: peers)
        stream.abort()
    assert peers == ["127.0.0.9"]


async def test_a_source_or_interface_that_is_not_there_is_this_ways_own_fault() -> None:
    async with serving(silence) as target:
        foreign = DirectDialer(source="192.0.2.77", label="direct:?source=192.0.2.77")
        error = await refusal_of(foreign, target)
        assert (error.finding, error.blame, error.hop) == ("net.unreachable", Blame.HOP, foreign.label)
        six = await refusal_of(DirectDialer(source="::1", label="direct:?source=::1"), target)
        assert (six.finding, six.blame) == ("net.unreachable", Blame.HOP)
        for wanted in (target, HostPort("no-such-name.invalid", 80)):
            error = await refusal_of(DirectDialer(interface="gt-none0", label="direct:?interface=x"), wanted)
            assert (error.finding, error.blame) == ("net.unreachable", Blame.HOP)
            assert "no such interface" in error.detail


@pytest.mark.parametrize(
    ("error", "finding"),
    [
        (OSError(errno.EHOSTUNREACH, "x"), "net.unreachable"),
        (OSError(errno.ETIMEDOUT, "x"), "tcp.timeout"),
        (ConnectionResetError(errno.ECONNRESET, "x"), "tcp.reset"),
        (OSError(f"Multiple exceptions: [Errno {errno.ECONNREFUSED}] a, [Errno 1] b"), "tcp.refused"),
        (socket.gaierror(socket.EAI_AGAIN, "x"), "dns.timeout"),
        (socket.gaierror(socket.EAI_FAIL, "x"), "dns.refused"),
        (socket.gaierror(socket.EAI_NONAME, "x"), "dns.not-found"),
        (OSError(errno.EMFILE, "Too many open\nfiles"), "unknown"),
    ],
)  # fmt: skip
def test_the_systems_errors_in_our_tree(error: OSError, finding: str) -> None:
    told = translate(error, TARGET)
    assert (told.finding, told.blame) == (finding, Blame.TARGET)
    assert str(told).isprintable()


async def test_without_a_thread_to_be_had_the_name_is_not_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", start)
    monkeypatch.setattr("gotunnel.tasks._idle", [])  # none that another test left is free
    assert (await refusal_of(DirectDialer(), TARGET)).finding == "dns.timeout"


async def test_a_silent_resolver_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", slow_resolver)
    started = time.monotonic()
    error = await refusal_of(DirectDialer(timeout=0.1), TARGET)
    assert (error.finding, error.blame) == ("dns.timeout", Blame.TARGET)
    assert time.monotonic() - started < 0.9


async def test_a_cancelled_lookup_leaves_nothing_to_complain_about(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        time.sleep(0.05)
        raise socket.gaierror(socket.EAI_NONAME, "late")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await resolve(TARGET)
    await asyncio.sleep(0.1)  # the thread's answer comes to a future that nobody has


def test_a_resolver_does_not_hold_up_the_end_of_the_process() -> None:
    program = """
import asyncio, socket, time
socket.getaddrinfo = lambda *a, **k: time.sleep(60)
from gotunnel.address import HostPort
from gotunnel.errors import DialError
from gotunnel.upstream.direct import DirectDialer
try:
    asyncio.run(DirectDialer(timeout=0.1).dial(HostPort("git.example", 443)))
except DialError as error:
    print(error.finding)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("dns.timeout\n", "")
