"""A run's own door to a service's module proxy, before a service that dies as told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from gotunnel.address import HostPort
from gotunnel.listener.sockets import address_of, bind
from gotunnel.modproxy import STRANGER
from gotunnel.modproxy.resume import AGAIN, Absence, Front, Persistence

BODY = bytes(range(256)) * 2000
OK = b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\nETag: "x"\r\n\r\n'
LOST = b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(STRANGER) + STRANGER

Act = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Service:
    """Does what the next of `acts` says for each request; without one it ends the connection."""

    acts: list[Act]
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    listener: asyncio.Server | None = None

    async def start(self) -> None:
        self.listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self.listener is not None
        self.listener.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                if not self.acts:
                    break
                await self.acts.pop(0)(writer)
                if writer.is_closing():
                    break
        writer.transport.abort()


def says(data: bytes, *, cut: bool = False) -> Act:
    async def act(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if cut:
            writer.close()
            await writer.wait_closed()

    return act


@dataclass
class Child:
    """What go is to the door."""

    where: HostPort

    async def get(self, *paths: str, method: str = "GET") -> list[tuple[int, bytes, bool]]:
        """(status, body, whole) of requests on one connection."""
        found = []
        reader, writer = await asyncio.open_connection(self.where.host, self.where.port)
        for path in paths:
            writer.write(f"{method} {path} HTTP/1.1\r\nHost: {self.where}\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            status = int(head.split()[1])
            if b"chunked" in head:
                body = await self._chunks(reader)
                found.append((status, body, True))
                continue
            size = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
            body = b"" if method == "HEAD" else await self._read(reader, size)
            found.append((status, body, method == "HEAD" or len(body) == size))
        writer.close()
        return found

    async def _read(self, reader: asyncio.StreamReader, size: int) -> bytes:
        body = b""
        with contextlib.suppress(ConnectionError):
            while len(body) < size and (piece := await reader.read(size - len(body))):
                body += piece
        return body

    async def _chunks(self, reader: asyncio.StreamReader) -> bytes:
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
        return body


class House:
    """A service, the door before it, and who knows of the run."""

    def __init__(self, *acts: Act) -> None:
        self.service = Service(list(acts))
        self.known = asyncio.Event()
        self.known.set()
        self.spare: tuple[HostPort, str] | None = None

    async def readmitted(self) -> None:
        await self.known.wait()

    async def instead(self) -> tuple[HostPort, str] | None:
        return self.spare

    @contextlib.asynccontextmanager
    async def open(self, path: str = "/secret", patience: float = 5.0) -> AsyncIterator[Child]:
        await self.service.start()
        there = HostPort("127.0.0.1", self.service.port)
        self.front = Front(there, path, self.readmitted, instead=self.instead, patience=patience)
        listening = bind(HostPort("127.0.0.1", 0), "test")
        where = address_of(listening)
        await self.front.start(listening)
        try:
            yield Child(where)
        finally:
            await self.front.close()
            await self.service.stop()


async def test_answers_pass_as_they_are_over_one_connection() -> None:
    gone = b"HTTP/1.1 410 Gone\r\nContent-Length: 3\r\n\r\nno\n"
    house = House(says(OK % len(BODY) + BODY), says(gone), says(OK % 0))
    async with house.open() as child:
        found = await child.get("/secret/a/@v/v1.zip", "/secret/b/@v/list", "/secret/c/@v/list")
    assert found == [(200, BODY, True), (410, b"no\n", True), (200, b"", True)]
    assert house.service.connections == 1
    assert house.service.heads[0].startswith(b"GET /secret/a/@v/v1.zip HTTP/1.1\r\n")
    assert b"host: 127.0.0.1:%d\r\n" % house.service.port in house.service.heads[0].lower()


async def test_a_body_without_a_length_passes_too() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    house = House(says(chunked))
    async with house.open() as child:
        assert await child.get("/secret/a/@v/list") == [(200, b"abcde", True)]


async def test_a_head_is_asked_for_as_a_head() -> None:
    house = House(says(OK % len(BODY)), says(OK % len(BODY)))
    async with house.open() as child:
        found = await child.get("/secret/a/@v/v1.zip", "/secret/b/@v/v1.zip", method="HEAD")
    assert found == [(200, b"", True)] * 2


@pytest.mark.parametrize("given", [0, 1, 300_000, len(BODY) - 1])
async def test_a_body_that_broke_off_is_gone_on_with_where_it_was(given: int) -> None:
    """The child notices nothing but a pause, wherever the service died."""
    house = House(says(OK % len(BODY) + BODY[:given], cut=True), says(OK % len(BODY) + BODY))
    async with house.open() as child:
        assert await child.get("/secret/a/@v/v1.zip") == [(200, BODY, True)]
    assert len(house.service.heads) == 2


async def test_a_service_that_is_started_anew_is_waited_for_and_asked_when_it_knows_us() -> None:
    house, died = House(), asyncio.Event()

    async def die(writer: asyncio.StreamWriter) -> None:
        await house.service.stop()
        house.known.clear()
        await says((OK % len(BODY) + BODY)[:1000], cut=True)(writer)
        died.set()

    house.service.acts = [die, says(OK % len(BODY) + BODY)]
    async with house.open() as child:
        async with asyncio.TaskGroup() as group:
            getting = group.create_task(child.get("/secret/a/@v/v1.zip"))
            await died.wait()
            await house.service.start()
            await asyncio.sleep(0.3)
            assert len(house.service.heads) == 1, "nobody asks before the run is let in"
            house.known.set()
        assert getting.result() == [(200, BODY, True)]


async def test_one_that_does_not_know_us_yet_is_asked_again() -> None:
    house = House(says(LOST), says(LOST), says(OK % 3 + b"abc"))
    async with house.open() as child:
        assert await child.get("/secret/a/@v/list") == [(200, b"abc", True)]


async def test_one_that_never_knows_us_says_so_in_the_end() -> None:
    house = House(*[says(LOST)] * 100)
    async with house.open(patience=0.3) as child:
        assert await child.get("/secret/a/@v/list") == [(404, STRANGER, True)]


async def test_one_that_stays_away_is_given_up_in_a_line() -> None:
    house = House()
    async with house.open(patience=0.3) as child:
        await house.service.stop()
        [(status, body, _)] = await child.get("/secret/a/@v/list")
        assert (status, house.front.gave_up) == (502, True)
        where = HostPort("127.0.0.1", house.service.port)
        assert body == f"gotunnel: the service at {where} ended its answer for good\n".encode()


async def test_for_one_that_stays_away_the_run_goes_on_alone() -> None:
    """In the middle of a body, too, and for all that is asked from then on."""
    house, alone = House(), Service([says(OK % len(BODY) + BODY)] * 2)

    async def die(writer: asyncio.StreamWriter) -> None:
        await house.service.stop()
        await says((OK % len(BODY) + BODY)[:1000], cut=True)(writer)

    house.service.acts = [die]
    await alone.start()
    house.spare = HostPort("127.0.0.1", alone.port), "/another"
    async with house.open(patience=0.3) as child:
        both = await asyncio.gather(*(child.get("/secret/a/@v/v1.zip") for _ in range(2)))
    await alone.stop()
    assert both == [[(200, BODY, True)]] * 2
    assert {head.split()[1] for head in alone.heads} == {b"/another/a/@v/v1.zip"}


async def test_another_answer_is_never_mixed_with_the_first() -> None:
    """Other bytes of the same length under the same name: cut off, for the child to see."""
    other = BODY[:500] + b"?" + BODY[501:]
    house = House(says((OK % len(BODY) + BODY)[:2000], cut=True), says(OK % len(BODY) + other))
    async with house.open() as child:
        [(status, body, whole)] = await child.get("/secret/a/@v/v1.zip")
    assert (status, whole) == (200, False)
    assert BODY.startswith(body)


@pytest.mark.parametrize(
    "second", [OK % 3 + b"abc", b"HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nno\n"], ids=["length", "status"]
)
async def test_nor_is_one_of_another_length_or_status(second: bytes) -> None:
    house = House(says((OK % len(BODY) + BODY)[:2000], cut=True), says(second))
    async with house.open() as child:
        [(_, body, whole)] = await child.get("/secret/a/@v/v1.zip")
    assert not whole
    assert BODY.startswith(body)


async def test_a_service_that_cuts_again_and_again_is_asked_no_more() -> None:
    cut = says((OK % len(BODY) + BODY)[:1000], cut=True)
    house = House(*[cut] * 50)
    async with house.open() as child:
        [(_, body, whole)] = await child.get("/secret/a/@v/v1.zip")
    assert not whole
    assert BODY.startswith(body)
    assert len(house.service.heads) == 1 + AGAIN


async def test_a_stranger_on_this_machine_asks_nothing_of_the_service() -> None:
    house = House(says(OK % 3 + b"abc"))
    async with house.open() as child:
        assert await child.get("/secre/a/@v/list") == [(404, STRANGER, True)]
        assert await child.get("/") == [(404, STRANGER, True)]
        assert not house.service.heads
        assert await child.get("/secret/a/@v/list") == [(200, b"abc", True)]


async def test_a_service_that_wants_credentials_judges_them_itself() -> None:
    house = House(says(OK % 3 + b"abc"))
    async with house.open(path="") as child:
        assert await child.get("/a/@v/list") == [(200, b"abc", True)]


async def test_what_is_no_http_is_cut_off() -> None:
    house = House()
    async with house.open() as child:
        with socket.create_connection((child.where.host, child.where.port)) as sock:
            sock.sendall(b"\x16\x03\x01\x02\x00\r\n\r\n")
            sock.settimeout(5)
            with contextlib.suppress(ConnectionError):
                assert await asyncio.to_thread(sock.recv, 10) == b""


def test_when_to_ask_again() -> None:
    """A service that is away has its time; one that is there has its number of tries, anew with each byte."""
    away = Persistence(Absence(10.0))
    given_up = [away.again(now, reached=False, moved=False) is None for now in (0, 5, 9.9, 10)]
    assert given_up == [False, False, False, True]
    there = Persistence(Absence(10.0))
    assert [there.again(0, reached=True, moved=False) for _ in range(AGAIN + 1)] == [0.0] * AGAIN + [None]
    moving = Persistence(Absence(10.0))
    assert all(moving.again(now, reached=True, moved=True) == 0.0 for now in range(100))


def test_all_requests_wait_for_a_service_together() -> None:
    """go asks for the next file when one couldn't be had: that isn't waited for as long again."""
    absence = Absence(10.0)
    assert Persistence(absence).again(0, reached=False, moved=False)
    assert Persistence(absence).again(11, reached=False, moved=False) is None
    absence.since = None  # it answered
    assert Persistence(absence).again(30, reached=False, moved=False)
    assert (absence.left(32), absence.left(50)) == (8.0, 0.0)
