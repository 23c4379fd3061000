"""Jump hosts: a real sshd, and a scripted one for what a real one does too seldom."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import asyncssh
import pytest

from gotunnel.address import HostPort
from gotunnel.errors import Blame, DialError, StreamLost
from gotunnel.upstream import ssh_link
from gotunnel.upstream.asking import Asking
from gotunnel.upstream.dialer import Stream
from gotunnel.upstream.direct import DirectDialer
from tests.jumps import Person, callers, jumping, logins, plan_for, scripted
from tests.lab.keys import Agent, Key, new_key
from tests.lab.proc import dead_port
from tests.lab.silent import Silent
from tests.lab.sshd import Sshd
from tests.peers import echo, refusal_of, say, serving, silence, until

Start = Callable[..., Sshd]
SIZE = 50 * 1024 * 1024


@pytest.fixture
def known(tmp_path: Path) -> Path:
    return tmp_path / "known_hosts"


# --- what it is for -----------------------------------------------------------------------------


async def test_streams_through_a_real_jump_host(sshd: Start, client_key: Key, known: Path) -> None:
    server = sshd()
    async with serving(echo) as target, jumping(plan_for(server, client_key, known)) as jump:
        streams = [await jump.dial(target) for _ in range(3)]  # four might want a second link
        for number, stream in enumerate(streams):
            assert await say(stream, b"%d" % number) == b"%d" % number
        streams[0].write_eof()
        assert await streams[0].read() == b""
        for stream in streams:
            stream.close()
        assert logins(server) == 1


async def test_fifty_megabytes_both_ways_at_once(sshd: Start, client_key: Key, known: Path) -> None:
    server = sshd()
    block = hashlib.sha256(b"seed").digest() * 2048
    count = SIZE // len(block)
    wanted = hashlib.sha256(block * count).hexdigest()
    theirs: list[str] = []

    async def far(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def send() -> None:
            for _ in range(count):
                writer.write(block)
                await writer.drain()
            writer.write_eof()

        async def receive() -> None:
            seen = hashlib.sha256()
            while data := await reader.read(1 << 18):
                seen.update(data)
            theirs.append(seen.hexdigest())

        await asyncio.gather(send(), receive())

    async def send(stream: Stream) -> None:
        for _ in range(count):
            stream.write(block)
            await stream.drain()
        stream.write_eof()

    async def receive(stream: Stream) -> str:
        seen = hashlib.sha256()
        while data := await stream.read(1 << 18):
            seen.update(data)
        return seen.hexdigest()

    async with serving(far) as target, jumping(plan_for(server, client_key, known)) as jump:
        stream = await jump.dial(target)
        _, ours = await asyncio.gather(send(stream), receive(stream))
        await until(lambda: theirs)
        assert (ours, theirs) == (wanted, [wanted])
        assert stream.received == SIZE
        stream.close()


async def test_twenty_dials_at_once_log_in_once(sshd: Start, client_key: Key, known: Path) -> None:
    server = sshd()
    plan = plan_for(server, client_key, known, connections=1)
    async with serving(echo) as target, jumping(plan) as jump:
        streams = await asyncio.gather(*(jump.dial(target) for _ in range(20)))
        assert await say(streams[19], b"hello") == b"hello"
        for stream in streams:
            stream.abort()
    assert logins(server) == callers(server) == 1


async def test_twenty_dials_that_fail_ask_once(sshd: Start, client_key: Key, known: Path) -> None:
    server = sshd()
    server.forget_keys()
    async with jumping(plan_for(server, client_key, known)) as jump:
        target = HostPort("127.0.0.1", 9)
        errors = await asyncio.gather(*(refusal_of(jump, target) for _ in range(20)))
    assert {error.finding for error in errors} == {"ssh.auth-failed"}
    assert callers(server) == 1


async def test_a_jump_host_behind_a_jump_host(sshd: Start, client_key: Key, known: Path) -> None:
    first, second = sshd(), sshd()
    async with (
        serving(echo) as target,
        jumping(plan_for(first, client_key, known)) as outer,
        jumping(plan_for(second, client_key, known), outer) as inner,
    ):
        stream = await inner.dial(target)
        payload = bytes(range(256)) * 4096
        assert await say(stream, payload) == payload
        stream.write_eof()
        assert await stream.read() == b""
        stream.close()
        first.kill()
        error = await refusal_of(inner, target)
        assert (error.finding, error.blame, error.hop) == ("tcp.refused", Blame.HOP, "ssh://jump")


# --- refusals ------------------------------------------------------------------------------------


async def test_a_refused_key_is_not_tried_again_at_once(sshd: Start, client_key: Key, known: Path) -> None:
    server = sshd()
    server.forget_keys()
    async with serving(echo) as target, jumping(plan_for(server, client_key, known)) as jump:
        first, second = await refusal_of(jump, target), await refusal_of(jump, target)
        assert (first.finding, first.blame, first.retry_after) == ("ssh.auth-failed", Blame.CREDENTIALS, 60)
        assert second is first
        assert callers(server) == 1


async def test_a_hardened_ssh_config_with_names_that_we_do_not_know(
    sshd: Start, client_key: Key, known: Path
) -> None:
    settings = {
        "kex": "sntrup761x25519-sha512@openssh.com,curve25519-sha256",
        "ciphers": "new-cipher@openssh.com,aes256-gcm@openssh.com",
        "macs": "-hmac-unknown",
        "keepalive_count": 0,
    }
    server = sshd()
    async with serving(echo) as target:
        async with jumping(plan_for(server, client_key, known, **settings)) as jump:
            assert await say(await jump.dial(target), b"hello") == b"hello"
            assert jump.links == 1
            assert jump._links[0].connection.get_extra_info("send_cipher") == "aes256-gcm@openssh.com"
        async with jumping(plan_for(server, client_key, known, ciphers="new-cipher")) as jump:
            error = await refusal_of(jump, target)
            assert (error.finding, "Ciphers new-cipher" in str(error)) == ("ssh.handshake", True)


async def test_no_key_at_all_is_a_refused_key(sshd: Start, known: Path) -> None:
    server = sshd()
    async with jumping(plan_for(server, None, known)) as jump:
        assert (await refusal_of(jump, HostPort("127.0.0.1", 9))).finding == "ssh.auth-failed"


async def test_too_many_keys_are_said_to_be_too_many(
    sshd: Start, client_key: Key, known: Path, tmp_path: Path
) -> None:
    server = sshd(MaxAuthTries="2")
    wrong = [new_key(tmp_path / f"wrong{n}") for n in range(3)]
    identities = tuple(str(key.private) for key in (*wrong, client_key))
    async with jumping(plan_for(server, None, known, identities=identities)) as jump:
        error = await refusal_of(jump, HostPort("127.0.0.1", 9))
        assert error.blame is Blame.CREDENTIALS
        assert "too many keys were offered" in str(error)


async def test_an_encrypted_key_wants_an_agent_or_somebody_to_ask(
    sshd: Start, known: Path, tmp_path: Path
) -> None:
    key = new_key(tmp_path / "locked", passphrase="open sesame")
    server = sshd()
    server.authorize(key)
    async with serving(echo) as target:
        async with jumping(plan_for(server, key, known)) as jump:
            error = await refusal_of(jump, target)
            assert (error.finding, error.blame) == ("ssh.key-unusable", Blame.CREDENTIALS)
            assert f"ssh-add {key.private}" in str(error)
        with Agent(tmp_path / "agent") as agent:
            agent.add(key)
            plan = plan_for(server, key, known, identity_agent=str(agent.socket))
            async with jumping(plan) as jump:
                (await jump.dial(target)).close()
        person = Person("open sesame")
        async with jumping(plan_for(server, key, known), asking=Asking(person)) as jump:
            (await jump.dial(target)).close()
            server.kill()
            server.restart()
            await until(lambda: jump.links == 0)
            (await jump.dial(target)).close()
        assert person.asked == [f"Passphrase for {key.private}: "]  # once, not in the middle of a run
        person = Person("wr0ng", "wr0ng", "wr0ng")
        async with jumping(plan_for(server, key, known), asking=Asking(person)) as jump:
            error = await refusal_of(jump, target)
            assert "wrong passphrase" in str(error)
            assert "wr0ng" not in str(error)


@pytest.mark.parametrize("option", [{"AllowTcpForwarding": "no"}, {"PermitOpen": "127.0.0.1:1"}])
async def test_forwarding_that_is_forbidden_is_policy(
    option: dict[str, str], sshd: Start, client_key: Key, known: Path
) -> None:
    server = sshd(**option)
    async with serving(echo) as target, jumping(plan_for(server, client_key, known)) as jump:
        error = await refusal_of(jump, target)
        assert (error.finding, error.blame, error.another_way) == (
            "ssh.forwarding-denied", Blame.POLICY, True,
        )  # fmt: skip
        assert str(target) in str(error)


async def test_a_target_that_refuses_is_not_the_hops_fault(sshd: Start, client_key: Key, known: Path) -> None:
    server = sshd()
    async with jumping(plan_for(server, client_key, known)) as jump:
        refused = await refusal_of(jump, HostPort("127.0.0.1", dead_port()))
        assert (refused.finding, refused.blame) == ("tcp.refused", Blame.TARGET)
        unknown = await refusal_of(jump, HostPort("nobody.invalid", 80))
        assert unknown.finding in ("dns.not-found", "dns.timeout")
        assert unknown.blame is Blame.TARGET
        assert logins(server) == 1


@pytest.mark.parametrize(
    ("mode", "findings"),
    [
        ("silent", "hop.stalled"), ("banner", "hop.stalled"), ("refuse", "tcp.refused"),
        # what we had said before it went comes back as a reset, or not
        ("close", "hop.closed tcp.reset"), ("reset", "hop.closed tcp.reset"),
        ("garbage", "hop.closed tcp.reset"),
    ],
)  # fmt: skip
def test_a_server_that_is_none(
    mode: str, findings: str, client_key: Key, known: Path, tmp_path: Path
) -> None:
    async def try_it(address: HostPort) -> DialError:
        async with jumping(plan_for(address, client_key, known), handshake_timeout=0.5) as jump:
            return await refusal_of(jump, HostPort("127.0.0.1", 9))

    with Silent(tmp_path / "silent", mode) as server:
        error = asyncio.run(try_it(HostPort(server.address, server.port)))
    assert error.finding in findings.split()
    assert (error.blame, error.hop) == (Blame.HOP, "ssh://jump")


async def test_a_stream_that_was_lost_before_the_handshake(client_key: Key, known: Path) -> None:
    class Lost(DirectDialer):
        async def dial(self, target: HostPort) -> Stream:
            stream = await super().dial(target)
            stream.abort()
            await until(lambda: stream.is_lost)
            return stream

    async with serving(silence) as mute, jumping(plan_for(mute, client_key, known), Lost()) as jump:
        error = await refusal_of(jump, HostPort("127.0.0.1", 9))
        assert (error.finding, error.blame) == ("hop.closed", Blame.HOP)


async def test_a_hop_that_stalls_before_another_is_blamed_itself(client_key: Key, known: Path) -> None:
    async with serving(silence) as mute:
        first = plan_for(mute, client_key, known)
        async with (
            jumping(first, handshake_timeout=0.3) as outer,
            jumping(
                plan_for(HostPort("inner", 22), client_key, known), outer, handshake_timeout=0.3
            ) as inner,
        ):
            outer._label = "ssh://first"
            error = await refusal_of(inner, HostPort("127.0.0.1", 9))
            assert (error.finding, error.hop) == ("hop.stalled", "ssh://first")


# --- host keys -----------------------------------------------------------------------------------


async def test_host_keys_of_a_real_server(sshd: Start, client_key: Key, known: Path, tmp_path: Path) -> None:
    server = sshd()
    place, public = f"[127.0.0.1]:{server.port}", server.host_key.public
    other = new_key(tmp_path / "other").public
    rsa = new_key(tmp_path / "rsa", kind="rsa").public
    target = HostPort("127.0.0.1", dead_port())

    async def verdict(text: str, mode: str = "yes", **changes: object) -> str:
        known.write_text(text)
        plan = plan_for(server, client_key, known, host_key_mode=mode, **changes)
        async with jumping(plan) as jump:
            error = await refusal_of(jump, target)
            assert error.finding == "tcp.refused" or error.blame is Blame.CREDENTIALS
            return error.finding

    trusted, unknown, changed = "tcp.refused", "ssh.host-key-unknown", "ssh.host-key-changed"
    assert await verdict(f"{place} {public}\n") == trusted
    assert await verdict("") == unknown
    assert await verdict(f"127.0.0.2 {public}\n") == unknown
    assert await verdict(f"[127.0.0.1]:1 {public}\n") == unknown
    assert await verdict(f"127.0.0.1 {public}\n") == trusted  # as OpenSSH, when the port has none of its own
    assert await verdict(f"{place} {other}\n") == changed
    assert await verdict(f"{place} {other}\n", "accept-new") == changed
    assert await verdict(f"{place} {rsa}\n", "accept-new") == changed  # or a new type would open the door
    assert await verdict(f"{place} {other}\n", "no") == trusted
    assert await verdict(f"{place} {other}\n{place} {public}\n") == trusted
    assert await verdict(f"@revoked * {public}\n{place} {public}\n") == changed
    assert await verdict(f"@revoked {place} {public}\n127.0.0.1 {public}\n") == changed
    assert await verdict(f"@revoked {place} {public}\n", "accept-new") == changed
    assert await verdict(f",somebody {public}\n") == unknown
    assert await verdict(f"Alias {public}\n", host_key_name="aLIAS", host_key_port=22) == trusted
    assert await verdict("", known_hosts_text=f"{place} {public}") == trusted
    assert await verdict(f"{place} {public}\n", known_hosts_text="# none") == unknown


async def test_accept_new_keeps_the_key_and_then_holds_to_it(
    sshd: Start, client_key: Key, tmp_path: Path
) -> None:
    server = sshd()
    known = tmp_path / "new" / "known_hosts"
    target = HostPort("127.0.0.1", dead_port())
    async with jumping(plan_for(server, client_key, known, host_key_mode="accept-new")) as jump:
        assert (await refusal_of(jump, target)).finding == "tcp.refused"
    assert known.read_text().split()[:2] == [f"[127.0.0.1]:{server.port}", "ssh-ed25519"]
    server.new_host_key()
    async with jumping(plan_for(server, client_key, known, host_key_mode="accept-new")) as jump:
        assert (await refusal_of(jump, target)).finding == "ssh.host-key-changed"


async def test_a_certified_host_key(sshd: Start, client_key: Key, known: Path, tmp_path: Path) -> None:
    from tests.lab import proc

    server = sshd()
    authority = new_key(tmp_path / "authority")
    keygen = [proc.need_tool("ssh-keygen"), "-q", "-s", str(authority.private), "-I", "host", "-h"]
    proc.run([*keygen, "-n", "127.0.0.1", f"{server.host_key.private}.pub"])
    server.set_options(HostCertificate=f"{server.host_key.private}-cert.pub")
    place, target = f"[127.0.0.1]:{server.port}", HostPort("127.0.0.1", dead_port())
    for text, finding in (
        (f"@cert-authority {place} {authority.public}\n", "tcp.refused"),
        (f"@cert-authority * {client_key.public}\n", "ssh.host-key-unknown"),
        (f"{place} {server.host_key.public}\n", "tcp.refused"),  # its certificate is nothing to us
    ):
        known.write_text(text)
        async with jumping(plan_for(server, client_key, known)) as jump:
            assert (await refusal_of(jump, target)).finding == finding, text


async def test_hashed_names(sshd: Start, client_key: Key, known: Path) -> None:
    from tests.lab import proc

    server = sshd()
    proc.run([proc.need_tool("ssh-keygen"), "-q", "-H", "-f", str(known)])
    assert known.read_text().startswith("|1|")
    async with jumping(plan_for(server, client_key, known)) as jump:
        assert (await refusal_of(jump, HostPort("127.0.0.1", dead_port()))).finding == "tcp.refused"


# --- connections that break ----------------------------------------------------------------------


async def test_a_killed_server_is_a_loss_and_a_restarted_one_is_used_again(
    sshd: Start, client_key: Key, known: Path
) -> None:
    server = sshd()
    lost: list[DialError] = []
    plan = plan_for(server, client_key, known)
    async with serving(echo) as target, jumping(plan, on_lost=lost.append) as jump:
        stream = await jump.dial(target)
        assert await say(stream, b"hello") == b"hello"
        server.kill()
        with pytest.raises(StreamLost):
            await stream.read()
        assert [(error.finding, error.blame) for error in lost] == [("hop.closed", Blame.HOP)]
        error = await refusal_of(jump, target)
        assert (error.finding, error.blame) == ("tcp.refused", Blame.HOP)
        server.restart()
        again = await jump.dial(target)
        assert await say(again, b"hello") == b"hello"
        again.close()
    assert len(lost) == 1  # closing it ourselves is no loss


async def test_a_server_that_freezes_is_found_out_by_a_dial(
    sshd: Start, client_key: Key, known: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_link, "ALIVE_TIMEOUT", 0.2)
    server = sshd()
    lost: list[DialError] = []
    plan = plan_for(server, client_key, known)
    async with serving(echo) as target, jumping(plan, on_lost=lost.append, channel_timeout=0.3) as jump:
        stream = await jump.dial(target)
        server.freeze()
        error = await refusal_of(jump, target)
        assert (error.finding, error.blame) == ("hop.stalled", Blame.HOP)
        assert [e.finding for e in lost] == ["hop.stalled"]
        with pytest.raises(StreamLost):
            await stream.read()
        server.thaw()
        (await jump.dial(target)).close()


async def test_a_target_that_is_slow_is_not_the_hops_fault(
    client_key: Key, known: Path, tmp_path: Path
) -> None:
    async def never(host: str, port: int) -> bool:
        await asyncio.sleep(30)
        return False

    async with scripted(lambda host, port: never(host, port), known, new_key(tmp_path / "h")) as server:
        plan = plan_for(server, client_key, known)
        async with jumping(plan, channel_timeout=0.2) as jump:
            error = await refusal_of(jump, HostPort("slow.example", 443))
            assert (error.finding, error.blame) == ("tcp.timeout", Blame.TARGET)
            assert jump.links == 1


async def test_a_connection_that_goes_while_a_dial_waits_is_closed_not_slow(
    client_key: Key, known: Path, tmp_path: Path
) -> None:
    server_side: list[asyncssh.SSHServerConnection] = []

    def acceptor(connection: asyncssh.SSHServerConnection) -> None:
        server_side.append(connection)

    async def hang_up(host: str, port: int) -> bool:
        server_side[0].abort()
        await asyncio.sleep(30)
        return False

    host_key = new_key(tmp_path / "h")
    async with (
        scripted(lambda h, p: hang_up(h, p), known, host_key, acceptor=acceptor) as server,
        jumping(plan_for(server, client_key, known)) as jump,
    ):
        error = await refusal_of(jump, HostPort("x.example", 443))
        assert (error.finding, error.blame) == ("hop.closed", Blame.HOP)


async def test_a_cancelled_dial_leaks_no_channel(client_key: Key, known: Path, tmp_path: Path) -> None:
    opened = asyncio.Event()
    ended: list[Exception | None] = []

    class Session(asyncssh.SSHTCPSession[bytes]):
        def connection_made(self, chan: object) -> None:
            opened.set()

        def connection_lost(self, exc: Exception | None) -> None:
            ended.append(exc)

    async def later(host: str, port: int) -> Session:
        await asyncio.sleep(0.2)
        return Session()

    async with (
        scripted(lambda h, p: later(h, p), known, new_key(tmp_path / "h")) as server,
        jumping(plan_for(server, client_key, known)) as jump,
    ):
        await jump.warm()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await jump.dial(HostPort("x.example", 443))
        await opened.wait()
        await until(lambda: ended)
        assert jump.links == 1
        assert not jump._links[0].connection._channels


async def test_a_cancelled_waiter_does_not_end_the_handshake(
    sshd: Start, client_key: Key, known: Path
) -> None:
    server = sshd()
    async with serving(echo) as target, jumping(plan_for(server, client_key, known)) as jump:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await jump.dial(target)
        (await jump.dial(target)).close()
        assert callers(server) == 1


async def test_closing_tells_whoever_waits(client_key: Key, known: Path) -> None:
    async with serving(silence) as mute, jumping(plan_for(mute, client_key, known)) as jump:
        waiting = asyncio.gather(*(refusal_of(jump, HostPort("x", 1)) for _ in range(3)))
        await asyncio.sleep(0.05)
        await jump.close()
        assert {error.finding for error in await waiting} == {"hop.closed"}
        assert (await refusal_of(jump, HostPort("x", 1))).finding == "hop.closed"


# --- asyncssh's channels, mended -----------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 10, 3 << 20])
@pytest.mark.parametrize("pause", [False, True])
async def test_eof_and_close_in_one_breath_is_an_eof(
    size: int, pause: bool, client_key: Key, known: Path, tmp_path: Path
) -> None:
    class Session(asyncssh.SSHTCPSession[bytes]):
        def connection_made(self, chan: asyncssh.SSHTCPChannel[bytes]) -> None:
            self.chan = chan

        def session_started(self) -> None:
            self.chan.write(bytes(size))
            self.chan.write_eof()
            self.chan.close()

    async with (
        scripted(lambda h, p: Session(), known, new_key(tmp_path / "h")) as server,
        jumping(plan_for(server, client_key, known)) as jump,
    ):
        stream = await jump.dial(HostPort("x.example", 443))
        if pause:
            stream.transport.pause_reading()
            await asyncio.sleep(0.2)
            stream.write(b"into a channel that the peer has closed")
            stream.write_eof()
            stream.transport.resume_reading()
        count = 0
        while data := await stream.read():
            count += len(data)
        assert count == size
        await until(lambda: stream.is_lost)
        assert jump.links == 1
        assert not jump._links[0].connection._channels


async def test_a_close_without_eof_is_a_loss(client_key: Key, known: Path, tmp_path: Path) -> None:
    class Session(asyncssh.SSHTCPSession[bytes]):
        def connection_made(self, chan: asyncssh.SSHTCPChannel[bytes]) -> None:
            self.chan = chan

        def session_started(self) -> None:
            self.chan.write(b"half")
            self.chan.close()

    async with (
        scripted(lambda h, p: Session(), known, new_key(tmp_path / "h")) as server,
        jumping(plan_for(server, client_key, known)) as jump,
    ):
        stream = await jump.dial(HostPort("x.example", 443))
        assert await stream.read() == b"half"
        with pytest.raises(StreamLost):
            await stream.read()


async def test_an_aborted_stream_that_was_paused_leaves_nothing(
    client_key: Key, known: Path, tmp_path: Path
) -> None:
    class Session(asyncssh.SSHTCPSession[bytes]):
        def connection_made(self, chan: asyncssh.SSHTCPChannel[bytes]) -> None:
            self.chan = chan

        def session_started(self) -> None:
            self.chan.write(bytes(1000))
            self.chan.write_eof()
            self.chan.close()

    async with (
        scripted(lambda h, p: Session(), known, new_key(tmp_path / "h")) as server,
        jumping(plan_for(server, client_key, known)) as jump,
    ):
        stream = await jump.dial(HostPort("x.example", 443))
        stream.transport.pause_reading()
        await asyncio.sleep(0.1)
        stream.abort()
        await until(lambda: stream.is_lost)
        assert jump.links == 1
        assert not jump._links[0].connection._channels
