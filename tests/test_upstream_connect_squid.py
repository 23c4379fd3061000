"""Through a real squid: each login, TLS of each kind, and chains with sshd, as users write them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from gotunnel.address import HostPort
from gotunnel.errors import Blame, ConfigError, DialError
from gotunnel.upstream.chain import ChainBuilder
from gotunnel.upstream.dialer import Dialer, Stream
from gotunnel.upstream.spec import parse_chain
from tests.conftest import need
from tests.lab.keys import Key
from tests.lab.pki import Authority, Certificate
from tests.lab.squid import Squid, can_run_squid, can_serve_tls
from tests.lab.sshd import Sshd

StartSquid = Callable[..., Squid]
StartSshd = Callable[..., Sshd]
BLOCK = bytes(range(256)) * 4096  # 1 MB


@pytest.fixture(name="squid")
def squid_factory(tmp_path: Path) -> Iterator[StartSquid]:
    need(can_run_squid())
    with contextlib.ExitStack() as stack:
        count = 0

        def start(**options: object) -> Squid:
            nonlocal count
            count += 1
            return stack.enter_context(Squid(tmp_path / f"squid-{count}", **options))  # type: ignore[arg-type]

        yield start


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    need(can_serve_tls())
    return authority.issue("localhost", "proxy.test")


@pytest.fixture
async def echo() -> AsyncIterator[HostPort]:
    """A server that gives back what it gets."""

    open_now: set[asyncio.Transport] = set()
    ended: list[asyncio.Future[None]] = []

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport
            open_now.add(transport)
            self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            ended.append(self.ended)

        def connection_lost(self, exc: Exception | None) -> None:
            open_now.discard(self.transport)
            self.ended.set_result(None)

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

        def pause_writing(self) -> None:
            self.transport.pause_reading()

        def resume_writing(self) -> None:
            self.transport.resume_reading()

        def eof_received(self) -> bool:
            return False

    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    async with server:
        yield HostPort(*server.sockets[0].getsockname())
    for transport in list(open_now):
        transport.abort()
    await asyncio.gather(*ended)


@contextlib.asynccontextmanager
async def chain(text: str) -> AsyncIterator[Dialer]:
    builder = ChainBuilder()
    try:
        yield builder.build(parse_chain(text))
    finally:
        await builder.close()


async def says_hello(dialer: Dialer, target: HostPort) -> None:
    stream = await dialer.dial(target)
    stream.write(b"hello")
    assert await stream.read_exactly(5) == b"hello"
    stream.abort()


def by(squid: Squid, options: str = "", scheme: str = "http", host: str = "127.0.0.1") -> str:
    login = f"{squid.user}:{quote(squid.password, safe='')}@" if squid.schemes else ""
    return f"{scheme}://{login}{host}:{squid.port}" + (f"?{options}" if options else "")


# --- logins ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schemes", [["basic"], ["digest"], ["ntlm"], ["basic", "digest"], ["ntlm", "basic"]])
async def test_a_login(squid: StartSquid, echo: HostPort, schemes: list[str]) -> None:
    if "ntlm" in schemes:
        pytest.importorskip("spnego")
    proxy = squid(schemes=schemes)
    async with chain(by(proxy)) as dialer:
        await says_hello(dialer, echo)
        await says_hello(dialer, echo)
    async with chain(by(proxy).replace("lab%2C", "lab")) as dialer:
        if "ntlm" in schemes:  # the lab's helper believes anybody
            await says_hello(dialer, echo)
            return
        with pytest.raises(DialError, match="refuses our user and password") as caught:
            await dialer.dial(echo)
    assert (caught.value.finding, caught.value.blame) == ("proxy.auth-required", Blame.CREDENTIALS)
    assert "labsecret" not in str(caught.value)


async def test_many_share_nonces_that_wear_out(squid: StartSquid, echo: HostPort) -> None:
    proxy = squid(schemes=["digest"], nonce_uses=3)
    async with chain(by(proxy)) as dialer:
        for _ in range(8):
            await says_hello(dialer, echo)
        await asyncio.gather(*(says_hello(dialer, echo) for _ in range(30)))


# --- https proxies --------------------------------------------------------------------------------------


async def test_https_with_its_own_ca(
    squid: StartSquid, authority: Authority, certificate: Certificate, echo: HostPort
) -> None:
    proxy = squid(certificate=certificate, schemes=["basic"])
    for host, options in (
        ("localhost", f"ca={authority.cert}"),
        ("127.0.0.1", f"ca={authority.cert}&server_name=proxy.test"),
    ):
        async with chain(by(proxy, options, "https", host)) as dialer:
            await says_hello(dialer, echo)
    for host, options, finding, words in (
        ("localhost", "", "tls.intercepted", "issued by gotunnel lab CA"),
        ("127.0.0.1", f"ca={authority.cert}", "tls.wrong-name", "127.0.0.1"),
    ):
        async with chain(by(proxy, options, "https", host)) as dialer:
            with pytest.raises(DialError, match=words) as caught:
                await dialer.dial(echo)
            assert (caught.value.finding, caught.value.blame) == (finding, Blame.HOP)
            assert caught.value.hop == dialer.label


async def test_https_whose_certificate_has_expired(
    squid: StartSquid, authority: Authority, certificate: Certificate, echo: HostPort
) -> None:
    proxy = squid(certificate=authority.issue("localhost", days=(-9, -2)))
    async with chain(by(proxy, f"ca={authority.cert}", "https", "localhost")) as dialer:
        with pytest.raises(DialError) as caught:
            await dialer.dial(echo)
    assert (caught.value.finding, caught.value.blame) == ("tls.expired", Blame.HOP)


async def test_https_to_a_proxy_in_clear(squid: StartSquid, echo: HostPort) -> None:
    async with chain(by(squid(), "", "https")) as dialer:
        with pytest.raises(DialError, match="is it an http:// proxy") as caught:
            await dialer.dial(echo)
    assert caught.value.finding == "tls.not-tls"


async def test_a_client_certificate(
    squid: StartSquid, authority: Authority, certificate: Certificate, echo: HostPort, tmp_path: Path
) -> None:
    proxy = squid(certificate=certificate, client_ca=authority.cert)
    ours = authority.issue("dev", client=True)
    theirs = Authority(tmp_path / "other", "other CA").issue("dev", client=True)
    trust = f"ca={authority.cert}"
    async with chain(by(proxy, f"{trust}&cert={ours.cert}&key={ours.key}", "https", "localhost")) as dialer:
        await says_hello(dialer, echo)
    for options, words in (
        (trust, "client certificate"),
        (f"{trust}&cert={theirs.cert}&key={theirs.key}", "client certificate"),
    ):
        async with chain(by(proxy, options, "https", "localhost")) as dialer:
            with pytest.raises(DialError, match=words) as caught:
                await dialer.dial(echo)
            assert (caught.value.finding, caught.value.blame) == ("proxy.auth-required", Blame.CREDENTIALS)


async def test_files_are_read_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.pem: No such file"):
        ChainBuilder().build(parse_chain(f"https://proxy.test?ca={tmp_path}/gone.pem"))


# --- chains ---------------------------------------------------------------------------------------------


async def send_and_check(stream: Stream, megabytes: int = 20) -> None:
    """So much in both directions at once, checked by SHA-256."""

    async def send() -> None:
        for _ in range(megabytes):
            stream.write(BLOCK)
            await stream.drain()

    sent, got, left = hashlib.sha256(BLOCK * megabytes), hashlib.sha256(), megabytes * len(BLOCK)
    async with asyncio.TaskGroup() as group:
        group.create_task(send())
        while left:
            part = await stream.read()
            assert part
            got.update(part)
            left -= len(part)
    assert got.digest() == sent.digest()


@pytest.mark.parametrize("order", ["https,ssh", "ssh,https", "https,https"])
async def test_a_chain_carries_much(
    order: str,
    squid: StartSquid,
    sshd: StartSshd,
    authority: Authority,
    certificate: Certificate,
    client_key: Key,
    echo: HostPort,
    tmp_path: Path,
) -> None:
    proxy, server = squid(certificate=certificate, schemes=["digest"]), sshd()
    known = f"identity={client_key.private}&known_hosts={tmp_path}/known_hosts&config=none"
    hops = {
        "https": by(proxy, f"ca={authority.cert}&server_name=proxy.test", "https"),
        "ssh": f"ssh://{server.user}@127.0.0.1:{server.port}?{known}",
    }
    async with chain(",".join(hops[kind] for kind in order.split(","))) as dialer:
        stream = await dialer.dial(echo)
        await send_and_check(stream)
        stream.abort()
