"""A real systemd as PID 1 of a box: private namespaces on a throw-away overlay of this machine.

Rules:
- systemd gets a child cgroup of ours in every hierarchy in use.  One that is started in the root cgroup
  would move every process of the machine; so a box that can't have its own isn't opened.
- Its network is its own too, with loopback only; what is written inside goes to memory.  Homes are empty, so
  Python, its libraries and gotunnel are shown below /opt/box.
- When it is closed, or we are killed, its PID 1 is killed, and with it everything inside; empty cgroups of
  earlier ones that were killed are swept at the next start.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from tests.lab import proc
from tests.lab.proc import LabError

GOTUNNEL = "/opt/box/bin/gotunnel"  # installed inside as a user would, outside of anybody's home
_PYTHON = f"/opt/box/python/bin/python{sys.version_info[0]}.{sys.version_info[1]}"
_ENVIRONMENT = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "LD_LIBRARY_PATH=/opt/box/python/lib")
_SHOWN = {
    sys.base_prefix: "/opt/box/python",
    sysconfig.get_path("purelib"): "/opt/box/site",
    str(proc.ROOT / "gotunnel"): "/opt/box/source/gotunnel",
}
_PROGRAM = f"""\
#!{_PYTHON}
import sys
sys.path[:0] = ["/opt/box/source", "/opt/box/site"]
from gotunnel.cli.main import entry
sys.exit(entry())
"""

SYSTEMD = Path("/lib/systemd/systemd")
_SCRIPT = Path(__file__).with_suffix(".sh")
_NAME = "gotunnel-box"
_V1 = ("memory", "pids", "cpu", "cpuacct", "devices")


def can_box() -> tuple[bool, str]:
    """Whether a box can be opened here; else why not, in one line."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return False, "a systemd in a box needs root on Linux"
    if not SYSTEMD.exists():
        return False, "not installed: systemd"
    missing = [name for name in ("unshare", "nsenter", "pivot_root") if proc.tool(name) is None]
    if missing:
        return False, f"not installed: {', '.join(missing)} (util-linux)"
    if not any(_hierarchies()):
        return False, "no cgroup hierarchy can be written here"
    return True, ""


def _hierarchies() -> Iterator[tuple[str, Path]]:
    """(controller, "" for version 2; our own cgroup's directory) of each hierarchy that systemd would use."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controller, path = line.split(":", 2)
        name = controller.removeprefix("name=")
        if name not in ("", "systemd", *_V1):
            continue
        for _, where, kind, options, *_ in mounts:
            fits = kind == "cgroup2" if not name else kind == "cgroup" and name in _names(options)
            directory = Path(where + path.rstrip("/"))
            if fits and os.access(directory / "cgroup.procs", os.W_OK):
                yield name, directory
                break


def _names(options: str) -> list[str]:
    return [word.removeprefix("name=") for word in options.split(",")]


class _Network:
    """The box's network, seen with this machine's files and processes."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def wrap(self, argv: Sequence[str]) -> list[str]:
        return [proc.need_tool("nsenter"), "-t", str(self._pid), "-n", *argv]


class SystemdBox:
    """One box; as a place for commands it is inside, `network` is its network alone."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._cgroups: list[Path] = []
        self._outer: proc.Process | None = None
        self.pid = 0  # systemd's, as seen from here

    # --- its life ---------------------------------------------------------------------------------

    def start(self) -> Self:
        """Returns when systemd has done its first job.  Raises LabError."""
        scratch = self._directory / "box"
        scratch.mkdir(parents=True)
        controllers = self._own_cgroups()
        tasks = [str(group / "cgroup.procs") for group in self._cgroups]
        shown = [word for pair in _SHOWN.items() for word in pair]
        enter = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit 1; shift; done; shift; exec "$@"'
        argv = ["sh", "-c", enter, "enter", *tasks, "--",
                *("unshare", "--fork", "--pid", "--mount", "--cgroup", "--uts", "--ipc", "--net"),
                "--kill-child=KILL", "sh", str(_SCRIPT), str(scratch),
                " ".join(controllers), *shown]  # fmt: skip
        self._outer = proc.Process(argv, log=self._directory / "log")
        try:
            self._outer.wait_ready("systemd in its box", self._booted, 30.0)
        except BaseException:
            self.close()
            raise
        self.network = _Network(self.pid)
        self.write(GOTUNNEL, _PROGRAM, "0755")
        return self

    def _own_cgroups(self) -> list[str]:
        """Make them; the names of the version 1 hierarchies."""
        found = list(_hierarchies())
        names = {name for name, _ in found}
        if "" not in names or (names != {""} and "systemd" not in names):
            # systemd would make itself a home in one that isn't ours
            raise LabError("the cgroup hierarchies that systemd wants can't be written here")
        for _, directory in found:
            for old in directory.glob(f"{_NAME}-*"):
                if not proc.started_at(int(old.name.rpartition("-")[2])):
                    _remove(old)
            group = directory / f"{_NAME}-{os.getpid()}"
            group.mkdir()
            self._cgroups.append(group)
        return [name for name, _ in found if name]

    def _booted(self) -> bool:
        assert self._outer is not None
        with contextlib.suppress(OSError, ValueError):
            children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
            if children and Path(f"/proc/{children[0]}/comm").read_text().strip() == "systemd":
                self.pid = int(children[0])
                argv = self.wrap(["systemctl", "is-system-running"])
                return subprocess.run(argv, capture_output=True, check=False).returncode == 0
        return False

    def close(self) -> None:
        """End everything inside, and remove what was made."""
        if self._outer is not None:
            self._outer.kill()
        for group in self._cgroups:
            deadline = time.monotonic() + 5
            while not _remove(group) and time.monotonic() < deadline:
                time.sleep(0.02)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- what is done inside ------------------------------------------------------------------------

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` inside."""
        enter = [proc.need_tool("nsenter"), "-t", str(self.pid), "-m", "-p", "-C", "-u", "-i", "-n"]
        return [*enter, "env", "-i", *_ENVIRONMENT, *argv]

    def run(self, *argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """`proc.run` inside."""
        return proc.run(argv, place=self, cwd=Path("/"), **options)

    def write(self, path: str, text: str, mode: str = "0644") -> None:
        """A file inside."""
        script = 'mkdir -p "$(dirname "$1")" && umask 077 && cat > "$1" && chmod "$2" "$1"'
        self.run("sh", "-c", script, "write", path, mode, stdin=text)

    def systemctl(self, *words: str, check: bool = True) -> str:
        """What systemctl says."""
        return self.run("systemctl", *words, check=check).stdout.strip()

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.systemctl("show", "--value", "-p", name, unit)

    def journal(self) -> str:
        """What systemd and the services said."""
        return self.run("journalctl", "--no-pager", "-o", "cat", check=False).stdout


def _remove(group: Path) -> bool:
    """Remove an empty cgroup with the empty ones below; True when it is gone."""
    for directory, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(directory)
    return not group.exists()
