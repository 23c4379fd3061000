"""A jump host that was taken over: it has our connection, and wants our machine, our keys or our memory."""

# ruff: noqa: E501, PT012
from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.packet import Boolean, String, UInt32

from gotunnel.address import HostPort
from gotunnel.errors import StreamLost
from gotunnel.upstream.ssh_link import WINDOW
from tests.jumps import jumping, plan_for, scripted
from tests.lab.keys import new_key
from tests.peers import refusal_of, say, serving

TARGET = HostPort("t.example", 443)
ESCAPES = "\x1b]0;owned\x07\x1b[2J\r\ngotunnel: all is well\u202e"
OPEN, DATA, GLOBAL, REFUSED = 90, 94, 80, 82  # RFC 4250 §4.1.2
Attack = Callable[[Any, Any], Awaitable[None]]


class Taken:
    """The server's end of one connection: `attack` is done to it when a channel is open."""

    def __init__(self, attack: Attack) -> None:
        self._attack = attack
        self.done = asyncio.Event()
        self.error: BaseException | None = None

    def requested(self, host: str, port: int) -> Callable[..., Awaitable[None]]:
        async def session(reader: Any, writer: Any) -> None:
            try:
                await self._attack(writer.channel.get_connection(), writer)
            except BaseException as error:
                self.error = error
            finally:
                self.done.set()
            while data := await reader.read(65536):
                writer.write(data)

        return session

    async def finished(self) -> None:
        async with asyncio.timeout(60):
            await self.done.wait()
        if self.error is not None:
            raise self.error


@pytest.fixture
def known(tmp_path: Path) -> Path:
    return tmp_path / "known_hosts"


def hostile(requested: Any, known: Path, tmp_path: Path, **options: Any) -> Any:
    return scripted(requested, known, new_key(tmp_path / f"host-{len(list(tmp_path.iterdir()))}"), **options)


async def test_it_opens_no_channel_to_us(known: Path, tmp_path: Path) -> None:
    """Not to our network, our display, our agent, nor a shell; and no port of ours is listened on for it."""
    reached: list[object] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(writer)

    refused: dict[str, int] = {}

    async def attack(conn: Any, writer: Any) -> None:
        host, port = String(here.host), UInt32(here.port)
        asks: dict[bytes, tuple[bytes, ...]] = {
            b"forwarded-tcpip": (host, port, String("x"), UInt32(1)),
            b"direct-tcpip": (host, port, String("x"), UInt32(1)),
            b"x11": (String("x"), UInt32(1)),
            b"auth-agent@openssh.com": (),
            b"session": (),
            b"direct-streamlocal@openssh.com": (String("/run/docker.sock"), String(""), UInt32(0)),
            b"forwarded-streamlocal@openssh.com": (String("/run/docker.sock"), String("")),
            b"tun@openssh.com": (UInt32(1), UInt32(0)),
        }
        for kind, words in asks.items():
            with pytest.raises(asyncssh.ChannelOpenError) as caught:
                await conn.create_tcp_channel()._open(kind, *words)
            refused[kind.decode()] = caught.value.code
        for request in (b"tcpip-forward", b"streamlocal-forward@openssh.com", b"cancel-tcpip-forward"):
            words = (String("127.0.0.1"), UInt32(0)) if b"tcpip" in request else (String("/tmp/x"),)
            kind, _ = await conn._make_global_request(request, *words)
            assert kind == REFUSED, request

    taken = Taken(attack)
    async with (
        serving(note) as here,
        hostile(taken.requested, known, tmp_path) as server,
        jumping(plan_for(server, None, known)) as jump,
    ):
        stream = await jump.dial(TARGET)
        await taken.finished()
        assert len(refused) == 8
        assert await say(stream, b"still ours") == b"still ours"
        assert reached == []


async def test_a_flood_of_requests_is_answered_and_not_kept(known: Path, tmp_path: Path) -> None:
    class Answered:
        """The flood's replies are nobody's."""

        count = 0

        def __bool__(self) -> bool:
            return True

        def pop(self, _: int) -> Any:
            self.count += 1
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            done.cancel()
            return done

    answered = Answered()

    async def attack(conn: Any, writer: Any) -> None:
        conn._global_request_waiters = answered
        for _ in range(5000):
            conn.send_packet(GLOBAL, String(b"\x1b[31m-flood"), Boolean(True))
        async with asyncio.timeout(50):
            while answered.count < 5000:  # noqa: ASYNC110 - asyncssh has no event for it
                await asyncio.sleep(0.01)
        conn._global_request_waiters = []

    taken = Taken(attack)
    async with (
        hostile(taken.requested, known, tmp_path) as server,
        jumping(plan_for(server, None, known)) as jump,
    ):
        stream = await jump.dial(TARGET)
        await taken.finished()
        assert await say(stream, b"alive") == b"alive"
        [link] = jump._links
        assert link.connection._global_request_queue == []


async def test_it_can_send_no_more_than_was_asked_for(known: Path, tmp_path: Path) -> None:
    """Bytes beyond the window end the connection; what nobody reads is bounded by it."""

    async def attack(conn: Any, writer: Any) -> None:
        channel = UInt32(writer.channel._send_chan)
        for _ in range(3 * WINDOW // 32768):
            if conn._transport is None:
                return
            conn.send_packet(DATA, channel, String(bytes(32768)))
            await asyncio.sleep(0)

    taken = Taken(attack)
    async with (
        hostile(taken.requested, known, tmp_path) as server,
        jumping(plan_for(server, None, known)) as jump,
    ):
        stream = await jump.dial(TARGET)
        await taken.finished()
        received = 0
        with pytest.raises(StreamLost):
            async with asyncio.timeout(50):
                while data := await stream.read(1 << 20):
                    received += len(data)
        assert received <= WINDOW


RAW = {
    "a packet of two gigabytes": lambda: itertools.repeat(b"\x7f\xff\xff\xff" + b"A" * 65532, 200),
    "noise": lambda: itertools.repeat(bytes(range(256)) * 256, 200),
}


@pytest.mark.parametrize("kind", RAW)
async def test_a_packet_without_an_end_ends_the_connection(kind: str, known: Path, tmp_path: Path) -> None:
    async def attack(conn: Any, writer: Any) -> None:
        for piece in RAW[kind]():
            if conn._transport is None or conn._transport.is_closing():
                return
            conn._transport.write(piece)
            await asyncio.sleep(0)

    taken = Taken(attack)
    async with (
        hostile(taken.requested, known, tmp_path) as server,
        jumping(plan_for(server, None, known)) as jump,
    ):
        stream = await jump.dial(TARGET)
        with pytest.raises(StreamLost):
            async with asyncio.timeout(50):
                while await stream.read(1 << 20):
                    pass
        assert jump.links == 0


def packet(kind: int, body: bytes = b"") -> bytes:
    """In clear, as before the key exchange."""
    payload = bytes([kind]) + body
    padding = 8 - (5 + len(payload)) % 8
    padding += 8 if padding < 4 else 0
    return UInt32(1 + len(payload) + padding) + bytes([padding]) + payload + bytes(padding)


EARLY: dict[str, Callable[[], Any]] = {
    "lines before the version, for ever": lambda: itertools.repeat(b"\x1b[31mwelcome\r\n" * 500),
    "a line that never ends": lambda: itertools.repeat(b"A" * 65536),
    "a version that never ends": lambda: itertools.chain([b"SSH-2.0-"], itertools.repeat(b"A" * 65536)),
    "a channel before any key": lambda: [b"SSH-2.0-x\r\n", packet(OPEN, String("session") + bytes(12))],
    "admitted before any key": lambda: [b"SSH-2.0-x\r\n", packet(52)],
    "ignored packets for ever": lambda: itertools.chain([b"SSH-2.0-x\r\n"], itertools.repeat(packet(2, String("x" * 1000)) * 50)),
    "a packet of four gigabytes": lambda: itertools.chain([b"SSH-2.0-x\r\n", b"\xff" * 4], itertools.repeat(b"A" * 65536)),
    "an empty packet": lambda: [b"SSH-2.0-x\r\n", bytes(64)],
    "a goodbye that draws": lambda: [b"SSH-2.0-x\r\n", packet(1, UInt32(2) + String(ESCAPES) + String(""))],
    "a version that draws": lambda: [b"SSH-1.0-\x1b[2J\x07\r\n"],
}  # fmt: skip


@pytest.mark.parametrize("kind", EARLY)
async def test_before_the_keys_nothing_is_believed_or_kept(kind: str, known: Path) -> None:
    sent = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        for piece in EARLY[kind]():
            writer.write(piece)
            sent += len(piece)
            await writer.drain()
        await reader.read()

    async with serving(talk) as server:
        known.write_text("")
        async with jumping(plan_for(server, None, known), handshake_timeout=2.0) as jump:
            error = await refusal_of(jump, TARGET)  # asserts that its text can be printed
            assert error.charges_hop
            assert "\u202e" not in error.detail
            assert jump.links == 0


async def test_what_it_says_of_a_refusal_draws_nothing(known: Path, tmp_path: Path) -> None:
    def requested(host: str, port: int) -> Any:
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, ESCAPES)

    async with hostile(requested, known, tmp_path) as server, jumping(plan_for(server, None, known)) as jump:
        error = await refusal_of(jump, TARGET)
        assert "\u202e" not in error.detail
        assert "all is well" in error.detail  # it was heard, and cleaned


async def test_a_changed_key_is_found_before_anything_is_offered(known: Path, tmp_path: Path) -> None:
    offered: list[str] = []

    class Server(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            offered.append(username)
            return True

    mine, theirs = new_key(tmp_path / "mine"), new_key(tmp_path / "theirs")
    client = new_key(tmp_path / "client")
    listener = await asyncssh.create_server(Server, "127.0.0.1", 0, server_host_keys=[str(theirs.private)])
    try:
        server = HostPort("127.0.0.1", listener.get_port())
        known.write_text(f"[127.0.0.1]:{server.port} {mine.public}\n")
        for mode in ("accept-new", "yes"):
            async with jumping(plan_for(server, client, known, host_key_mode=mode)) as jump:
                error = await refusal_of(jump, TARGET)
                assert error.finding == "ssh.host-key-changed"
        assert offered == []
    finally:
        listener.close()
        await listener.wait_closed()


async def test_new_keys_all_the_time_cost_time_and_no_byte(known: Path, tmp_path: Path) -> None:
    taken = Taken(lambda conn, writer: asyncio.sleep(0))
    async with (
        hostile(taken.requested, known, tmp_path, rekey_bytes=20_000) as server,
        jumping(plan_for(server, None, known)) as jump,
    ):
        stream = await jump.dial(TARGET)
        for number in range(5):
            text = bytes([number]) * 30_000
            async with asyncio.timeout(30):
                assert await say(stream, text) == text
