"""A client, jump hosts that it reaches through boxes, two mirrors behind them, and a small disk.

    client 10.77.N.1 ---- jumpN 10.77.N.2: box 22 -> sshd 2222 | 10.80.0.1N -- bridge -- mirrors 10.80.0.1, .2
           10.77.9.1 ---- names 10.77.9.2

Rules:
- The client's loopback carries what goes between a program and its own proxy, and nothing else.
- A corpus for each project, so that a run can begin with nothing while others' files are in the store.
- The disk is a tmpfs of DISK bytes.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from tests.chaos.box import Box
from tests.chaos.names import Names
from tests.lab import gotool, keys, netns, proc, sshd
from tests.lab.corpus import Corpus, realistic_sizes
from tests.lab.netns import Namespace
from tests.lab.origin import Origin
from tests.lab.pki import Authority
from tests.lab.sshd import Sshd

DISK = 64 << 20  # bytes
INNER = "10.80.0.{}"
S = TypeVar("S", bound=proc.Service)


def able() -> tuple[bool, str]:
    """Whether such a lab can be made here; else why not."""
    checks = (netns.can_make_namespaces(), sshd.can_run_sshd(), gotool.can_run_go())
    return next((check for check in checks if not check[0]), (True, ""))


@dataclass(slots=True)
class Hop:
    """A jump host, and the box before it; `name` is what the client's name server knows."""

    name: str
    space: Namespace
    address: str
    sshd: Sshd
    box: Box

    @property
    def chain(self) -> str:
        """As `ssh -J` takes it."""
        return f"{self.sshd.user}@{self.name}"


class ChaosLab:
    """All of it, a context manager."""

    def __init__(self, directory: Path, *, hops: int = 3, mirrors: int = 2, modules: int = 40) -> None:
        self.directory = directory
        self.corpus = Corpus(directory / "goproxy", count=modules, levels=3, filler=realistic_sizes(modules))
        self.hops: list[Hop] = []
        self.mirrors: list[Origin] = []
        self.disk = directory / "disk"
        self._counts, self._stack, self._numbers = (hops, mirrors), contextlib.ExitStack(), itertools.count(1)

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _open(self) -> None:
        hops, mirrors = self._counts
        self.disk.mkdir()
        proc.run([proc.need_tool("mount"), "-t", "tmpfs", "-o", f"size={DISK}", "chaos", str(self.disk)])
        self._stack.callback(proc.run, [proc.need_tool("umount"), "-l", str(self.disk)])
        self.key = keys.new_key(self.directory / "id_lab")
        self.known_hosts = self.directory / "known_hosts"
        self.client, names, inner = (
            self._stack.enter_context(Namespace(label)) for label in ("client", "names", "inner")
        )
        self._sleeper = self.client.popen(["sleep", "1000000"])
        self._stack.callback(self._sleeper.wait)
        self._stack.callback(self._sleeper.kill)
        netns.link(self.client, names, "10.77.9.1/30", "10.77.9.2/30")
        self.client.use_resolver("10.77.9.2")
        known = {f"jump{n}.lab.example": f"10.77.{n}.2" for n in range(1, hops + 1)}
        self.names = self._start(Names(self.directory / "names", known, place=names, address="10.77.9.2"))
        self._open_inner(inner, mirrors)
        for number in range(1, hops + 1):
            self.hops.append(self._hop(number, inner))

    def _open_inner(self, inner: Namespace, mirrors: int) -> None:
        inner.add_bridge("inner", *(f"{INNER.format(n)}/24" for n in (*range(1, mirrors + 1), 9)))
        known = {f"mirror{n}.lab.example": INNER.format(n) for n in range(1, mirrors + 1)}
        self.inner_names = self._start(
            Names(self.directory / "inner", known, place=inner, address=INNER.format(9))
        )
        authority = Authority(self.directory / "pki")
        self.ca = authority.cert
        tree = self.corpus.directory
        for number, name in enumerate(known, 1):
            root = tree if number == 1 else self.corpus.mirror(self.directory / f"tree{number}")
            self.mirrors.append(self._start(
                Origin(self.directory / f"mirror{number}", root, certificate=authority.issue(name), name=name,
                       place=inner, address=INNER.format(number), port=443)
            ))  # fmt: skip

    def _hop(self, number: int, inner: Namespace) -> Hop:
        where, address = self.directory / f"jump{number}", f"10.77.{number}.2"
        space = self._stack.enter_context(Namespace(f"jump{number}"))
        netns.link(self.client, space, f"10.77.{number}.1/30", f"{address}/30")
        netns.attach(space, inner, "inner", f"{INNER.format(10 + number)}/24")
        space.use_resolver(INNER.format(9))
        server = self._start(
            Sshd(where, place=space, address=address, port=2222, authorized=[self.key],
                 options={"LogLevel": "ERROR", "MaxStartups": "200"})
        )  # fmt: skip
        box = self._start(Box(where / "box", 2222, place=space, address=address, port=22))
        name = f"jump{number}.lab.example"
        with self.known_hosts.open("a") as file:
            file.write(f"{name},{address},jumps {' '.join(server.host_key.public.split()[:2])}\n")
        return Hop(name, space, address, server, box)

    def _start(self, service: S) -> S:
        self._stack.callback(service.stop)
        service.start()
        return service

    # --- using it -----------------------------------------------------------------------------------

    @property
    def goproxy(self) -> str:
        """The mirrors, each tried after any failure of the one before."""
        return "|".join(mirror.url for mirror in self.mirrors)

    @property
    def store(self) -> Path:
        """Where gotunnel's module store is: on the small disk."""
        return self.disk / "cache"

    def environment(self, home: Path) -> dict[str, str]:
        """A whole environment for go with a new module cache below `home`; the build cache is the lab's."""
        env = gotool.go_env(home, proxy=self.goproxy, ca=self.ca)
        run = self.directory / "run"
        run.mkdir(mode=0o700, exist_ok=True)
        return env | {"XDG_CACHE_HOME": str(self.store), "XDG_RUNTIME_DIR": str(run)}

    def project(self) -> Path:
        """A new directory with the project."""
        return self.corpus.write_project(self.directory / "projects" / str(next(self._numbers)))

    def child_bytes(self) -> int:
        """Bytes that programs in the client have exchanged with their own proxies so far."""
        for line in Path(f"/proc/{self._sleeper.pid}/net/dev").read_text().splitlines():
            name, _, counts = line.partition(":")
            if name.strip() == "lo":
                return int(counts.split()[0])
        raise proc.LabError("the client has no loopback")

    def empty_store(self) -> None:
        """Forget what gotunnel keeps, so that the next run has to fetch."""
        for path in self.store.rglob("*"):
            if path.is_file():
                path.unlink(missing_ok=True)

    def asked(self) -> int:
        """How many requests the mirrors have had."""
        return sum(len(mirror.requests()) for mirror in self.mirrors)


@contextlib.contextmanager
def temporary(hops: int = 3, mirrors: int = 2, modules: int = 40) -> Iterator[ChaosLab]:
    """A lab in a temporary directory that goes with it."""
    directory = Path(tempfile.mkdtemp(prefix="gt-chaos-"))
    try:
        with ChaosLab(directory, hops=hops, mirrors=mirrors, modules=modules) as made:
            yield made
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def read_events(path: Path) -> list[dict[str, object]]:
    """gotunnel's events, a last line that was cut off left out."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]
