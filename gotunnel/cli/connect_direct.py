"""`gotunnel connect` when no run is there to be asked: opens the ways out itself.

Rules:
- The blocking descriptors 0 and 1 belong to one thread each; the event loop keeps the hops alive meanwhile.
- What is buffered towards standard output is bounded: the stream is paused while the writer is behind.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import threading

from gotunnel.address import HostPort
from gotunnel.cli.ask import terminal
from gotunnel.cli.connect import read_some, write_all
from gotunnel.cli.console import Console
from gotunnel.cli.options import load_ways, log_as_configured, ssh_defaults
from gotunnel.errors import Blame, DialError, StreamLost
from gotunnel.tasks import Tasks
from gotunnel.upstream.dialer import Stream

_PIECE = 256 * 1024
_AHEAD = 4 * _PIECE  # bytes read from standard input and not yet taken by the hop


def run(args: argparse.Namespace, target: HostPort) -> int:
    """Raises ConfigError, DialError."""
    return asyncio.run(_run(args, target))


async def _run(args: argparse.Namespace, target: HostPort) -> int:
    from gotunnel.assemble import build_engine

    loaded, ways = load_ways(args)
    log_as_configured(loaded)
    engine = build_engine(
        loaded.config,
        ways,
        emit=Console(quiet=True),
        ask=terminal(),
        adjust=lambda chain: ssh_defaults(args, chain),
    )
    try:
        await _join(await engine.ways.dial(target))
    except StreamLost as error:
        raise DialError("hop.closed", f"{target}: {error}", blame=Blame.HOP) from error
    finally:
        await engine.close()
    return 0


async def _join(stream: Stream) -> None:
    """Until the target has closed its side and all was written."""
    loop = asyncio.get_running_loop()
    room = threading.Semaphore(_AHEAD // _PIECE)

    def read_all() -> None:
        while True:
            room.acquire()
            data = read_some(_PIECE)
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(pieces.put_nowait, data)
            if not data:
                return

    async def upload() -> None:
        with contextlib.suppress(StreamLost, OSError):
            while data := await pieces.get():
                stream.write(data)
                await stream.drain()
                room.release()
            stream.write_eof()

    pieces: asyncio.Queue[bytes] = asyncio.Queue()
    threading.Thread(target=read_all, daemon=True).start()
    tasks = Tasks("connect")
    tasks.spawn("upload", upload())
    try:
        while data := await stream.read(_PIECE):
            await asyncio.to_thread(write_all, data)
    finally:
        await tasks.close()
