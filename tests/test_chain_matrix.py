"""Each kind of hop behind each kind of hop, with real servers: whole transfers, both ways at once.

The targets' names are resolved at the far end: here nobody may look up a name.  Behind socks5, which resolves
here by its definition, the target is an address; behind socks4a too, since dante knows no 4a.
GOTUNNEL_SOAK makes it 50 MB each way.

Nobody half-closes before all has come: squid and tinyproxy end both directions at the first EOF.  SOCKS is
dante's here: microsocks writes blocking, and stops for good when both directions are full at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from gotunnel.address import HostPort
from gotunnel.upstream.chain import ChainBuilder
from gotunnel.upstream.dialer import Stream
from gotunnel.upstream.spec import parse_chain
from tests.conftest import need
from tests.lab.dante import Dante
from tests.lab.keys import Key
from tests.lab.pki import Authority
from tests.lab.proxies import HttpProxy
from tests.lab.squid import Squid, can_serve_tls
from tests.lab.sshd import Sshd, can_run_sshd
from tests.peers import serving, until

KINDS = ("ssh", "http", "https", "socks5h", "socks5", "socks4a")
SIZE = (50 if os.environ.get("GOTUNNEL_SOAK") else 4) * 1024 * 1024
UP = random.Random(1).randbytes(256 * 1024)
DOWN = random.Random(2).randbytes(256 * 1024)
COUNT = SIZE // len(UP)


@dataclass(frozen=True)
class Hops:
    """CHAIN text of a hop of each kind, to stand first and to stand second: other servers where there are."""

    first: dict[str, str]
    second: dict[str, str]


@pytest.fixture(scope="module")
def hops(tmp_path_factory: pytest.TempPathFactory, client_key: Key) -> Iterator[Hops]:
    need(can_run_sshd(), can_serve_tls(), HttpProxy.available(), Dante.available())
    where = tmp_path_factory.mktemp("hops")
    authority = Authority(where / "pki")
    certificate = authority.issue("127.0.0.1")
    config = where / "ssh_config"
    config.write_text("")
    known = where / "known_hosts"
    with contextlib.ExitStack() as stack:
        one, two = (
            stack.enter_context(Sshd(where / name, authorized=[client_key])) for name in ("ssh1", "ssh2")
        )
        tiny = stack.enter_context(HttpProxy(where / "tinyproxy"))
        squid = stack.enter_context(Squid(where / "squid"))
        tls = stack.enter_context(Squid(where / "tls", certificate=certificate))
        dante, other = (stack.enter_context(Dante(where / name)) for name in ("dante1", "dante2"))

        def ssh(server: Sshd) -> str:
            server.write_known_hosts(known)
            options = f"identity={client_key.private}&known_hosts={known}&config={config}"
            return f"ssh://{server.user}@127.0.0.1:{server.port}?{options}"

        https = f"https://127.0.0.1:{tls.port}?ca={authority.cert}"
        yield Hops(
            {"ssh": ssh(one), "http": tiny.url, "https": https}
            | {kind: f"{kind}://127.0.0.1:{dante.port}" for kind in ("socks5h", "socks5", "socks4a")},
            {
                "ssh": ssh(two),
                "http": f"http://127.0.0.1:{squid.port}",
                "https": https,
            }
            | {kind: f"{kind}://127.0.0.1:{other.port}" for kind in ("socks5h", "socks5", "socks4a")},
        )


class Origin:
    """Sends all of DOWN while it reads, and keeps the hash of what it got."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.address = HostPort("127.0.0.1", 1)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def send() -> None:
            for _ in range(COUNT):
                writer.write(DOWN)
                await writer.drain()

        async def receive() -> None:
            seen = hashlib.sha256()
            for _ in range(COUNT):
                seen.update(await reader.readexactly(len(UP)))
            self.got.append(seen.hexdigest())

        await asyncio.gather(send(), receive())
        await reader.read()


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    made = Origin()
    async with serving(made.talk) as made.address:
        yield made


@pytest.fixture
def no_names_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process may look up no name."""
    real = socket.getaddrinfo

    def numeric_only(host: str, *args: Any, **options: Any) -> Any:
        if HostPort(host, 1).ip is None:
            raise socket.gaierror(socket.EAI_NONAME, f"{host} was looked up here")
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", numeric_only)


def wanted(block: bytes) -> str:
    seen = hashlib.sha256()
    for _ in range(COUNT):
        seen.update(block)
    return seen.hexdigest()


async def send(stream: Stream) -> None:
    for _ in range(COUNT):
        stream.write(UP)
        await stream.drain()


async def receive(stream: Stream) -> str:
    seen, left = hashlib.sha256(), SIZE
    while left and (data := await stream.read(min(left, 1 << 18))):
        seen.update(data)
        left -= len(data)
    return seen.hexdigest()


@pytest.mark.usefixtures("no_names_here")
@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", KINDS)
async def test_a_pair_carries_all_both_ways_at_once(
    hops: Hops, origin: Origin, first: str, second: str
) -> None:
    chain = parse_chain(f"{hops.first[first]},{hops.second[second]}")
    assert chain.resolves_far == (second != "socks5")
    far = chain.resolves_far and second != "socks4a"  # dante takes 4a's names for the address 0.0.0.1
    target = HostPort("localhost" if far else "127.0.0.1", origin.address.port)
    builder = ChainBuilder()
    try:
        async with asyncio.timeout(60):
            stream = await builder.build(chain).dial(target)
            _, ours = await asyncio.gather(send(stream), receive(stream))
            await until(lambda: origin.got, 60)
        assert (ours, origin.got) == (wanted(DOWN), [wanted(UP)])
        stream.close()
    finally:
        await builder.close()
