"""The cases of growth: ten or a thousand times as much must cost ten or a thousand times as much, not more.

Rules:
- The unit is the cost of one: of a module, of a stream.  It may fall with their number, it mustn't rise.
- `growth-modules` runs in a child (`python -m tests.bench.growth DIRECTORY COUNT`), on CPU time, against a
  store in memory, so that nothing but planning and the prefetch itself is measured.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gotunnel.modproxy.gocommand import Settings
from gotunnel.modproxy.prefetch import Prefetcher
from gotunnel.modproxy.target import Target
from gotunnel.storage.store import Stored
from tests.bench.contestants import Serve
from tests.bench.many import by_connect, cpu, storm
from tests.bench.table import Aim, Case, Contender
from tests.bench.world import World
from tests.lab import proc
from tests.lab.proc import ROOT, LabError

MODULES = (100, 1000, 10_000)
STREAMS = (1, 10, 100, 1000)
LIMIT = 1.5  # times the cost of one at a tenth of it, or less


def growth_modules(world: World, size: int) -> Case:
    """go.sum grows."""
    place = world.place("growth")

    def measure(count: int) -> Callable[[], float]:
        project = place / str(count)
        write_project(project, count)
        argv = [world.python, "-m", "tests.bench.growth", str(project), str(count)]
        env = world.environment | {"PYTHONPATH": str(ROOT)}
        return lambda: float(
            json.loads(proc.run(argv, env=env, cwd=ROOT, timeout=300).stdout)["seconds"]
        ) / count * 1e6  # fmt: skip

    names = [f"{count} modules" for count in MODULES]
    contenders = [Contender(name, measure(count)) for name, count in zip(names, MODULES, strict=True)]
    title = "CPU time of plan and prefetch for each module of go.sum, store in memory"
    return Case("growth-modules", title, "us", contenders, [Aim(names[-1], LIMIT, names[0])])


def growth_streams(world: World, size: int) -> Case:
    """Streams at once grow; each opens, gets a greeting and ends, and the service's CPU time is counted."""
    host, port = world.load.address, world.load.greeting_port
    serve = world.serve("--via", "direct:")

    def measure(count: int) -> Callable[[], float]:
        return lambda: _cpu_for(serve, by_connect(host, port), count)

    names = [f"{count} at once" for count in STREAMS]
    contenders = [Contender(name, measure(count)) for name, count in zip(names, STREAMS, strict=True)]
    title = "CPU time of the service for each stream"
    return Case("growth-streams", title, "us", contenders, [Aim(names[-1], LIMIT, names[0])])


def _cpu_for(serve: Serve, steps: tuple[tuple[bytes, int], ...], at_once: int) -> float:
    rounds = max(1, 1000 // at_once)
    before = cpu([serve.pid])
    told = storm((serve.address, serve.port), steps, count=at_once * rounds, at_once=at_once)
    if told.failures:
        raise LabError(f"{len(told.failures)} streams: {told.failures[0]}")
    return (cpu([serve.pid]) - before) / (at_once * rounds) * 1e6


def growth_bytes(world: World, size: int) -> Case:
    """Streams at once that share one amount of bytes: the cost of a megabyte."""
    serve = world.serve("--via", "direct:")
    total = min(size, 256 << 20)

    def measure(count: int) -> Callable[[], float]:
        def one() -> float:
            before = cpu([serve.pid])
            with ThreadPoolExecutor(count) as pool:
                words = ["-p", "-x", f"http://127.0.0.1:{serve.port}"]
                list(pool.map(lambda _: world.rate(words, total // count), range(count)))
            return (cpu([serve.pid]) - before) / (total / 1e6) * 1000

        return one

    counts = (1, 4, 16)
    names = [f"{count} at once" for count in counts]
    contenders = [Contender(name, measure(count)) for name, count in zip(names, counts, strict=True)]
    title = f"CPU time of the service for each MB, {total / 1e6:.0f} MB over so many streams"
    return Case("growth-bytes", title, "ms", contenders, [Aim(names[-1], 3, names[0])])


# --- the child of growth-modules ------------------------------------------------------------------------


def write_project(directory: Path, count: int) -> None:
    """A go.mod that requires all of them, and their go.sum."""
    directory.mkdir(parents=True)
    modules = [f"mods{number % 97}.lab.example/team/m{number:05}" for number in range(count)]
    requires = "".join(f"\t{module} v1.0.0\n" for module in modules)
    (directory / "go.mod").write_text(f"module lab.example/main\n\ngo 1.21\n\nrequire (\n{requires})\n")
    with (directory / "go.sum").open("w") as sums:
        for module in modules:
            digest = b64encode(hashlib.sha256(module.encode()).digest()).decode()
            sums.write(f"{module} v1.0.0 h1:{digest}\n{module} v1.0.0/go.mod h1:{digest}\n")


class _Memory:
    """Everything is there at once."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    async def ensure(self, target: Target, project: None, *, priority: int) -> Stored:
        await asyncio.sleep(0)
        self.names.add(target.name)
        return Stored(target.name, 1, time.time())

    async def read(self, stored: Stored) -> AsyncGenerator[bytes, None]:
        yield b""


def main() -> int:
    """Tell {"seconds": N} of CPU; 1 unless each module's three files were fetched."""
    directory, count = Path(sys.argv[1]), int(sys.argv[2])
    memory = _Memory()
    prefetcher: Prefetcher[None] = Prefetcher(memory, memory, None, Settings(env={"GOWORK": "off"}))
    began = time.process_time()
    asyncio.run(prefetcher.run(directory, ["go", "mod", "download"]))
    seconds = time.process_time() - began
    wanted = 3 * count
    if len(memory.names) != wanted:
        sys.stderr.write(f"{len(memory.names)} of {wanted} files: {prefetcher.progress}\n")
        return 1
    print(json.dumps({"seconds": seconds}))
    return 0


GROWTH_CASES: dict[str, Callable[[World, int], Case]] = {
    "growth-modules": growth_modules,
    "growth-streams": growth_streams,
    "growth-bytes": growth_bytes,
}

if __name__ == "__main__":
    raise SystemExit(main())
