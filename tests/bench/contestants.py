"""Local proxies in turn: gotunnel's `serve` and its rivals, direct or with the same upstream proxy behind.

Rules:
- Each is started with what its manual says for this job, without logs where it lets one.
- A client speaks SOCKS5 to those that have no HTTP (microsocks, dante), else CONNECT.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.rivals import Rivals
from tests.lab import proc
from tests.lab.squid import Squid

_GO_RIVALS = ("gost", "glider")


class Local(proc.Service):
    """A program that listens where its command line says; `argv` is made for a directory and a port."""

    def __init__(
        self, directory: Path, argv: Callable[[Path, int], list[str]], env: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(directory)
        self._make, self._env = argv, env

    def _argv(self) -> list[str]:
        return self._make(self.directory, self.port)

    def _environment(self) -> Mapping[str, str] | None:
        return self._env

    def _await_ready(self, process: proc.Process) -> None:
        listening = lambda: self.port in proc.listening_ports(os.getpid())  # noqa: E731
        process.wait_ready(f"{type(self).__name__} on port {self.port}", listening, 30)


class Splicer(Local):
    """`splicer.py`, to `target` or as an upstream proxy."""

    def __init__(self, directory: Path, target: str = "") -> None:
        words = [target] if target else []
        module = [sys.executable, "-m", "tests.bench.splicer", "127.0.0.1"]
        super().__init__(directory, lambda _, port: [*module, str(port), *words])


class Serve(Local):
    """`gotunnel serve` without a secret and with wide limits; ways out and further lines are given."""

    def __init__(
        self, directory: Path, gotunnel: Sequence[str], env: Mapping[str, str], ways: Sequence[str],
        more: str = "",
    ) -> None:  # fmt: skip
        directory.mkdir(parents=True, exist_ok=True)
        home = directory / "home"
        home.mkdir()
        home.chmod(0o700)
        self.modproxy = proc.free_port()
        self._gotunnel, self._ways, self._more = gotunnel, ways, more
        self.environment = {**env, "HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
        self.environment |= {
            "GOSUMDB": "off",
            "GOENV": "off",
        }  # the lab's modules are in no checksum database
        if gotunnel[0] == sys.executable:
            self.environment["PYTHONPATH"] = str(proc.ROOT)
        super().__init__(directory, self._command, self.environment)

    def _await_ready(self, process: proc.Process) -> None:
        super()._await_ready(process)
        told = Path(self.environment["HOME"], "gotunnel", "server.json")
        process.wait_ready("what gotunnel serve tells its clients", told.exists, 30)

    def goproxy(self) -> str:
        """The URL of its module proxy, as `gotunnel env` tells it."""
        told = proc.run([*self._gotunnel, "env", "--shell", "json"], env=self.environment)
        return str(json.loads(told.stdout)["GOPROXY"]).replace("|", ",").partition(",")[0]

    def _command(self, directory: Path, port: int) -> list[str]:
        config = directory / "config.toml"
        config.write_text(
            f'[listen]\nproxy = "127.0.0.1:{port}"\nmodproxy = "127.0.0.1:{self.modproxy}"\nauth = "off"\n'
            f"[limits]\nconnections = 20000\nper_client = 20000\n{self._more}"
        )
        return [*self._gotunnel, "serve", "-q", "--config", str(config), *self._ways]


@dataclass(frozen=True, slots=True)
class Shape:
    """How a rival is started: `argv(program, directory, port, upstream)` with upstream a port or 0 (direct);
    `upstreams` are the schemes of upstream that it can have."""

    argv: Callable[[str, Path, int, str, int], list[str]]
    upstreams: tuple[str, ...] = ("http", "socks5")
    socks: bool = False  # what a client speaks to it


def _tinyproxy(program: str, directory: Path, port: int, scheme: str, upstream: int) -> list[str]:
    lines = ["Listen 127.0.0.1", f"Port {port}", "Timeout 600", "MaxClients 4096", "LogLevel Critical"]
    if upstream:
        lines.append(f"Upstream {scheme} 127.0.0.1:{upstream}")
    config = directory / "tinyproxy.conf"
    config.write_text("\n".join(lines) + "\n")
    return [program, "-d", "-c", str(config)]


def _dante(program: str, directory: Path, port: int, scheme: str, upstream: int) -> list[str]:
    every = "from: 0.0.0.0/0 to: 0.0.0.0/0"
    lines = ["logoutput: /dev/null", f"internal: 127.0.0.1 port = {port}", "external: 127.0.0.1",
             "clientmethod: none", "socksmethod: none"]  # fmt: skip
    if os.geteuid() == 0:
        lines += ["user.privileged: root", "user.unprivileged: nobody"]
    lines += [f"{rule} {{ {every} }}" for rule in ("client pass", "socks pass")]
    if upstream:
        lines += ["route {", f"{every} via: 127.0.0.1 port = {upstream}", "proxyprotocol: socks_v5", "}"]
    config = directory / "danted.conf"
    config.write_text("\n".join(lines) + "\n")
    return [program, "-f", str(config), "-p", str(directory / "pid")]


def _pproxy(program: str, directory: Path, port: int, scheme: str, upstream: int) -> list[str]:
    behind = ["-r", f"{scheme}://127.0.0.1:{upstream}"] if upstream else []
    return [program, "-l", f"http+socks5://127.0.0.1:{port}", *behind]


def _px(program: str, directory: Path, port: int, scheme: str, upstream: int) -> list[str]:
    option = f"--proxy=127.0.0.1:{upstream}" if upstream else "--noproxy=127.0.0.0/8"
    return [program, f"--port={port}", "--listen=127.0.0.1", "--log=0", option]


def _proxy_py(program: str, directory: Path, port: int, scheme: str, upstream: int) -> list[str]:
    pool = ["--plugins", "proxy.plugin.ProxyPoolPlugin", "--proxy-pool", f"127.0.0.1:{upstream}"]
    words = ["--hostname", "127.0.0.1", "--port", str(port), "--log-level", "ERROR"]
    return [program, *words, *(pool if upstream else [])]


def _gost(program: str, directory: Path, port: int, scheme: str, upstream: int) -> list[str]:
    behind = ["-F", f"{scheme}://127.0.0.1:{upstream}"] if upstream else []
    return [program, "-L", f"auto://127.0.0.1:{port}", *behind]


def _glider(program: str, directory: Path, port: int, scheme: str, upstream: int) -> list[str]:
    behind = ["-forward", f"{scheme}://127.0.0.1:{upstream}"] if upstream else []
    return [program, "-listen", f"mixed://127.0.0.1:{port}", *behind]


def _microsocks(program: str, directory: Path, port: int, scheme: str, upstream: int) -> list[str]:
    return [program, "-i", "127.0.0.1", "-p", str(port)]


SHAPES = {
    "tinyproxy": Shape(_tinyproxy),
    "microsocks": Shape(_microsocks, upstreams=(), socks=True),
    "dante": Shape(_dante, upstreams=("socks5",), socks=True),
    "pproxy": Shape(_pproxy),
    "px": Shape(_px, upstreams=("http",)),
    "proxy.py": Shape(_proxy_py, upstreams=("http",)),
    "gost": Shape(_gost),
    "glider": Shape(_glider),
}


def start(rivals: Rivals, name: str, directory: Path, scheme: str = "", upstream: int = 0) -> Local | None:
    """A rival, started; None where it isn't installed.  Raises LabError where it can't run."""
    program = rivals.program(name)
    if program is None:
        return None
    shape = SHAPES[name]
    return Local(directory, lambda place, port: shape.argv(program, place, port, scheme, upstream)).start()


class BehindSquid(Squid):
    """squid, which hands everything to an upstream by HTTP."""

    def __init__(self, directory: Path, upstream: int) -> None:
        super().__init__(directory)
        self._upstream = upstream

    def _settings(self) -> list[str]:
        return [*super()._settings(), f"cache_peer 127.0.0.1 parent {self._upstream} 0 no-query default",
                "never_direct allow all"]  # fmt: skip
