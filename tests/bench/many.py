"""Many connections at once through a proxy: one epoll loop that opens, waits for the greeting, and closes."""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.load import GREETING
from tests.lab.proc import LabError

Steps = tuple[tuple[bytes, int], ...]  # what is said, and how many bytes of answer it gets (0: a head)


def by_connect(host: str, port: int) -> Steps:
    """The dialogue of CONNECT."""
    return ((f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode(), 0),)


def by_socks(host: str, port: int) -> Steps:
    """The dialogue of SOCKS5, to an IPv4 address."""
    where = socket.inet_aton(host) + port.to_bytes(2, "big")
    return ((b"\x05\x01\x00", 2), (b"\x05\x01\x00\x01" + where, 10))


@dataclass(slots=True)
class _One:
    sock: socket.socket
    started: float
    step: int = -1  # of the dialogue; -1: connecting
    got: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class Told:
    """What came of it: seconds of each connection to its greeting's last byte, failures, seconds in all."""

    taken: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def percentile(self, share: float) -> float:
        """In milliseconds, e.g. 0.99; 0 where nothing succeeded."""
        ranked = sorted(self.taken)
        return ranked[math.ceil(share * len(ranked)) - 1] * 1000 if ranked else 0.0


def storm(
    proxy: tuple[str, int], steps: Steps, *, count: int, at_once: int, timeout: float = 60.0,
    greeting: bytes = GREETING, keep: list[socket.socket] | None = None,
) -> Told:  # fmt: skip
    """Open `count` connections, `at_once` of them at a time; with `keep` they are left open in it."""
    told = Told()
    poll = select.epoll()
    open_: dict[int, _One] = {}
    left = count
    began = time.perf_counter()

    def over(one: _One, failure: str = "") -> None:
        del open_[one.sock.fileno()]
        poll.unregister(one.sock)
        if failure:
            told.failures.append(failure)
        else:
            told.taken.append(time.perf_counter() - one.started)
        if keep is not None and not failure:
            keep.append(one.sock)
        else:
            one.sock.close()

    def say(one: _One) -> None:
        one.step += 1
        one.got.clear()
        if one.step < len(steps):
            one.sock.send(steps[one.step][0])
        elif not greeting:
            over(one)

    def hear(one: _One) -> None:
        data = one.sock.recv(4096)
        if not data:
            raise ConnectionError(f"closed after {bytes(one.got)!r}")
        one.got += data
        while one.step < len(steps):
            wanted = steps[one.step][1] or one.got.find(b"\r\n\r\n") + 4
            if len(one.got) < max(wanted, 2) or wanted == 3:
                return
            answer, rest = bytes(one.got[:wanted]), bytes(one.got[wanted:])
            if answer[:1] == b"H" and b" 200" not in answer.partition(b"\r\n")[0]:
                raise ConnectionError(answer.partition(b"\r\n")[0].decode("latin-1"))
            if answer[:1] == b"\x05" and answer[1]:
                raise ConnectionError(f"SOCKS reply {answer[1]}")
            say(one)
            one.got += rest
        if greeting and one.got == greeting:
            over(one)

    with contextlib.closing(poll):
        while left or open_:
            while left and len(open_) < at_once:
                left -= 1
                sock = socket.socket()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                one = _One(sock, time.perf_counter())
                with contextlib.suppress(BlockingIOError):
                    sock.connect(proxy)
                open_[sock.fileno()] = one
                poll.register(sock, select.EPOLLOUT)
            for number, event in poll.poll(1.0):
                one = open_[number]
                try:
                    if event & select.EPOLLOUT and one.step < 0:
                        if error := one.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                            raise OSError(error, "connect")
                        poll.modify(one.sock, select.EPOLLIN)
                        say(one)
                    elif event & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                        hear(one)
                except OSError as error:
                    over(one, str(error))
            if time.perf_counter() - began > timeout:
                for one in list(open_.values()):
                    over(one, f"nothing for {timeout:g} s")
                left = 0
    told.seconds = time.perf_counter() - began
    return told


@contextlib.contextmanager
def kept(proxy: tuple[str, int], steps: Steps, count: int) -> Iterator[None]:
    """So many idle tunnels to a far end that never speaks.  Raises LabError unless all were opened."""
    socks: list[socket.socket] = []
    try:
        told = storm(proxy, steps, count=count, at_once=200, greeting=b"", keep=socks)
        if told.failures:
            raise LabError(f"{len(told.failures)} of {count} tunnels: {told.failures[0]}")
        yield
    finally:
        for sock in socks:
            sock.close()


def cpu(pids: Iterable[int]) -> float:
    """Seconds of CPU that processes have used, threads and awaited children that are gone included."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime (proc(5) counts from pid)
    return ticks / os.sysconf("SC_CLK_TCK")
