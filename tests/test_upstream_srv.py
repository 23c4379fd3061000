"""Jump hosts from DNS: RFC 2782's order, the TTL, and a resolver that fails; dnsmasq is the name server."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gotunnel.errors import Blame, DialError
from gotunnel.upstream.srv import Answer, Discovery, Target, chains, name_of, ordered, resolve
from tests.conftest import need
from tests.lab import proc

NAME = "_gotunnel-ssh._tcp.corp.example"
A, B, C = Target("a", 22, 10, 0), Target("b", 22, 10, 30), Target("c", 2222, 5, 0)


def free_port() -> int:
    """For UDP and TCP, and none of those that the kernel hands out: asking for it could take it."""
    for port in random.sample(range(20000, 30000), 50):
        with (
            contextlib.suppress(OSError),
            socket.socket() as tcp,
            socket.socket(type=socket.SOCK_DGRAM) as udp,
        ):
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@contextlib.asynccontextmanager
async def dnsmasq(directory: Path, *options: str) -> AsyncIterator[int]:
    """The port of such a server on loopback."""
    need((proc.tool("dnsmasq") is not None, "dnsmasq is not installed"))
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        proc.need_tool("dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null",
        "--no-resolv", "--no-hosts",
        "--listen-address=127.0.0.1", "--bind-interfaces", f"--port={port}",
        "--local=/example/", f"--pid-file={directory / 'pid'}", "--user=", "--local-ttl=7", *options,
    )  # fmt: skip
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            await asyncio.sleep(0.02)
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def test_names() -> None:
    assert name_of(f"srv://{NAME}.") == NAME
    assert name_of("ssh://bastion") is None
    assert name_of("srv://bastion") is None


def test_the_order_is_by_priority_and_by_weight_among_equals() -> None:
    firsts: collections.Counter[str] = collections.Counter()
    rng = random.Random(7)
    heavy, light = Target("heavy", 22, 1, 90), Target("light", 22, 1, 10)
    for _ in range(2000):
        order = ordered([Target("last", 22, 2, 65535), heavy, light, Target("never", 22, 1, 0)], rng)
        assert order[3].host == "last"
        firsts[order[0].host] += 1
    assert 0.85 < firsts["heavy"] / 2000 < 0.93
    assert 0.06 < firsts["light"] / 2000 < 0.14
    assert 0 < firsts["never"] < 60  # RFC 2782: "a very small chance"


async def test_a_real_name_server(tmp_path: Path) -> None:
    hosts = [f"--srv-host={NAME},jump-{n}.example,{2200 + n},{n},{10 * n}" for n in (1, 2)]
    nothing = ["--srv-host=_none._tcp.example", "--host-record=bare.example,127.0.0.1"]
    async with dnsmasq(tmp_path, *hosts, *nothing) as port:
        answer = await resolve(NAME, nameservers=["127.0.0.1"], port=port)
        assert answer == Answer(
            (Target("jump-1.example", 2201, 1, 10), Target("jump-2.example", 2202, 2, 20)), 7.0
        )
        assert chains(answer.targets) == ("ssh://jump-1.example:2201", "ssh://jump-2.example:2202")
        for name, words in (
            ("_no._tcp.example", "doesn't exist"),
            ("bare.example", "has no SRV records"),
            ("_none._tcp.example", "not offered"),
            ("_x._tcp.elsewhere.test", "refused to answer"),
        ):
            with pytest.raises(DialError, match=words) as caught:
                await resolve(name, nameservers=["127.0.0.1"], port=port)
            assert caught.value.blame is Blame.HOP
            assert caught.value.finding in ("dns.not-found", "dns.refused")


class Stop(Exception):
    """Enough rounds."""


async def test_what_was_known_stays_while_the_resolver_fails() -> None:
    script: list[Answer | DialError] = [
        Answer((A, B, C), 30.0),
        DialError("dns.timeout", "x: no answer", blame=Blame.HOP),
        DialError("dns.refused", "x: no", blame=Blame.HOP),
        Answer((C, B, A), 0.0),  # the same set
        Answer((A,), 1e9),
    ]
    waits: list[float] = []
    heard: list[tuple[str, ...]] = []

    async def answer(name: str) -> Answer:
        assert name == NAME
        match script.pop(0):
            case DialError() as error:
                raise error
            case good:
                return good

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if not script:
            raise Stop

    found = Discovery(NAME, heard.append, resolve=answer, sleep=sleep, rng=random.Random(1))
    with pytest.raises(Stop):
        await found.run()
    assert [heard[0][0], *heard[1:]] == ["ssh://c:2222", ("ssh://a:22",)]
    assert set(heard[0]) == {"ssh://a:22", "ssh://b:22", "ssh://c:2222"}
    first, after_good, retry, again, after_same, last = waits
    assert (first, after_good, after_same, last) == (0.0, 30.0, 5.0, 3600.0)
    assert 2.5 <= retry <= 5.0 <= again <= 10.0
    assert found.error is None
    assert found.chains == ("ssh://a:22",)


async def test_an_answer_that_is_no_host_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    host = b"-oProxyCommand"
    record = bytes((0, 1, 0, 1, 0, 22, len(host))) + host + b"\0"
    evil = [f"--dns-rr={NAME},33,{record.hex()}", f"--srv-host={NAME},good.example,22,1,1"]
    async with dnsmasq(tmp_path, *evil) as port:
        answer = await resolve(NAME, nameservers=["127.0.0.1"], port=port)
    assert [target.host for target in answer.targets] == ["good.example"]
    assert "oProxyCommand" in caplog.text
