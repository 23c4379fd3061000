"""What the cases run in: an installed gotunnel, jump hosts on loopback, the far end, and open tunnels.

Rules:
- Each part is made when a case first asks for it, and all is ended with the world.
- ssh and gotunnel get the same key, the same known_hosts and no configuration of the user's.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar

from tests.bench.contestants import Serve
from tests.bench.load import GREETING
from tests.bench.rivals import Rivals, default_directory
from tests.lab import keys, proc
from tests.lab.proc import ROOT, LabError
from tests.lab.sshd import Sshd

S = TypeVar("S", bound=proc.Service)


class Load(proc.Service):
    """The far end (`load.py`)."""

    ready_line = r"^ready$"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.greeting_port, self.hold_port = proc.free_port(), proc.free_port()

    def _argv(self) -> list[str]:
        where = [self.listen, str(self.port), str(self.greeting_port), str(self.hold_port)]
        return [sys.executable, "-m", "tests.bench.load", *where]


class World:
    """A context manager.  With `in_place` the working tree is measured by the running interpreter."""

    def __init__(self, *, in_place: bool = False, rivals: Rivals | None = None) -> None:
        self._in_place = in_place
        self.rivals = rivals or Rivals(default_directory())
        self._stack = contextlib.ExitStack()
        self._numbers = itertools.count()
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="gt-bench-")))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # --- parts -------------------------------------------------------------------------------------

    @functools.cached_property
    def environment(self) -> dict[str, str]:
        """The caller's, less what names ways out or makes Python slow; HOME is empty."""
        dropped = ("GOTUNNEL_", "SSH_", "PYTHON")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
        kept = {k: v for k, v in kept.items() if not k.lower().endswith("_proxy")}
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        return kept | {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}

    @functools.cached_property
    def python(self) -> str:
        """The interpreter that gotunnel is installed for."""
        if self._in_place:
            return sys.executable
        venv = self.directory / "venv"
        proc.run([sys.executable, "-m", "venv", str(venv)], env=self.environment, timeout=120)
        pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        proc.run([*pip, "--compile", str(ROOT)], env=self.environment, timeout=600)
        return str(venv / "bin" / "python")

    @functools.cached_property
    def gotunnel(self) -> list[str]:
        """The beginning of its command lines."""
        script = Path(self.python).with_name("gotunnel")
        return [str(script)] if script.exists() else [self.python, "-m", "gotunnel"]

    @functools.cached_property
    def load(self) -> Load:
        """The far end."""
        return self._stack.enter_context(Load(self.directory / "load"))

    @functools.cached_property
    def key(self) -> keys.Key:
        """The client's key."""
        return keys.new_key(self.directory / "id_bench")

    @functools.cached_property
    def known_hosts(self) -> Path:
        """The host keys of all jump hosts."""
        return self.directory / "known_hosts"

    @functools.cached_property
    def jump_hosts(self) -> tuple[Sshd, Sshd]:
        """Two of them."""
        made = [self._jump_host(1), self._jump_host(2)]
        return made[0], made[1]

    def _jump_host(self, number: int) -> Sshd:
        server = Sshd(self.directory / f"jump{number}", authorized=[self.key], options={"LogLevel": "ERROR"})
        self._stack.enter_context(server)
        server.write_known_hosts(self.known_hosts)
        return server

    # --- command lines -------------------------------------------------------------------------------

    def ways(self, hops: int = 1) -> list[str]:
        """gotunnel's options for a chain of so many jump hosts."""
        chain = ",".join(f"{host.user}@{host.address}:{host.port}" for host in self.jump_hosts[:hops])
        return [
            "-F",
            "none",
            "-i",
            str(self.key.private),
            "--known-hosts",
            str(self.known_hosts),
            "-J",
            chain,
        ]

    def ssh(self, *options: str, hops: int = 1) -> list[str]:
        """ssh through the same jump hosts, the last of which it logs in to."""
        first, last = self.jump_hosts[0], self.jump_hosts[hops - 1]
        if hops == 1:
            return first.client_argv(self.key, self.known_hosts, *options)
        through = [*first.client_options(self.key, self.known_hosts), "-W", "[%h]:%p",
                   *(word for word in options if word.startswith("aes") or word == "-c"),
                   f"{first.user}@{first.address}"]  # fmt: skip
        proxy = ["-o", f"ProxyCommand={' '.join(through)}"]
        return last.client_argv(self.key, self.known_hosts, *proxy, *options)

    # --- servers that stay ----------------------------------------------------------------------------

    def keep(self, service: S) -> S:
        """Start a server that ends with the world.  Raises LabError."""
        self._stack.enter_context(service)
        return service

    def place(self, name: str) -> Path:
        """A new directory."""
        where = self.directory / f"{name}-{next(self._numbers)}"
        where.mkdir()
        return where

    @functools.cache  # noqa: B019
    def serve(self, *ways: str, more: str = "") -> Serve:
        """A `gotunnel serve` with these options and lines of configuration."""
        return self.keep(Serve(self.place("serve"), self.gotunnel, self.environment, ways, more))

    # --- open tunnels --------------------------------------------------------------------------------

    @functools.cache  # noqa: B019 - a world is one process's only one
    def endpoint(self, hops: int = 1) -> str:
        """The proxy URL of a `gotunnel run` that stays."""
        tell = ["sh", "-c", 'echo "$GOTUNNEL_PROXY"; exec sleep 100000']
        process = proc.popen(
            [*self.gotunnel, "run", *self.ways(hops), "--", *tell],
            env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=self.directory,
        )  # fmt: skip
        self._stack.callback(_end, process)
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise LabError(f"gotunnel run ended with {process.wait()}")
        return url

    @functools.cache  # noqa: B019
    def socks(self, *options: str, hops: int = 1) -> str:
        """HOST:PORT of an `ssh -D` that stays."""
        port = proc.free_port()
        argv = self.ssh("-N", "-D", f"127.0.0.1:{port}", *options, hops=hops)
        log = self.directory / f"ssh-{port}.log"
        process = proc.Process(argv, log=log, env=self.environment)
        self._stack.callback(process.stop)
        process.wait_ready("ssh -D", lambda: port in proc.listening_ports(os.getpid()))
        return f"127.0.0.1:{port}"

    # --- measuring -----------------------------------------------------------------------------------

    def wall(self, argv: Sequence[str]) -> float:
        """Milliseconds that a command takes; raises LabError unless it succeeds."""
        started = time.perf_counter()
        with proc.popen(argv, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                        stderr=subprocess.PIPE, cwd=self.directory) as process:  # fmt: skip
            _, err = process.communicate(timeout=60)
            taken = (time.perf_counter() - started) * 1000
        if process.returncode:
            raise LabError(f"{' '.join(argv)}: exit status {process.returncode}\n{err}")
        return taken

    def first_byte(self, argv: Sequence[str], extra: Mapping[str, str] | None = None) -> float:
        """Milliseconds until a command has passed on the far end's greeting, which must come whole."""
        started = time.perf_counter()
        with proc.popen(argv, env=self.environment | dict(extra or {}), stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE, text=False, bufsize=0,
                        cwd=self.directory) as process:  # fmt: skip
            assert process.stdout is not None
            assert process.stdin is not None
            got: bytes = process.stdout.read(len(GREETING))  # type: ignore[assignment]
            taken = (time.perf_counter() - started) * 1000
            process.stdin.close()
            process.wait(timeout=30)
        if got != GREETING:
            raise LabError(f"{' '.join(argv)}: gave {got!r} for {GREETING!r}")
        return taken

    def rate(self, proxy: Sequence[str], size: int, *, upload: bool = False) -> float:
        """MB/s of one transfer by curl through `proxy`; raises LabError unless all bytes came."""
        url = f"http://{self.load.address}:{self.load.port}/{size}"
        argv = [proc.need_tool("curl"), "-q", "-sS", "--noproxy", "", *proxy, "-o",
                "-" if upload else "/dev/null", *(["-T", str(self._file(size))] if upload else []),
                "-w", "\n%{size_download} %{time_total} %{time_pretransfer}", url]  # fmt: skip
        done = proc.run(argv, env=self.environment, timeout=600)
        body, _, numbers = done.stdout.rpartition("\n")
        got, total, before = numbers.split()
        if int(body if upload else got) != size:
            raise LabError(f"{' '.join(argv)}: {body or got} of {size} bytes")
        return size / 1e6 / (float(total) - float(before))

    def _file(self, size: int) -> Path:
        path = self.directory / f"zeros-{size}"
        if not path.exists():
            with path.open("wb") as file:
                file.truncate(size)
        return path


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        proc.kill_tree(process.pid)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
