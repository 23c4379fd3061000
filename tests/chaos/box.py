"""A box on the way to a server: `python -m tests.chaos.box ADDRESS PORT TO_PORT CONTROL`.

Rules:
- It leads each connection to TO_PORT of the same address, at `rate` bytes a second each way.
- The control file (JSON: rate, flip) is looked at with each piece.  `flip` is the chance of a piece to have
  one byte changed; the first piece of a connection, which has the server's greeting, stays as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.lab import proc
from tests.lab.proc import Place

PIECE = 16384
RATE = 600_000.0


@dataclass(frozen=True, slots=True)
class Control:
    """`rate` in bytes a second, `flip` from 0 to 1."""

    rate: float = RATE
    flip: float = 0.0


class Box(proc.PythonService):
    """Such a box."""

    def __init__(self, directory: Path, to_port: int, *, place: Place, address: str, port: int) -> None:
        super().__init__(directory, place=place, address=address, port=port)
        self._to, self._control = to_port, directory / "control.json"
        self.set(Control())

    def set(self, control: Control) -> None:
        """Do so from the next piece on."""
        new = self._control.with_suffix(".new")
        new.write_text(json.dumps(asdict(control)))
        new.replace(self._control)

    def _argv(self) -> list[str]:
        words = [self.listen, str(self.port), str(self._to), str(self._control)]
        return [sys.executable, "-m", "tests.chaos.box", *words]


class _Told:
    """The control file as it stands."""

    def __init__(self, path: Path) -> None:
        self._path, self._seen, self._now = path, 0, Control()

    def now(self) -> Control:
        stamp = self._path.stat().st_mtime_ns
        if stamp != self._seen:
            self._seen, self._now = stamp, Control(**json.loads(self._path.read_text()))
        return self._now


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, told: _Told) -> None:
    first = True
    with contextlib.suppress(OSError):
        while data := await reader.read(PIECE):
            control = told.now()
            if not first and random.random() < control.flip:
                at = random.randrange(len(data))
                data = data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :]
            first = False
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(len(data) / control.rate)
        if writer.can_write_eof():
            writer.write_eof()


async def _serve(address: str, port: int, to: int, told: _Told) -> None:
    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(address, to)
            with contextlib.closing(far_writer):
                await asyncio.gather(_pump(reader, far_writer, told), _pump(far_reader, writer, told))

    server = await asyncio.start_server(lead, address, port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), _Told(Path(sys.argv[4]))))
