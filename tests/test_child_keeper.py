"""Nothing that CMD started lives on, however it or we end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gotunnel.child.sweep import descendants

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="orphans are adopted on Linux only"
)

DRIVER = [sys.executable, "-m", "tests.child_driver"]
# a daemon in a session of its own, one that forked twice, one that ignores SIGTERM, and a plain child
FAMILY = """
setsid sleep 300 &
(setsid sh -c 'sleep 300; :' &)
(trap '' TERM HUP INT; setsid sh -c 'sleep 300; :' &)
sleep 300 &
"""


def marked(mark: str) -> list[int]:
    """The living processes whose environment holds GOTUNNEL_RUN_ID=mark."""
    pids = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if f"GOTUNNEL_RUN_ID={mark}".encode() in Path(f"/proc/{entry}/environ").read_bytes():
                pids.append(int(entry))
    return pids


def below(pid: int) -> list[int]:
    """The direct children of `pid`."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


class Run:
    """A driver whose CMD starts the family; `spare` and `keeper` are the helpers beside it."""

    def __init__(self, ending: str) -> None:
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [*DRIVER, "sh", "-c", FAMILY + ending],
            env={**os.environ, "GOTUNNEL_RUN_ID": self.mark},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def family(self) -> list[int]:
        return [pid for pid in marked(self.mark) if pid != self.process.pid]

    def stand(self) -> None:
        """Wait until the whole family is there."""
        until(lambda: [name(pid) for pid in self.family()].count("sleep") == 4, "the family never stood")
        [self.spare] = below(self.process.pid)
        [self.keeper, *_] = below(self.spare)

    def gone(self) -> None:
        until(lambda: not self.family(), "some of the family live on")
        until(lambda: not (name(self.spare) or name(self.keeper)), "a helper lives on")


def name(pid: int) -> str:
    """Of a living process, else empty."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().replace("(", ")").split(")")
    except OSError:
        return ""
    return words[1] if words[2].split()[0] != "Z" else ""


@pytest.fixture
def run() -> Iterator[Callable[[str], Run]]:
    runs: list[Run] = []

    def start(ending: str) -> Run:
        runs.append(Run(ending))
        return runs[-1]

    yield start
    for each in runs:
        each.process.kill()
        each.process.communicate()
        for pid in each.family():  # only after a failure
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("group", [False, True], ids=["alone", "with-its-group"])
def test_gotunnel_is_killed(run: Callable[[str], Run], group: bool) -> None:
    it = run("wait")
    it.stand()
    if group:  # `kill -9 %1`, `timeout -s KILL`: takes the keeper and CMD along, not the spare
        os.killpg(it.process.pid, signal.SIGKILL)
    else:
        it.process.kill()
    it.gone()


def test_gotunnel_is_killed_while_its_group_is_stopped(run: Callable[[str], Run]) -> None:
    it = run("wait")
    it.stand()
    os.killpg(it.process.pid, signal.SIGSTOP)
    it.process.kill()
    it.gone()


@pytest.mark.parametrize("helpers", [["spare"], ["keeper"], ["spare", "keeper"], ["keeper", "spare"]])
def test_helpers_are_killed(run: Callable[[str], Run], helpers: list[str]) -> None:
    it = run("wait")
    it.stand()
    for helper in helpers:
        os.kill(getattr(it, helper), signal.SIGKILL)
    if helpers == ["spare"]:
        it.process.terminate()  # the keeper does without; and is not in the way of an orderly end
        _, errors = it.process.communicate(timeout=30)
        assert (it.process.returncode, errors) == (143, "")
    else:
        _, errors = it.process.communicate(timeout=30)
        assert it.process.returncode == 137
        assert errors == "gotunnel: sh was killed, for its helper process was\n"
    it.gone()


def test_cmd_ends_and_leaves_daemons(run: Callable[[str], Run]) -> None:
    it = run("sleep 1; exit 9")
    assert it.process.wait(30) == 9
    assert it.family() == []


def test_cmd_is_killed(run: Callable[[str], Run]) -> None:
    it = run("wait")
    it.stand()
    [cmd] = [pid for pid in below(it.keeper) if name(pid) == "sh" and os.getsid(pid) == it.process.pid]
    os.kill(cmd, signal.SIGKILL)
    assert it.process.wait(30) == 137
    it.gone()


def test_no_secret_and_no_name_of_ours_is_in_the_helpers_argv(run: Callable[[str], Run]) -> None:
    it = run("wait")
    it.stand()
    for helper in (it.spare, it.keeper):
        argv = Path(f"/proc/{helper}/cmdline").read_bytes()
        environment = Path(f"/proc/{helper}/environ").read_bytes()
        assert b"gotunnel" not in argv
        assert it.mark.encode() not in argv + environment


def test_where_nobody_adopts_the_tree_is_read_from_ps() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 300 & echo; wait"], stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        tree = below(shell.pid)
        assert {shell.pid, *tree} <= set(descendants())
        for pid in (shell.pid, *tree):
            os.kill(pid, signal.SIGKILL)
    assert shell.pid not in descendants()
