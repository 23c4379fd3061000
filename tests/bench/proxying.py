"""The cases of a local proxy: bulk through an upstream, new connections, idle tunnels.

Rules:
- A rival that isn't installed, or that can't do the job, is named below the table and no failure.
- On a machine that others use too, what has more processes or threads gets more of it: `cpu us`, the CPU time
  of one connection, doesn't depend on that.
- Latencies contain the client's own epoll loop and the far end; `no proxy` shows how much that is.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.contestants import SHAPES, BehindSquid, Serve, Splicer, start
from tests.bench.many import Told, by_connect, by_socks, cpu, kept, storm
from tests.bench.table import Aim, Case, Contender, Sample
from tests.bench.world import World
from tests.lab import proc
from tests.lab.proc import LabError

BOUND, OURS = "the kernel's splice", "gotunnel"


class _Rivals:
    """Those that could be started, as (label, port, speaks SOCKS), and words about the others."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.running: list[tuple[str, int, bool]] = []
        self.pids: dict[int, int] = {}  # by port
        self.notes: list[str] = []

    def add(self, name: str, scheme: str = "", upstream: int = 0) -> None:
        rivals = self.world.rivals
        shape = SHAPES.get(name)
        if upstream and shape is not None and scheme not in shape.upstreams:
            return
        try:
            if rivals.program(name) is None:
                self.notes.append(f"not installed: {name} ({rivals.absent[name]})")
                return
            where = self.world.place(name)
            made = start(rivals, name, where, scheme, upstream) if shape else BehindSquid(where, upstream)
            assert made is not None
            self.world.keep(made)
        except LabError as error:
            self.notes.append(f"{name} couldn't be started: {str(error).strip().splitlines()[0]}")
            return
        self.pids[made.port] = made.pid
        self.running.append((f"{name} {rivals.version(name)}", made.port, bool(shape and shape.socks)))

    def named(self, name: str) -> list[str]:
        """The label of one, if it runs."""
        return [label for label, _, _ in self.running if label.startswith(f"{name} ")]


def _tried(measure: Callable[[], float], notes: list[str], label: str) -> Callable[[], float]:
    """A rival's measurement; where it fails 0, and a note."""

    def one() -> float:
        try:
            return measure()
        except LabError as error:
            words = f"{label} failed: {str(error).strip().splitlines()[-1][:120]}"
            if words not in notes:
                notes.append(words)
            return 0.0

    return one


def _bulk(world: World, size: int, scheme: str) -> Case:
    upstream = world.keep(Splicer(world.place("upstream"))).port
    bound = world.keep(Splicer(world.place("bound"), f"127.0.0.1:{upstream}")).port
    via = {"http": "http", "socks5": "socks5h"}[scheme]
    ours = world.serve("--via", f"{via}://127.0.0.1:{upstream}").port
    rivals = _Rivals(world)
    for name in ("tinyproxy", "squid", "dante", "pproxy", "px", "proxy.py", "gost", "glider"):
        if name != "squid" or scheme == "http":
            rivals.add(name, scheme, upstream)

    def rate(port: int, socks: bool) -> Callable[[], float]:
        words = ["--socks5", f"127.0.0.1:{port}"] if socks else ["-p", "-x", f"http://127.0.0.1:{port}"]
        return lambda: world.rate(words, size)

    return Case(
        f"bulk-proxy-{scheme}",
        f"one download of {size / 1e6:.0f} MB through a local proxy and a {scheme} upstream, loopback",
        "MB/s",
        [
            Contender(OURS, rate(ours, socks=False)),
            Contender(BOUND, rate(bound, socks=False)),
            *(Contender(label, _tried(rate(port, socks), rivals.notes, label))
              for label, port, socks in rivals.running),
        ],
        [Aim(OURS, 0.85, BOUND), *(Aim(OURS, 3, label) for label in rivals.named("tinyproxy"))],
        notes=rivals.notes,
    )  # fmt: skip


def bulk_proxy_http(world: World, size: int) -> Case:
    """One large download through an HTTP upstream."""
    return _bulk(world, size, "http")


def bulk_proxy_socks(world: World, size: int) -> Case:
    """One large download through a SOCKS upstream."""
    return _bulk(world, size, "socks5")


# --- new connections ------------------------------------------------------------------------------------

COUNTS = {1: 300, 100: 2000, 1000: 3000}  # connections in all, by how many are open at once


def connections_1(world: World, size: int) -> Case:
    """New connections, one after another."""
    return _connections(world, 1)


def connections_100(world: World, size: int) -> Case:
    """New connections, a hundred at once."""
    return _connections(world, 100)


def connections_1000(world: World, size: int) -> Case:
    """New connections, a thousand at once."""
    return _connections(world, 1000)


def _connections(world: World, at_once: int) -> Case:
    raise_limit()
    count = COUNTS[at_once]
    host, port = world.load.address, world.load.greeting_port
    rivals = _Rivals(world)
    for name in ("tinyproxy", "px", "pproxy", "proxy.py", "microsocks", "gost", "glider"):
        rivals.add(name)
    serve = world.serve("--via", "direct:")
    ours = serve.port
    rivals.pids[ours] = serve.pid

    def measure(proxy: int, socks: bool) -> Callable[[], float]:
        steps = (by_socks if socks else by_connect)(host, port)

        def one() -> float:
            family = proc.family(rivals.pids[proxy])
            before = cpu(family)
            told = storm(("127.0.0.1", proxy), steps, count=count, at_once=at_once)
            sample = _sample(told)
            sample.also["cpu us"] = (cpu(family) - before) / count * 1e6
            return sample

        return one

    aimed = [label for name in ("px", "pproxy", "tinyproxy") for label in rivals.named(name)]
    return Case(
        f"connections-{at_once}",
        f"new connections a second, {at_once} at once ({count} in all); ms from the first SYN to the "
        "greeting's last byte",
        "conn/s",
        [
            Contender(OURS, measure(ours, socks=False)),
            Contender("no proxy", lambda: _sample(storm((host, port), (), count=count, at_once=at_once))),
            *(Contender(label, measure(number, socks)) for label, number, socks in rivals.running),
        ],
        [
            Aim(OURS, 0, of="failed"),
            *(Aim(OURS, 1.0, label) for label in aimed),
            *(Aim(OURS, 1.0, label, of=what) for label in aimed for what in ("p50 ms", "p99 ms")),
        ],
        notes=rivals.notes,
    )  # fmt: skip


def _sample(told: Told) -> Sample:
    rate = len(told.taken) / told.seconds
    also = {"p50 ms": told.percentile(0.5), "p99 ms": told.percentile(0.99), "failed": len(told.failures)}
    return Sample(rate, also)


# --- idle tunnels ---------------------------------------------------------------------------------------

TUNNELS = 5000


def idle(world: World, size: int) -> Case:
    """Memory of tunnels that carry nothing."""
    raise_limit()
    host, port = world.load.address, world.load.hold_port
    steps = by_connect(host, port)
    notes: list[str] = []

    def of_ours() -> float:  # each time a new one, whose memory is its own
        ways = ["--via", "direct:"]
        with Serve(world.place("serve"), world.gotunnel, world.environment, ways) as server:
            return _memory(server, steps)

    def of(name: str) -> Callable[[], float]:
        def one() -> float:
            server = start(world.rivals, name, world.place(name))
            assert server is not None
            with server:
                return _memory(server, steps)

        return one

    contenders = [Contender(OURS, of_ours)]
    for name in ("tinyproxy", "pproxy", "gost", "glider"):
        if world.rivals.program(name) is None:
            notes.append(f"not installed: {name} ({world.rivals.absent[name]})")
        else:
            label = f"{name} {world.rivals.version(name)}"
            contenders.append(Contender(label, _tried(of(name), notes, label)))
    title = f"memory per tunnel, {TUNNELS} idle tunnels (resident, with its children)"
    return Case("idle", title, "KB", contenders, [Aim(OURS, 40)], warm=False, notes=notes)


def _memory(server: proc.Service, steps: tuple[tuple[bytes, int], ...]) -> float:
    where = (server.address, server.port)
    with kept(where, steps, 10):  # what is imported or allocated once
        pass
    time.sleep(0.5)
    before = resident(server.pid)
    with kept(where, steps, TUNNELS):
        time.sleep(1)
        return (resident(server.pid) - before) / 1024 / TUNNELS


def resident(pid: int) -> int:
    """Bytes of memory of a process and its descendants."""
    pages = 0
    for member in proc.family(pid):
        pages += int(Path(f"/proc/{member}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def raise_limit() -> None:
    """As many open files as the system lets us have, here and in what is started from now on."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


PROXY_CASES: dict[str, Callable[[World, int], Case]] = {
    "bulk-proxy-http": bulk_proxy_http,
    "bulk-proxy-socks": bulk_proxy_socks,
    "connections-1": connections_1,
    "connections-100": connections_100,
    "connections-1000": connections_1000,
    "idle": idle,
}
