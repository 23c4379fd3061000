"""What is put to the test: gotunnel in its two ways of use, and what people use without it.

    run       `gotunnel run`, the jump hosts as alternates
    serve     the same, with a `gotunnel serve` that is struck too
    autossh   ssh -D by autossh; its ProxyCommand takes the first jump host that answers
    gost      a SOCKS port over the jump hosts, first good one
    glider    the same, with its health checks

Rules:
- The rivals know the same jump hosts in the same order; go reaches the mirrors through their SOCKS port.
- What repeats the command for a rival is a loop as a person would write it: three times more.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.chaos.lab import ChaosLab
from tests.lab import proc
from tests.lab.proc import ROOT, LabError, Process

GOTUNNEL = [sys.executable, "-m", "gotunnel"]
PORT = 1080
_BIN = Path.home() / "go/bin"


def find(name: str) -> str | None:
    """A rival's program, also where `go install` puts it."""
    beside = _BIN / name
    return proc.tool(name) or (str(beside) if beside.exists() else None)


class Subject:
    """Base: nothing to start; `gotunnel run` over all jump hosts."""

    name = "run"
    program: str = ""
    repeats_itself = True

    def __init__(self, lab: ChaosLab, log: Path) -> None:
        self.lab, self.log = lab, log
        self.process: Process | None = None

    @classmethod
    def available(cls) -> tuple[bool, str]:
        """Whether it is installed; else what is missing."""
        found = not cls.program or find(cls.program) is not None
        return found, "" if found else f"not installed: {cls.program}"

    def command(self, argv: Sequence[str], events: Path) -> list[str]:
        """The command line that runs `argv`."""
        ways = [word for hop in self.lab.hops for word in ("--via", hop.chain)]
        key = ["-F", "none", "-i", str(self.lab.key.private), "--known-hosts", str(self.lab.known_hosts)]
        return [*GOTUNNEL, "run", "--no-daemon", "--events", str(events), *key, *ways, "--", *argv]

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """What the command gets beside go's environment."""
        return {**env, "PYTHONPATH": str(ROOT)}

    def _argv(self) -> list[str]:
        return []

    def start(self) -> None:
        """Start what runs beside the commands, if that is anything."""
        if not (argv := self._argv()) or (self.process and self.process.running):
            return
        home = self.lab.directory / "service"
        env = self.environment(self.lab.environment(home))
        self.process = Process(argv, log=self.log, place=self.lab.client, env=env, cwd=self.lab.directory)
        self._wait(self.process)

    def _wait(self, process: Process) -> None:
        process.wait_ready(self.name, lambda: PORT in proc.listening_ports(process.pid), 60.0)

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.stop()

    def figures(self) -> tuple[int, float] | None:
        """Descriptors and resident megabytes of what runs beside the commands."""
        if self.process is None:
            return None
        with contextlib.suppress(OSError):
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
            files = len(os.listdir(f"/proc/{self.process.pid}/fd"))
            return files, pages * os.sysconf("SC_PAGE_SIZE") / 1e6
        return None


class ServeSubject(Subject):
    """`gotunnel serve`, and runs that use it; a `Serve` for the actor."""

    name = "serve"

    @property
    def _config(self) -> Path:
        path = self.lab.directory / "gotunnel.toml"
        options = f"?identity={self.lab.key.private}&known_hosts={self.lab.known_hosts}&config=none"
        ways = (
            f'[[upstream]]\nname = "{hop.name}"\nvia = "ssh://{hop.chain}{options}"\n'
            for hop in self.lab.hops
        )
        path.write_text("\n".join(ways))
        return path

    def command(self, argv: Sequence[str], events: Path) -> list[str]:
        return [*GOTUNNEL, "run", "--events", str(events), "--", *argv]

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        state = {"XDG_STATE_HOME": str(self.lab.directory / "state")}  # ports and secret, over restarts
        return super().environment(env) | state | {"GOTUNNEL_CONFIG": str(self._config)}

    def _argv(self) -> list[str]:
        return [*GOTUNNEL, "serve"]

    def _wait(self, process: Process) -> None:
        process.wait_ready("serve", lambda: "ready: a way out works" in process.output(), 60.0)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self.process is not None and self.process.running:
            proc.send([self.process.pid], number)

    def kill(self) -> None:
        """Kill -9 it."""
        if self.process is not None:
            self.process.kill()

    def restart(self) -> None:
        """Stop it in good order and start it."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """SIGTERM, and time to drain."""
        if self.process is None or not self.process.running:
            return
        self.signal(signal.SIGTERM)
        try:
            proc.wait_until("serve to end", lambda: self.process is None or not self.process.running, 40.0)
        except LabError:
            self.kill()
            raise


class Rival(Subject):
    """A SOCKS port on PORT, and go itself."""

    repeats_itself = False

    def command(self, argv: Sequence[str], events: Path) -> list[str]:
        return list(argv)

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        proxy = f"socks5h://127.0.0.1:{PORT}"
        return {**env, "HTTPS_PROXY": proxy, "HTTP_PROXY": proxy}

    def _program(self) -> str:
        found = find(self.program)
        if found is None:
            raise LabError(self.available()[1])
        return found


class Autossh(Rival):
    """ssh -D, started again when it ends; it watches the connection as its users are told to."""

    name = program = "autossh"

    @classmethod
    def available(cls) -> tuple[bool, str]:
        missing = [name for name in (cls.program, "nc") if find(name) is None]
        return not missing, f"not installed: {', '.join(missing)}" if missing else ""

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        return super().environment(env) | {"AUTOSSH_GATETIME": "0", "AUTOSSH_POLL": "5"}

    def _argv(self) -> list[str]:
        names = " ".join(hop.name for hop in self.lab.hops)
        first = f"sh -c 'for h in {names}; do nc -z -w 2 $h 22 && exec nc $h 22; done'"
        settings = ["ServerAliveInterval=5", "ServerAliveCountMax=2", "ExitOnForwardFailure=yes",
                    "BatchMode=yes", f"UserKnownHostsFile={self.lab.known_hosts}",
                    "IdentitiesOnly=yes", "ConnectTimeout=10",
                    f"ProxyCommand={first}", "HostKeyAlias=jumps"]  # fmt: skip
        options = [word for setting in settings for word in ("-o", setting)]
        user = self.lab.hops[0].sshd.user
        return [self._program(), "-M", "0", "-N", "-F", "none", "-D", f"127.0.0.1:{PORT}",
                "-i", str(self.lab.key.private), *options, f"{user}@jumps"]  # fmt: skip

    def _wait(self, process: Process) -> None:
        process.wait_ready("autossh", lambda: PORT in proc.listening_ports(process.pid), 30.0)


class Gost(Rival):
    """gost; it checks no host key unless told to, which is left at that."""

    name = program = "gost"

    def _argv(self) -> list[str]:
        hosts = ",".join(f"{hop.name}:22" for hop in self.lab.hops)
        user = self.lab.hops[0].sshd.user
        query = f"privateKeyFile={self.lab.key.private}&strategy=fifo&maxFails=1&failTimeout=5s"
        return [self._program(), "-L", f"socks5://127.0.0.1:{PORT}", "-F", f"sshd://{user}@{hosts}?{query}"]


class Glider(Rival):
    """glider with high availability and checks every five seconds."""

    name = program = "glider"

    def _argv(self) -> list[str]:
        forwards = [
            word
            for hop in self.lab.hops
            for word in ("-forward", f"ssh://{hop.chain}:22?key={self.lab.key.private}")
        ]
        check = f"tcp://{self.lab.mirrors[0].address}:443"
        return [self._program(), "-listen", f"socks5://127.0.0.1:{PORT}", *forwards,
                "-strategy", "ha", "-check", check, "-checkinterval", "5", "-maxfailures", "1"]  # fmt: skip


SUBJECTS: Mapping[str, type[Subject]] = {
    kind.name: kind for kind in (Subject, ServeSubject, Autossh, Gost, Glider)
}
