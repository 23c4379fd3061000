"""The cases on a WAN line: each contender does the whole job with the real go command.

Rules:
- `cold-*`: everything from nothing, in the time measured: ssh's or gotunnel's own start, its handshakes, a
  fresh module cache, build cache and (but for the second run) store.  Where a `serve` runs, it stands before.
- `zips`, `big-zip`, `two-jumps`: the tunnel is open and warm, by one small module (`pull.py`).
- A run counts only if go succeeded and every module of its cache is right to the byte.
- The bound is what no tunnel can beat: TRIPS round trips and the bytes at the line's rate.  Beside it stands
  go with all files on its own disk, which no second run can beat.
- One round has every contender once; there is no round to warm up, since cold is what is measured.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.table import Aim, Case, Contender
from tests.lab import proc, wanlab
from tests.lab.corpus import Corpus, realistic_sizes
from tests.lab.proc import ROOT, LabError
from tests.lab.wan import Line
from tests.lab.wanlab import Hop, WanLab

# TCP 1; ssh 4 (versions with the first key exchange, its answer, service, authentication); channel 1;
# TLS 1.3 1; request 1
TRIPS = 8
OURS, SECOND, SSH, HTTP = "gotunnel run -J", "gotunnel run -J, second run", "ssh -D", "tinyproxy"
SERVED = "gotunnel run, with a serve"
DISK = "go alone, files on its disk"
MODULES, LEVELS = 120, 5
ZIP, LARGE = 4_000_000, 50_000_000  # bytes
# opens it, fits the environment to it, gives the words that go before the command
Tunnel = Callable[[dict[str, str]], contextlib.AbstractContextManager[list[str]]]


@dataclass(frozen=True, slots=True)
class Setting:
    """The line of a case: RTT in ms, loss in percent each way, rate in Mbit/s; None is the case's own."""

    rtt: float | None = None
    loss: float | None = None
    rate: float | None = None
    timeout: float = 600.0

    def line(self, rtt: float, loss: float, rate: float) -> Line:
        """The line, with the case's own figures where nothing was asked for."""
        rtt, loss, rate = (given if given is not None else own for given, own in
                           ((self.rtt, rtt), (self.loss, loss), (self.rate, rate)))  # fmt: skip
        return wanlab.CheapLine(delay=rtt / 2, loss=loss, rate=rate)


class Field:
    """A lab and the ways to go through it."""

    def __init__(self, lab: WanLab, gotunnel: Sequence[str], timeout: float) -> None:
        self.lab, self.gotunnel, self.timeout = lab, gotunnel, timeout

    # --- from nothing -----------------------------------------------------------------------------------

    def cold(self, argv: Sequence[str], tunnel: Tunnel,
             store: Path | None = None, *, stands: bool = False) -> float:  # fmt: skip
        """Seconds from nothing to go's end, the tunnel's start included unless it `stands`."""
        env, project = self.lab.environment(store), self.lab.project()
        started = time.perf_counter()
        with tunnel(env) as prefix:
            if stands:
                started = time.perf_counter()
            self._run([*prefix, *argv], env, project)
            taken = time.perf_counter() - started
        # tidy asks for no .info
        if wrong := self.lab.corpus.damage(Path(env["GOMODCACHE"]), info="tidy" not in argv):
            raise LabError(f"{len(wrong)} modules are wrong: {wrong[0]}")
        self.lab.forget(env)
        shutil.rmtree(project)
        return taken

    def _run(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> str:
        return self.lab.client.run(argv, env=env, cwd=cwd, timeout=self.timeout).stdout

    def by_gotunnel(self, *hops: Hop) -> Tunnel:
        """`gotunnel run` with these jump hosts, before the command."""

        @contextlib.contextmanager
        def prefix(env: dict[str, str]) -> Iterator[list[str]]:
            if self.gotunnel[0] == sys.executable:
                env["PYTHONPATH"] = str(ROOT)
            yield [*self.gotunnel, "run", "-q", "--retries", "0", *self.lab.ways(*hops), "--"]

        return prefix

    def by_serve(self, hop: Hop) -> Tunnel:
        """A `gotunnel serve` that is ready, and `gotunnel run`, which finds it."""

        @contextlib.contextmanager
        def prefix(env: dict[str, str]) -> Iterator[list[str]]:
            runtime = Path(env["HOME"], "run")
            runtime.mkdir(mode=0o700)
            env["XDG_RUNTIME_DIR"] = str(runtime)
            if self.gotunnel[0] == sys.executable:
                env["PYTHONPATH"] = str(ROOT)
            argv = [*self.gotunnel, "serve", *self.lab.ways(hop)]
            log = Path(env["HOME"], "serve.log")
            process = proc.Process(argv, log=log, place=self.lab.client, env=env)
            try:
                process.wait_ready("gotunnel serve", lambda: "ready: a way out works" in process.output(), 60)
                yield [*self.gotunnel, "run", "-q", "--retries", "0", "--"]
            finally:
                process.stop()

        return prefix

    def by_ssh(self, hop: Hop) -> Tunnel:
        """`ssh -D` and HTTPS_PROXY=socks5h."""

        @contextlib.contextmanager
        def prefix(env: dict[str, str]) -> Iterator[list[str]]:
            port = proc.free_port()
            argv = hop.sshd.client_argv(self.lab.key, self.lab.known_hosts, "-N", "-D", f"127.0.0.1:{port}")
            log = self.lab.directory / "ssh-D.log"
            process = proc.Process(argv, log=log, place=self.lab.client, env=env)
            try:
                process.wait_ready("ssh -D", lambda: port in proc.listening_ports(process.pid), 30)
                env["HTTPS_PROXY"] = f"socks5h://127.0.0.1:{port}"
                yield []
            finally:
                process.stop()

        return prefix

    def by_http(self, hop: Hop) -> Tunnel:
        """tinyproxy on the jump host and HTTPS_PROXY."""

        @contextlib.contextmanager
        def prefix(env: dict[str, str]) -> Iterator[list[str]]:
            assert hop.http is not None
            env["HTTPS_PROXY"] = hop.http.url
            yield []

        return prefix

    def by_disk(self) -> Tunnel:
        """No network at all: what go itself needs to unpack and check everything."""

        @contextlib.contextmanager
        def prefix(env: dict[str, str]) -> Iterator[list[str]]:
            env["GOPROXY"] = self.lab.corpus.directory.as_uri()
            yield []

        return prefix

    # --- warm -------------------------------------------------------------------------------------------

    def warm(self, modules: Sequence[str],
             tunnel: Tunnel) -> float:  # fmt: skip
        """MB/s of modules' zips together, over a tunnel that was warmed by one small module."""
        env, project = self.lab.environment(), self.lab.directory / "empty"
        project.mkdir(exist_ok=True)
        first, *wanted = modules
        with tunnel(env) as prefix:
            pull = [sys.executable, str(ROOT / "tests" / "bench" / "pull.py"), first, *wanted]
            told = json.loads(self._run([*prefix, *pull], env, project))
        paths = {name.partition("@")[0] for name in wanted}
        sizes = [
            self.lab.corpus.zip_path(m).stat().st_size for m in self.lab.corpus.modules if m.path in paths
        ]
        wrong = [w for w in self.lab.corpus.damage(Path(env["GOMODCACHE"])) if w.partition(":")[0] in paths]
        if wrong:
            raise LabError(wrong[0])
        self.lab.forget(env)
        return sum(sizes) / 1e6 / float(told["seconds"])


def _wire(corpus: Corpus) -> int:
    """Bytes of all .mod, .info and .zip files."""
    suffixes = (".mod", ".info", ".zip")
    return sum(path.stat().st_size for path in corpus.directory.rglob("*") if path.suffix in suffixes)


def _mods(directory: Path) -> Corpus:
    return Corpus(directory, count=MODULES, levels=LEVELS, filler=realistic_sizes(MODULES))


def _cold(stack: contextlib.ExitStack, gotunnel: Sequence[str], setting: Setting, verb: str) -> Case:
    line = setting.line(200, 0, 100)
    field = Field(stack.enter_context(wanlab.temporary([line], _mods)), gotunnel, setting.timeout)
    (hop,) = field.lab.hops
    command = ["go", "mod", verb]
    store = field.lab.directory / "store"

    def second() -> float:
        if not store.exists():  # the first run of it is not what is measured
            field.cold(command, field.by_gotunnel(hop), store)
        return field.cold(command, field.by_gotunnel(hop), store)

    size = _wire(field.lab.corpus)
    bound = TRIPS * 2 * line.delay / 1000 + (size * 8 / 1e6 / line.rate if line.rate else 0)
    return Case(
        f"cold-{verb}",
        f"cold go mod {verb}: {MODULES} modules, {size / 1e6:.1f} MB, {describe(line)}",
        "s",
        [
            Contender(OURS, lambda: field.cold(command, field.by_gotunnel(hop))),
            Contender(SERVED, lambda: field.cold(command, field.by_serve(hop), stands=True)),
            Contender(SECOND, second),
            Contender(SSH, lambda: field.cold(command, field.by_ssh(hop))),
            Contender(HTTP, lambda: field.cold(command, field.by_http(hop))),
            Contender(DISK, lambda: field.cold(command, field.by_disk())),
        ],
        [Aim(OURS, share(line), SSH), Aim(OURS, 2 * bound), Aim(SERVED, 3), Aim(SECOND, 1)],
        warm=False,
        bound=bound,
    )


def share(line: Line) -> float:
    """Of the time of `ssh -D`, what is aimed at: 1/4 up to 20 ms, 1/15 from 200 ms, 1/10 with loss."""
    if line.loss:
        return 1 / 10
    rtt = min(max(2 * line.delay, 20), 200)
    return 1 / (4 + 11 * (rtt - 20) / 180)


def describe(line: Line) -> str:
    """A line in words."""
    loss = f", {line.loss:g} % loss each way" if line.loss else ""
    return f"RTT {2 * line.delay:g} ms{loss}, {line.rate:g} Mbit/s"


def cold_download(stack: contextlib.ExitStack, gotunnel: Sequence[str], setting: Setting) -> Case:
    """All modules of a project."""
    return _cold(stack, gotunnel, setting, "download")


def cold_tidy(stack: contextlib.ExitStack, gotunnel: Sequence[str], setting: Setting) -> Case:
    """What tidy asks for."""
    return _cold(stack, gotunnel, setting, "tidy")


def _large(
    stack: contextlib.ExitStack, gotunnel: Sequence[str], setting: Setting, lines: Sequence[Line],
    count: int, size: int, name: str, aims: Sequence[Aim],
) -> Case:  # fmt: skip
    """`count` zips of `size` bytes at once; the first module of the corpus is the small one that warms."""
    sizes = [1000, *[size] * count]
    lab = wanlab.temporary(lines, lambda d: Corpus(d, count=len(sizes), levels=1, filler=sizes))
    field = Field(stack.enter_context(lab), gotunnel, setting.timeout)
    modules = [f"{module.path}@v1.0.0" for module in field.lab.corpus.modules]
    hops = field.lab.hops
    ours = [Contender(OURS, lambda: field.warm(modules, field.by_gotunnel(*hops)))]
    if len(hops) > 1:
        ours = [
            Contender("gotunnel run, both", ours[0].measure),
            Contender("gotunnel run, one", lambda: field.warm(modules, field.by_gotunnel(hops[0]))),
        ]
    rivals = [
        Contender(SSH, lambda: field.warm(modules, field.by_ssh(hops[0]))),
        Contender(HTTP, lambda: field.warm(modules, field.by_http(hops[0]))),
    ]
    over = f"{len(lines)} jump hosts, each {describe(lines[0])}" if len(lines) > 1 else describe(lines[0])
    bound = sum(line.rate for line in lines) / 8
    what = f"{count} zip(s) of {size / 1e6:g} MB at once, warm, {over}"
    return Case(name, what, "MB/s", [*ours, *rivals], aims, warm=False, bound=bound)


def zips(stack: contextlib.ExitStack, gotunnel: Sequence[str], setting: Setting) -> Case:
    """Two zips at once where packets get lost."""
    lines = [setting.line(200, 1, 100)]
    return _large(stack, gotunnel, setting, lines, 2, ZIP, "zips", [Aim(OURS, 6, SSH)])


def big_zip(stack: contextlib.ExitStack, gotunnel: Sequence[str], setting: Setting) -> Case:
    """One large zip on a long fat line."""
    lines = [setting.line(200, 0, 500)]
    return _large(stack, gotunnel, setting, lines, 1, LARGE, "big-zip", [Aim(OURS, 4, SSH)])


def two_jumps(stack: contextlib.ExitStack, gotunnel: Sequence[str], setting: Setting) -> Case:
    """One large zip over both."""
    lines = [setting.line(50, 0, 50)] * 2
    aims = [Aim("gotunnel run, both", 1.8, "gotunnel run, one"), Aim("gotunnel run, both", 1.8, SSH)]
    return _large(stack, gotunnel, setting, lines, 1, LARGE, "two-jumps", aims)


WAN_CASES: dict[str, Callable[[contextlib.ExitStack, Sequence[str], Setting], Case]] = {
    "cold-download": cold_download,
    "cold-tidy": cold_tidy,
    "zips": zips,
    "big-zip": big_zip,
    "two-jumps": two_jumps,
}
