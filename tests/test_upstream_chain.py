"""Chains: the fold, what is shared, what ssh_config adds, and what can't stand where it does."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gotunnel.address import HostPort
from gotunnel.errors import ConfigError, DialError
from gotunnel.upstream.chain import ChainBuilder, expand
from gotunnel.upstream.dialer import Dialer
from gotunnel.upstream.spec import SshHop, parse_chain
from tests.conftest import need
from tests.jumps import callers, logins
from tests.lab.keys import Key
from tests.lab.proc import dead_port
from tests.lab.proxies import HttpProxy, SocksProxy
from tests.lab.sshd import Sshd
from tests.peers import echo, refusal_of, say, serving, until

Start = Callable[..., Sshd]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "ssh_config"
    file.write_text("")
    return file


def hop(server: Sshd, key: Key, config: Path) -> str:
    known = config.parent / "known_hosts"
    return f"ssh://{server.user}@127.0.0.1:{server.port}?identity={key.private}&known_hosts={known}&config={config}"


@contextlib.asynccontextmanager
async def building(**options: object) -> AsyncIterator[ChainBuilder]:
    builder = ChainBuilder(**options)  # type: ignore[arg-type]
    try:
        yield builder
    finally:
        await builder.close()


async def carries(dialer: Dialer, target: HostPort) -> None:
    """50 KB go there and back, and the half-close is kept."""
    stream = await dialer.dial(target)
    payload = os.urandom(50_000)
    assert await say(stream, payload) == payload
    stream.write_eof()
    assert await stream.read() == b""
    stream.close()


async def test_every_pair_of_hops(sshd: Start, client_key: Key, config: Path, tmp_path: Path) -> None:
    need(HttpProxy.available(), SocksProxy.available())
    first, second = hop(sshd(), client_key, config), hop(sshd(), client_key, config)
    with (
        HttpProxy(tmp_path / "http", user="u", password="p") as http,
        SocksProxy(tmp_path / "socks") as socks,
    ):
        hops = [first, second, http.url, socks.url]
        async with serving(echo) as target, building() as builder:
            for one in hops:
                for other in hops:
                    if one != other:
                        await carries(builder.build(parse_chain(f"{one},{other}")), target)
            await carries(builder.build(parse_chain(",".join(["direct:", *hops]))), target)
            await carries(builder.build(parse_chain("direct:")), target)


async def test_chains_share_the_hops_they_have_in_common(sshd: Start, client_key: Key, config: Path) -> None:
    first, second = sshd(), sshd()
    one = hop(first, client_key, config)
    async with serving(echo) as target, building() as builder:
        await carries(builder.build(parse_chain(one)), target)
        await carries(builder.build(parse_chain(f"{one},{hop(second, client_key, config)}")), target)
        assert builder.build(parse_chain(one)) is builder.build(parse_chain(one))
        assert logins(first) == logins(second) == 1


async def test_a_lost_hop_is_told_with_its_place(sshd: Start, client_key: Key, config: Path) -> None:
    first, second = sshd(), sshd()
    lost: list[tuple[tuple[object, ...], DialError]] = []
    chain = parse_chain(f"{hop(first, client_key, config)},{hop(second, client_key, config)}")
    async with (
        serving(echo) as target,
        building(on_lost=lambda key, error: lost.append((key, error))) as builder,
    ):
        await carries(builder.build(chain), target)
        first.kill()
        await until(lambda: len(lost) == 2)
        assert {key for key, _ in lost} == builder.prefixes(chain)


def alias(name: str, server: Sshd, key: Key, config: Path, *more: str) -> str:
    lines = (
        "HostName 127.0.0.1",
        f"Port {server.port}",
        f"User {server.user}",
        f"IdentityFile {key.private}",
        f"UserKnownHostsFile {config.parent / 'known_hosts'}",
        "GlobalKnownHostsFile /dev/null",
        "IdentityAgent none",
        *more,
    )
    return f"Host {name}\n" + "".join(f"  {line}\n" for line in lines)


async def test_proxy_jump_and_proxy_command_of_ssh_config(
    sshd: Start, client_key: Key, config: Path, tmp_path: Path
) -> None:
    first, second = sshd(), sshd()
    relay = tmp_path / "relay.py"
    relay.write_text(
        "import os, socket, sys, threading\n"
        "sys.stderr.write('a word on standard error\\n')\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def up():\n"
        "    while data := os.read(0, 65536): s.sendall(data)\n"
        "    os._exit(0)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while data := s.recv(65536):\n"
        "    sys.stderr.write('another\\n'); sys.stderr.flush(); os.write(1, data)\n"
    )
    config.write_text(
        alias("jump", first, client_key, config)
        + alias("inner", second, client_key, config, "ProxyJump jump")
        + alias("odd", second, client_key, config, f"ProxyCommand python3 {relay} %h %p; exit 0")
    )
    async with serving(echo) as target, building() as builder:
        await carries(builder.build(parse_chain(f"ssh://inner?config={config}")), target)
        assert logins(first) == logins(second) == 1
        assert callers(first) == 1
        await carries(builder.build(parse_chain(f"ssh://odd?config={config}")), target)
        assert logins(second) == 2
    assert not still_running(str(relay))


def still_running(word: str) -> list[str]:
    """The processes with this word on their command line."""
    lines = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
    return [line.decode(errors="replace") for line in lines if word.encode() in line]


async def test_a_proxy_command_that_fails_is_told_in_one_line(
    sshd: Start, client_key: Key, config: Path
) -> None:
    config.write_text(alias("odd", sshd(), client_key, config, "ProxyCommand /nowhere/at-all %h"))
    async with building() as builder:
        error = await refusal_of(builder.build(parse_chain(f"ssh://odd?config={config}")), HostPort("x", 1))
        assert (error.finding, error.hop) == ("hop.closed", "ssh://odd")


def test_what_cannot_stand_where_it_does(config: Path) -> None:
    config.write_text(
        "Host odd\n  ProxyCommand true\nHost loop\n  ProxyJump loop2\nHost loop2\n  ProxyJump loop\n"
    )
    with pytest.raises(ConfigError, match="must stand first"):
        expand(parse_chain(f"http://p:1,ssh://odd?config={config}"))
    with pytest.raises(ConfigError, match="lead back to itself"):
        expand(parse_chain(f"ssh://loop?config={config}"))
    with pytest.raises(ConfigError, match="more than 16 hops"):
        expand(parse_chain(",".join(f"http://p{n}:1" for n in range(40))))


def test_a_proxy_jump_expands_in_place_and_only_the_first_ones_own(config: Path) -> None:
    config.write_text("Host a\n  ProxyJump b,c\nHost b\n  ProxyJump d\nHost c\n  ProxyCommand false\n")
    hops, plans = expand(parse_chain(f"http://p:1,ssh://a?config={config}"))
    assert [str(h) for h in hops] == ["http://p:1", "ssh://d", "ssh://b", "ssh://c", "ssh://a"]
    assert [plans[h].proxy_command for h in hops if isinstance(h, SshHop)] == ["", "", "", ""]


async def test_a_password_or_key_that_is_not_there_is_told_at_the_start(tmp_path: Path, config: Path) -> None:
    async with building() as builder:
        for text, words in (
            (f"http://u@x?password_file={tmp_path}/none", "No such file"),
            ("socks5h://u@x?password_env=GOTUNNEL_TEST_NONE", "is not set"),
            (f"ssh://x?config={config}&identity={tmp_path}/none", "No such file"),
            (f"ssh://x?config={config}&identity={tmp_path}", "not a regular file"),
            (f"ssh://x?config={config}&known_hosts={tmp_path}/none", "No such file"),
            (f"ssh://x?config={tmp_path}/none", "none"),
        ):
            with pytest.raises(ConfigError, match=words) as caught:
                builder.build(parse_chain(text))
            assert str(caught.value).isprintable()


async def test_a_hop_that_cannot_be_reached_is_named(config: Path) -> None:
    port = dead_port()
    async with building() as builder:
        error = await refusal_of(
            builder.build(parse_chain(f"http://127.0.0.1:{port},socks5h://x:1")), HostPort("x", 1)
        )
        assert (error.hop, error.finding) == (f"http://127.0.0.1:{port}", "tcp.refused")
