"""A client and jump hosts with a WAN line between each two, and a module origin behind the jump hosts.

    client 10.77.N.1 ==== line N ==== jumpN 10.77.N.2 | 10.80.0.1N ---- inner bridge ---- origin 10.80.0.1

    jumpN: OpenSSH on 22, tinyproxy on 8888       origin: https://modules.lab.example, its name server

Rules:
- What a jump host sends to the client goes by cubic, whatever the machine's own congestion control is.
- The client has no way to the inner side but the hops, and no name server.
- `reset` makes everything healthy again.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from tests.lab import gotool, keys, netns, proc, sshd
from tests.lab.corpus import Corpus
from tests.lab.dns import DnsServer
from tests.lab.netns import Namespace
from tests.lab.origin import Origin
from tests.lab.pki import Authority
from tests.lab.proxies import HttpProxy
from tests.lab.sshd import Sshd
from tests.lab.wan import Line, WanLink, can_make_wan

ORIGIN, NAME = "10.80.0.1", "modules.lab.example"
S = TypeVar("S", bound=proc.Service)


def able() -> tuple[bool, str]:
    """Whether such a lab can be made here; else why not."""
    checks = (netns.can_make_namespaces(), can_make_wan(), sshd.can_run_sshd(), gotool.can_run_go(),
              HttpProxy.available())  # fmt: skip
    return next((check for check in checks if not check[0]), (True, ""))


@dataclass(frozen=True, slots=True)
class CheapLine(Line):
    """A line whose packets leave on a grid of 0.5 ms, which leaves the CPU to what is measured."""

    def options(self) -> list[str]:
        """As options of wanlink."""
        # not super(): slots make another class of this one
        return [*Line.options(self), "-g", "500"]


@dataclass(slots=True)
class Hop:
    """A jump host and the line to it; `number` is N."""

    number: int
    space: Namespace
    device: str
    sshd: Sshd
    http: HttpProxy | None = None

    @property
    def chain(self) -> str:
        """As `ssh -J` takes it."""
        return f"{self.sshd.user}@{self.sshd.address}:{self.sshd.port}"


class WanLab:
    """All of it, a context manager.  `make` writes the corpus into the directory it is given."""

    def __init__(self, directory: Path, lines: Sequence[Line], make: Callable[[Path], Corpus]) -> None:
        self.directory, self._lines = directory, lines
        self.corpus = make(directory / "goproxy")
        self.hops: list[Hop] = []
        self._stack = contextlib.ExitStack()
        self._numbers = itertools.count(1)

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
        self.key = keys.new_key(self.directory / "id_lab")
        self.known_hosts = self.directory / "known_hosts"
        authority = Authority(self.directory / "pki")
        self.ca = authority.cert
        self.client = self._stack.enter_context(Namespace("client"))
        self.client.use_resolver("127.0.0.1")
        self._sleeper = self.client.popen(["sleep", "1000000"])
        self._stack.callback(self._sleeper.wait)
        self._stack.callback(self._sleeper.kill)
        proc.wait_until("the client's namespace", self.client.pids)
        inner = self._stack.enter_context(Namespace("origin"))
        inner.add_bridge("inner", f"{ORIGIN}/24")
        self._start(DnsServer(self.directory / "dns", {NAME: ORIGIN}, place=inner, address=ORIGIN, port=53))
        certificate = authority.issue(NAME)
        self.origin = self._start(
            Origin(self.directory / "origin", self.corpus.directory, certificate=certificate, name=NAME,
                   place=inner, address=ORIGIN, port=443)
        )  # fmt: skip
        for number, line in enumerate(self._lines, 1):
            self.hops.append(self._hop(number, line, inner))

    def _hop(self, number: int, line: Line, inner: Namespace) -> Hop:
        space = self._stack.enter_context(Namespace(f"jump{number}"))
        device, prefix = f"wan{number}", f"10.77.{number}"
        link = WanLink(self.client, space, line, self.directory, prefix=prefix, device=device)
        self._stack.callback(link.close)
        # by the route, since a namespace may choose only what the machine allows
        space.add_route(f"{link.address_a}/32", "dev", device, "congctl", "cubic")
        netns.attach(space, inner, "inner", f"10.80.0.{10 + number}/24")
        space.use_resolver(ORIGIN)
        server = self._start(
            Sshd(self.directory / f"jump{number}", place=space, address=link.address_b, port=22,
                 listen="0.0.0.0", authorized=[self.key], options={"LogLevel": "ERROR"})
        )  # fmt: skip
        server.write_known_hosts(self.known_hosts)
        proxy = HttpProxy(self.directory / f"http{number}", place=space, address=link.address_b, port=8888)
        return Hop(number, space, device, server, self._start(proxy))

    def _start(self, service: S) -> S:
        self._stack.callback(service.stop)
        service.start()
        return service

    # --- using it -----------------------------------------------------------------------------------

    def environment(self, store: Path | None = None) -> dict[str, str]:
        """A whole environment for go with new caches, build cache included; GOPROXY is the origin.

        gotunnel's store is `store`, or new as well.
        """
        env = gotool.go_env(self.directory / "homes", proxy=self.origin.url, ca=self.ca)
        home = Path(env["HOME"])
        return env | {"GOCACHE": str(home / "gocache"), "XDG_CACHE_HOME": str(store or home / "store")}

    def forget(self, env: dict[str, str]) -> None:
        """Remove what a run with this environment left on the disk, its store only if that was its own."""
        shutil.rmtree(env["HOME"], ignore_errors=True)

    def project(self, *, requires: bool = True, sums: bool = True) -> Path:
        """A new directory with the corpus' project (`Corpus.write_project`)."""
        where = self.directory / "projects" / str(next(self._numbers))
        return self.corpus.write_project(where, requires=requires, sums=sums)

    def ways(self, *hops: Hop) -> list[str]:
        """gotunnel's options for these jump hosts as alternates; none: all of them."""
        options = ["-F", "none", "-i", str(self.key.private), "--known-hosts", str(self.known_hosts)]
        return options + [word for hop in hops or self.hops for word in ("--via", hop.chain)]

    def carried(self) -> dict[int, int]:
        """Bytes that came to the client over each hop's line so far."""
        text = Path(f"/proc/{self._anyone()}/net/dev").read_text()
        return {int(number): int(count) for number, count in re.findall(r"wan(\d+):\s*(\d+)", text)}

    def _anyone(self) -> int:
        """A process of the lab's own that lives in the client's namespace as long as the lab does."""
        return self._sleeper.pid

    def reset(self) -> None:
        """All servers run, the origin behaves, its log is empty."""
        for hop in self.hops:
            hop.sshd.start()
        self.origin.behave()
        self.origin.clear_log()


@contextlib.contextmanager
def temporary(lines: Sequence[Line], make: Callable[[Path], Corpus]) -> Iterator[WanLab]:
    """A lab in a temporary directory that goes with it."""
    directory = Path(tempfile.mkdtemp(prefix="gt-wan-"))
    try:
        with WanLab(directory, lines, make) as made:
            yield made
    finally:
        shutil.rmtree(directory, ignore_errors=True)
