"""A way out's own faults, by real servers that refuse: sshd, proxies, SOCKS, and what is none of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from gotunnel.address import HostPort
from gotunnel.doctor.hops import hop_finding, is_of_hop
from gotunnel.errors import Blame, DialError
from gotunnel.findings.catalogue import Finding
from gotunnel.upstream.chain import ChainBuilder
from gotunnel.upstream.spec import parse_chain
from tests.lab import keys
from tests.lab.keys import Key
from tests.lab.proc import dead_port
from tests.lab.silent import Silent
from tests.lab.sshd import Sshd

TARGET = HostPort("127.0.0.1", 9)


async def found_by(via: str) -> Finding:
    """The finding of a dial through `via` that fails."""
    builder = ChainBuilder()
    try:
        chain = parse_chain(via)
        dialer = builder.build(chain)
        with pytest.raises(DialError) as raised:
            await dialer.dial(TARGET)
        assert is_of_hop(raised.value)
        found = hop_finding(raised.value, via=str(chain))
    finally:
        await builder.close()
    assert found.stage == "hop"
    assert found.fix
    assert not any("{" in line for line in found.fix)
    return found


def ssh(jump: Sshd, key: Path, hosts: Path) -> str:
    return f"ssh://{jump.user}@127.0.0.1:{jump.port}?identity={key}&known_hosts={hosts}"


async def test_ssh_servers_that_refuse(sshd: Callable[..., Sshd], client_key: Key, tmp_path: Path) -> None:
    hosts = tmp_path / "known_hosts"
    free, narrow = sshd(AllowTcpForwarding="no"), sshd(PermitOpen="10.9.9.9:1")
    for jump in (free, narrow):
        denied = await found_by(ssh(jump, client_key.private, hosts))
        assert denied.id == "ssh.forwarding-denied"
        assert f"PermitOpen any or with {TARGET}" in denied.fix[0]
    stranger = keys.new_key(tmp_path / "stranger")
    refused = await found_by(ssh(free, stranger.private, hosts))
    assert refused.id == "ssh.auth-failed"
    assert refused.fix[0] == f"ssh-copy-id -p {free.port} {free.user}@127.0.0.1"
    broken = tmp_path / "broken"
    broken.write_text("no key")
    unusable = await found_by(ssh(narrow, broken, hosts))
    assert unusable.id == "ssh.key-unusable"
    assert unusable.fix[0].startswith(f"ssh-keygen -y -f {broken}")
    (tmp_path / "none").touch()
    unknown = await found_by(ssh(free, client_key.private, tmp_path / "none"))
    assert unknown.id == "ssh.host-key-unknown"
    assert unknown.fix == (f"ssh-keyscan -p {free.port} 127.0.0.1 >> {tmp_path / 'none'}",)
    other = hosts.read_text().replace(f":{free.port} ", ":1 ").replace(f":{narrow.port} ", f":{free.port} ")
    hosts.write_text(other)
    changed = await found_by(ssh(free, client_key.private, hosts))
    assert changed.id == "ssh.host-key-changed"
    assert "ssh-keygen -R" in changed.fix[0]


async def test_ways_that_lead_to_no_such_server(tmp_path: Path) -> None:
    dead = await found_by(f"ssh://dev@127.0.0.1:{dead_port()}")
    assert dead.id == "tcp.refused"
    assert dead.subject.startswith("ssh://dev@127.0.0.1:")
    with Silent(tmp_path / "close", "close") as closes, Silent(tmp_path / "noise", "garbage") as noise:
        # what we had said by then decides whether the kernel calls it a close or a reset
        assert (await found_by(f"ssh://127.0.0.1:{closes.port}")).id in ("hop.closed", "tcp.reset")
        for scheme in ("http", "socks5h"):
            assert (await found_by(f"{scheme}://127.0.0.1:{noise.port}")).id == "proxy.not-a-proxy"


async def test_proxies_that_ask_for_a_login_and_web_servers() -> None:
    answer = b""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        answer = b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n"
        basic = await found_by(f"http://127.0.0.1:{port}")
        assert (basic.id, basic.evidence["schemes"]) == ("proxy.auth-required", ["Basic"])
        assert "password_file" in basic.fix[0]
        answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        assert (await found_by(f"http://127.0.0.1:{port}")).id == "proxy.not-a-proxy"
        web = await found_by(f"socks5h://127.0.0.1:{port}")
        assert web.id == "proxy.not-a-proxy"
        assert f"--via http://127.0.0.1:{port}" in web.fix[1]
        answer = b"\x05\x02"  # user and password, please
        assert (await found_by(f"socks5h://127.0.0.1:{port}")).id == "socks.auth-failed"
        answer = b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"
        denied = await found_by(f"http://127.0.0.1:{port}")
        assert denied.id == "proxy.denied"
        assert str(TARGET) in denied.fix[0]
    finally:
        server.close()


def test_ntlm_wants_more_than_a_password() -> None:
    words = "http://proxy:3128: wants a login (Negotiate, NTLM)"
    error = DialError("proxy.auth-required", words, blame=Blame.CREDENTIALS, hop="http://proxy:3128")
    found = hop_finding(error, via="http://proxy:3128")
    assert found.evidence["schemes"] == ["Negotiate", "NTLM"]
    assert found.fix[0].startswith("pip install 'gotunnel[ntlm]'")
    assert found.fix[-2:] == ("pip install 'gotunnel[kerberos]'", "kinit")


def test_what_the_target_does_is_not_the_hops() -> None:
    error = DialError("tcp.refused", "x:1: refused (seen from ssh://jump)", blame=Blame.TARGET)
    assert not is_of_hop(error)
