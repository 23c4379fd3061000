"""gotunnel on this machine, as a script runs it: clean environment, and a look at what it left running."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.lab import proc

GOTUNNEL = [sys.executable, "-m", "gotunnel"]


@dataclass(frozen=True)
class Ran:
    """A finished gotunnel; `left` are the processes of its session that outlived it."""

    status: int
    stdout: bytes
    stderr: str
    left: list[int]

    @property
    def line(self) -> str:
        """The one line that it said, without "gotunnel: "; asserts that there is no other."""
        lines = self.stderr.splitlines()
        assert len(lines) == 1, self.stderr
        assert lines[0].startswith("gotunnel: "), self.stderr
        return lines[0].removeprefix("gotunnel: ")


def environment(home: Path, **more: str) -> dict[str, str]:
    """Nothing of the caller's but PATH."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home), "LANG": "C.UTF-8", **more}


def gotunnel(
    *args: str,
    home: Path,
    env: Mapping[str, str] | None = None,
    data: bytes | None = None,
    cwd: Path | None = None,
    timeout: float = 60.0,
) -> Ran:
    """Run it to its end; `env` is added to a clean environment."""
    process = subprocess.Popen(
        [*GOTUNNEL, *args],
        env=environment(home, **(env or {}), PYTHONPATH=str(proc.ROOT), PYTHONWARNINGS="error"),
        cwd=cwd or home,
        stdin=subprocess.DEVNULL if data is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(data, timeout=timeout)
    finally:
        process.kill()
    return Ran(process.returncode, out, err.decode(), _left(process.pid))


def _left(session: int, seconds: float = 2.0) -> list[int]:
    """The processes of a session; those that are about to end are waited for."""
    deadline = time.monotonic() + seconds
    while (found := _members(session)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def _members(session: int) -> list[int]:
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else []:
        try:
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if name.isdigit() and int(fields[3]) == session and fields[0] != "Z":
            found.append(int(name))
    return found
