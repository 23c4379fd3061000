"""gotunnel as a user in the lab's client runs it, and what it left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.topology import Topology

GOTUNNEL = [sys.executable, "-m", "gotunnel"]


@dataclass(frozen=True)
class Ran:
    """A finished `gotunnel run`; `events` by name."""

    status: int
    stdout: str
    stderr: str
    seconds: float
    log: list[dict[str, Any]]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.log if event["event"] == name]

    @property
    def lines(self) -> list[str]:
        """Our own lines on standard error."""
        return [line for line in self.stderr.splitlines() if line.startswith("gotunnel: ")]

    def reasons(self, upstream: str) -> set[str]:
        """The findings that a way out failed with, by whatever event."""
        found = {e.get("reason") for e in self.events("breaker") if upstream in e["upstream"]}
        found |= {e.get("error") for e in self.events("dial") if upstream in e["upstream"]}
        found |= {e["reason"] for e in self.events("failover") if upstream in e["from"]}
        return {reason for reason in found if reason}


def ways(lab: Topology, *chains: str) -> list[str]:
    """The options for chains, with the lab's key and known hosts."""
    options = ["-i", str(lab.key.private), "--known-hosts", str(lab.known_hosts)]
    for chain in chains:
        options += ["--via", chain]
    return options


def jump(lab: Topology, number: int) -> str:
    """The CHAIN of a jump host."""
    return f"{lab.sshd1.user}@jump{number}.lab.example"


def start(
    lab: Topology, options: Sequence[str], argv: Sequence[str], *, env: Mapping[str, str], **popen: Any
) -> tuple[subprocess.Popen[str], Path]:
    """`gotunnel run` in the client's namespace; returns it and its events file."""
    events = lab.directory / "events.jsonl"
    events.unlink(missing_ok=True)
    line = [*GOTUNNEL, "run", "--events", str(events), *options, "--", *argv]
    process = lab.client_popen(
        line, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **popen
    )
    return process, events


def finish(process: subprocess.Popen[str], events: Path, started: float, timeout: float = 60.0) -> Ran:
    """Wait for it; read what it told."""
    out, err = process.communicate(timeout=timeout)
    seconds = time.monotonic() - started
    log = [json.loads(line) for line in events.read_text().splitlines()] if events.exists() else []
    return Ran(process.returncode, out, err, seconds, log)


def run(
    lab: Topology,
    chains: Sequence[str],
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    timeout: float = 60.0,
) -> Ran:
    """`gotunnel run` from start to end."""
    started = time.monotonic()
    process, events = start(
        lab, [*ways(lab, *chains), *options], argv, env=lab.go_env() if env is None else env, cwd=cwd
    )
    return finish(process, events, started, timeout)


def nothing_left(lab: Topology, seconds: float = 5.0) -> bool:
    """True as soon as the client has no process and no listening port but the lab's own."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not lab.client_processes() and not lab.client_ports():
            return True
        time.sleep(0.05)
    return False


def kill(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Signal gotunnel itself, not the `ip netns exec` around it (which execs, so it is the same pid)."""
    os.kill(process.pid, number)
