"""The whole lab: a client that reaches two jump hosts and a proxy host, which reach the origin.

    client 10.77.1.1 ---- jump1 10.77.1.2 | 10.80.0.11 ---+
           10.77.2.1 ---- jump2 10.77.2.2 | 10.80.0.12 ---+-- inner bridge -- origin 10.80.0.1, .2, .3
           10.77.3.1 ---- proxy 10.77.3.2 | 10.80.0.13 ---+

    origin: https://modules.lab.example (GOPROXY) and http://plain.lab.example, https://git.lab.example
            and ssh to it, the inner name server
    proxy:  HTTP on 8888, with a password on 8889; SOCKS5 on 1080, with a password on 1081

Rules:
- The client has no way to the inner side.  What it sends elsewhere than to the three is refused and
  counted (`fence`): `direct_attempts()` is empty as long as nobody tried.
- The client's own resolver knows jump1, jump2 and proxy.lab.example and no inner name, and logs every
  query; the jump hosts and the proxy host ask the inner resolver, which knows all.
- `reset` puts everything back to health, for the next test.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from tests.lab import corpus, gotool, keys, netns, proc
from tests.lab.dns import DnsServer
from tests.lab.gitserver import GitServer, make_repository
from tests.lab.netns import Link, Namespace
from tests.lab.origin import Origin
from tests.lab.pki import Authority
from tests.lab.proxies import HttpProxy, SocksProxy
from tests.lab.sshd import Sshd
from tests.lab.wan import Line, WanLink

HOPS = {"jump1": "10.77.1", "jump2": "10.77.2", "proxy": "10.77.3"}
INNER = {"jump1": "10.80.0.11", "jump2": "10.80.0.12", "proxy": "10.80.0.13"}
MODULES, GIT, PLAIN = "10.80.0.1", "10.80.0.2", "10.80.0.3"
GIT_HTTPS, GIT_SSH = "git.lab.example/team/lib", "git.lab.example/team/sshlib"
USER, PASSWORD = "lab", "lab-password"
S = TypeVar("S", bound=proc.Service)


class Topology:
    """All of it, made by `open` (or `with`) and gone after `close`.

    `line` makes the links between the client and the three WAN lines.  `modules`, `levels` and `filler`
    are the corpus'.
    """

    def __init__(
        self,
        directory: Path,
        *,
        line: Line | None = None,
        modules: int = 24,
        levels: int = 3,
        filler: int | Sequence[int] = 2000,
    ) -> None:
        self.directory, self._line = directory, line
        self._make_corpus = functools.partial(
            corpus.Corpus, directory / "goproxy", count=modules, levels=levels, filler=filler
        )
        self._stack = contextlib.ExitStack()
        self._numbers = itertools.count(1)
        self._links: dict[str, Link] = {}
        self._filters: list[netns.Filter] = []

    def open(self) -> Self:
        """Make and start everything.  Raises LabError, with nothing left behind."""
        try:
            self._make_network()
            self._start_origin()
            self._start_hops()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End everything."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- setting up -------------------------------------------------------------------------------

    def _make_network(self) -> None:
        space = {name: self._stack.enter_context(Namespace(name)) for name in ("client", *HOPS, "origin")}
        self.client, self.jump1, self.jump2 = space["client"], space["jump1"], space["jump2"]
        self.proxy, self.origin = space["proxy"], space["origin"]
        self.origin.add_bridge("inner", *(f"{address}/24" for address in (MODULES, GIT, PLAIN)))
        for name, prefix in HOPS.items():
            if self._line is None:
                self._links[name] = netns.link(self.client, space[name], f"{prefix}.1/30", f"{prefix}.2/30")
            else:
                device = f"wan-{name}"
                wan = WanLink(
                    self.client, space[name], self._line, self.directory, prefix=prefix, device=device
                )
                self._stack.callback(wan.close)
                self._links[name] = Link(self.client, device, space[name], device)
            netns.attach(space[name], self.origin, "inner", f"{INNER[name]}/24")
            space[name].use_resolver(MODULES)
        self.origin.use_resolver(MODULES)
        self.client.use_resolver("127.0.0.1")
        self.fence = netns.Fence(self.client, [f"{prefix}.2" for prefix in HOPS.values()])
        hosts = {f"{name}.lab.example": f"{prefix}.2" for name, prefix in HOPS.items()}
        self.client_dns = self._start(
            DnsServer(self.directory / "client-dns", hosts, place=self.client, port=53)
        )
        inner = {f"{name}.lab.example": address for name, address in INNER.items()}
        inner |= {"modules.lab.example": MODULES, "git.lab.example": GIT, "plain.lab.example": PLAIN}
        self.inner_dns = self._start(
            DnsServer(self.directory / "inner-dns", inner, place=self.origin, address=MODULES, port=53)
        )

    def _start_origin(self) -> None:
        where = self.directory
        self.authority = Authority(where / "pki")
        self.ca = self.authority.cert
        self.corpus = self._make_corpus()
        tree = self.corpus.directory
        self.modules = self._start(
            Origin(where / "modules", tree, certificate=self.authority.issue("modules.lab.example"),
                   name="modules.lab.example", place=self.origin, address=MODULES, port=443)
        )  # fmt: skip
        self.plain = self._start(
            Origin(where / "plain", tree, name="plain.lab.example", place=self.origin, address=PLAIN, port=80)
        )
        self.key = keys.new_key(where / "keys" / "id_lab")
        self.git_sshd = self._start(
            Sshd(where / "git-sshd", place=self.origin, address=GIT, port=22, authorized=[self.key])
        )
        root = where / "git"
        make_repository(root / "team" / "lib.git", GIT_HTTPS)
        by_ssh = make_repository(root / "team" / "sshlib.git", GIT_SSH)
        imports = {
            GIT_HTTPS: f"https://{GIT_HTTPS}.git",
            GIT_SSH: f"ssh://{self.git_sshd.user}@git.lab.example{by_ssh}",
        }
        self.git = self._start(
            GitServer(where / "git-https", root, self.authority.issue("git.lab.example"), imports=imports,
                      name="git.lab.example", place=self.origin, address=GIT, port=443)
        )  # fmt: skip

    def _start_hops(self) -> None:
        anywhere: dict[str, Any] = {"listen": "0.0.0.0"}
        login: dict[str, Any] = {"user": USER, "password": PASSWORD}
        proxy = anywhere | {"place": self.proxy, "address": f"{HOPS['proxy']}.2"}
        self.sshd1, self.sshd2 = (
            self._start(
                Sshd(self.directory / f"{name}-sshd", place=place, address=f"{HOPS[name]}.2", port=22,
                     authorized=[self.key], **anywhere)
            )
            for name, place in (("jump1", self.jump1), ("jump2", self.jump2))
        )  # fmt: skip
        make = self.directory.joinpath
        self.http = self._start(HttpProxy(make("http"), port=8888, **proxy))
        self.http_login = self._start(HttpProxy(make("http-login"), port=8889, **proxy, **login))
        self.socks = self._start(SocksProxy(make("socks"), port=1080, **proxy))
        self.socks_login = self._start(SocksProxy(make("socks-login"), port=1081, **proxy, **login))
        self._host_keys = {sshd: sshd.host_key for sshd in (self.sshd1, self.sshd2)}
        self.known_hosts = make("keys", "known_hosts")
        self.sshd1.write_known_hosts(self.known_hosts, "jump1.lab.example", INNER["jump1"])
        self.sshd2.write_known_hosts(self.known_hosts, "jump2.lab.example", INNER["jump2"])
        self.git_sshd.write_known_hosts(self.known_hosts, "git.lab.example")

    def _start(self, service: S) -> S:
        self._stack.callback(service.stop)
        service.start()
        return service

    # --- using it -----------------------------------------------------------------------------------

    def client_run(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """`proc.run` in the client; its exit status is not checked unless `check=True`.

        `env` is the whole environment; None: a new `go_env()`.
        """
        options = {"check": False} | options
        return self.client.run(argv, env=self.go_env() if env is None else env, **options)

    def client_popen(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """`proc.popen` in the client; the caller ends it, as `reset` and `close` do otherwise."""
        return self.client.popen(argv, env=self.go_env() if env is None else env, **options)

    def go_env(self, **changes: str) -> dict[str, str]:
        """A whole environment for go in the client, with new caches; GOPROXY is the https origin."""
        home = self.directory / "homes"
        return gotool.go_env(home, proxy=self.modules.url, ca=self.ca) | changes

    def fresh_project(self, *, requires: bool = True, sums: bool = True) -> Path:
        """A new directory with the corpus' project (`Corpus.write_project`)."""
        directory = self.directory / "projects" / str(next(self._numbers))
        return self.corpus.write_project(directory, requires=requires, sums=sums)

    def direct_attempts(self) -> list[str]:
        """Where the client tried to go past the hops, as ADDRESS:PORT; packets of no port as `other`."""
        return self.fence.targets() or ["other"] * bool(self.fence.packets())

    def client_queries(self) -> set[str]:
        """The names that the client's own resolver was asked for."""
        return self.client_dns.asked()

    def client_processes(self) -> list[int]:
        """The processes in the client that are not the lab's own: what a command left behind."""
        ours = proc.family(self.client_dns.pid)
        return [pid for pid in self.client.pids() if pid not in ours]

    def client_ports(self) -> set[int]:
        """The TCP ports on which somebody listens in the client, the lab's own left out."""
        return proc.listening_ports(self.client_dns.pid) - {self.client_dns.port}

    # --- breaking it ----------------------------------------------------------------------------------

    def cut(self, hop: str) -> None:
        """Cut the client's link to `jump1`, `jump2` or `proxy`, until `reset`."""
        self._links[hop].cut()

    def mend(self, hop: str) -> None:
        """Undo `cut`."""
        self._links[hop].mend()

    def black_hole(self, space: Namespace, port: int | None = None) -> netns.Filter:
        """Drop what goes to and from a port of a namespace (None: all), until `reset` or `remove`."""
        self._filters.append(netns.drop(space, port))
        return self._filters[-1]

    def refuse(self, space: Namespace, port: int) -> netns.Filter:
        """Answer for a port of a namespace with resets, until `reset` or `remove`."""
        self._filters.append(netns.reject(space, port))
        return self._filters[-1]

    def reset(self) -> Self:
        """Back to health: all servers run as at first, links are whole, logs and counters are empty."""
        proc.send(self.client_processes(), signal.SIGKILL)
        for link in self._links.values():
            link.mend()
        while self._filters:
            self._filters.pop().remove()
        for sshd, host_key in self._host_keys.items():
            if sshd.host_key != host_key or sshd.options:
                sshd.stop()
            sshd.options, sshd.host_key = {}, host_key
            sshd.forget_keys()
            sshd.authorize(self.key)
        services = (self.client_dns, self.inner_dns, self.modules, self.plain, self.git, self.git_sshd,
                    self.http, self.http_login, self.socks, self.socks_login, *self._host_keys)  # fmt: skip
        for service in services:
            service.thaw()
            service.start()
            if isinstance(service, Origin):
                service.behave()
            if isinstance(service, Origin | DnsServer | GitServer):
                service.clear_log()
        self.fence.clear()
        return self


@contextlib.contextmanager
def temporary(**options: Any) -> Iterator[Topology]:
    """A topology in a temporary directory, for use outside of pytest."""
    directory = Path(tempfile.mkdtemp(prefix="gt-lab-"))
    try:
        with Topology(directory, **options) as made:
            yield made
    finally:
        shutil.rmtree(directory, ignore_errors=True)
