"""Each signal reaches CMD exactly once, and job control is what it would be without us."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gotunnel.child.signals import Signals

DRIVER = [sys.executable, "-m", "tests.child_driver"]
# counts what it gets until half a second after the first; a second one would be there by then
COUNTER = """
import os, signal, sys, time
got = []
for number in (1, 2, 3, 10, 12, 15, 28):
    signal.signal(number, lambda number, _: got.append(number))
if "moved" in sys.argv:
    os.setsid()
print("ready", os.getpid(), flush=True)
while not got:
    time.sleep(0.02)
time.sleep(0.5)
print("got", *got, "end", flush=True)
"""


@pytest.fixture
def counter(tmp_path: Path) -> list[str]:
    """A command that counts signals, under the driver."""
    script = tmp_path / "counter.py"
    script.write_text(COUNTER)
    return [*DRIVER, sys.executable, str(script)]


class Counted:
    """A running counter without a terminal; `pid` is the driver's, `cmd` the counter's."""

    def __init__(self, argv: list[str]) -> None:
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self.process.stdout is not None
        self.pid, self.cmd = self.process.pid, int(self.process.stdout.readline().split()[1])

    def got(self) -> str:
        out, _ = self.process.communicate(timeout=30)
        return str(out).strip()


@pytest.mark.parametrize("number", ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "WINCH"])
def test_a_signal_to_gotunnel_reaches_cmd_once(counter: list[str], number: str) -> None:
    it = Counted(counter)
    wanted = signal.Signals[f"SIG{number}"]
    os.kill(it.pid, wanted)
    assert it.got() == f"got {wanted:d} end"


def test_each_of_several_signals_is_passed_on(counter: list[str]) -> None:
    it = Counted(counter)
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
        os.kill(it.pid, number)
    assert sorted(it.got().split()) == ["10", "12", "15", "end", "got"]


def test_a_signal_to_the_group_reaches_cmd_once(counter: list[str]) -> None:
    it = Counted(counter)
    os.killpg(it.pid, signal.SIGTERM)
    assert it.got() == "got 15 end"


def test_what_timeout_does_reaches_cmd_once(counter: list[str]) -> None:
    it = Counted(counter)
    os.kill(it.pid, signal.SIGTERM)  # timeout(1): first its child, then its group
    os.killpg(it.pid, signal.SIGTERM)
    assert it.got() == "got 15 end"


def test_what_systemd_does_reaches_cmd_once(counter: list[str]) -> None:
    it = Counted(counter)
    [spare] = Path(f"/proc/{it.pid}/task/{it.pid}/children").read_text().split()
    [keeper] = Path(f"/proc/{spare}/task/{spare}/children").read_text().split()
    for pid in (it.pid, int(spare), int(keeper), it.cmd):  # each process of the control group
        os.kill(pid, signal.SIGTERM)
    assert it.got() == "got 15 end"


def test_cmd_that_left_the_group_gets_the_group_s_signals_too(counter: list[str]) -> None:
    it = Counted([*counter, "moved"])
    os.killpg(it.pid, signal.SIGTERM)
    assert it.got() == "got 15 end"


def test_a_signal_that_comes_while_cmd_is_being_started_is_not_lost() -> None:
    for delay in (0.0, 0.005, 0.01, 0.02, 0.03, 0.04):
        script = (
            "import asyncio, os, signal, sys\n"
            "from gotunnel.child.run import Child\n"
            "from gotunnel.child.signals import Signals\n"
            "async def main():\n"
            "    with Signals() as signals:\n"
            f"        asyncio.get_running_loop().call_later({delay}, os.killpg, 0, signal.SIGINT)\n"
            "        async with Child(['sleep', '300'], env=os.environ, signals=signals) as child:\n"
            "            sys.exit((await child.wait()).status)\n"
            "asyncio.run(main())\n"
        )
        done = subprocess.run([sys.executable, "-c", script], start_new_session=True, timeout=30)
        assert done.returncode == 130, delay


def state(pid: int) -> str:
    """The process state letter of ps(1); T is stopped."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def test_stop_and_continue_by_kill() -> None:
    # a group of its own in our session: in one without a parent there, the kernel ignores SIGTSTP
    argv = [*DRIVER, "sh", "-c", "echo ready $$; read -r line"]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
    ) as process:
        assert process.stdout is not None
        cmd = int(process.stdout.readline().split()[1])
        for _ in range(3):
            os.kill(process.pid, signal.SIGTSTP)
            until(lambda: state(cmd) == state(process.pid) == "T", "not both stopped")
            os.kill(process.pid, signal.SIGCONT)
            until(lambda: "T" not in (state(cmd), state(process.pid)), "not both went on")
        process.communicate("line\n", timeout=30)
        assert process.returncode == 0


def test_cmd_that_is_killed_while_stopped_ends_us() -> None:
    argv = [*DRIVER, "sh", "-c", "echo ready $$; read -r line"]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
    ) as process:
        assert process.stdout is not None
        cmd = int(process.stdout.readline().split()[1])
        os.kill(cmd, signal.SIGSTOP)
        until(lambda: state(process.pid) == "T", "gotunnel did not follow CMD")
        os.kill(cmd, signal.SIGKILL)
        assert process.wait(30) == 137


class Terminal:
    """A shell, or another session leader, on a pseudo-terminal of its own."""

    BOOT = (
        "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )

    def __init__(self, argv: list[str]) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, b"\x18\x00\xff\x00\x00\x00\x00\x00")  # no lines are broken
        env = {**os.environ, "PS1": "<$?>", "TERM": "dumb"}
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", self.BOOT, *argv], stdin=slave, stdout=slave, stderr=slave, env=env
        )
        os.close(slave)
        self._seen = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait until `pattern` is on the screen, after what was expected before."""
        end = time.monotonic() + 30
        while not (match := re.search(pattern, self._seen)):
            ready, _, _ = select.select([self._master], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"no {pattern!r} in {self._seen!r}"
            self._seen += os.read(self._master, 65536).decode()
        self._seen = self._seen[match.end() :]
        return match

    def sleeps(self) -> bool:
        """The foreground has a sleep(1) that isn't stopped."""
        group = os.tcgetpgrp(self._master)
        members = [int(pid) for pid in os.listdir("/proc") if pid.isdigit()]
        for pid in members:
            with contextlib.suppress(OSError):
                name, words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)
                if name.endswith("(sleep") and int(words.split()[2]) == group and words.split()[0] == "S":
                    return True
        return False

    def hang_up(self) -> None:
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def close(self) -> None:
        self.hang_up()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(30)


@pytest.fixture
def terminal() -> Iterator[Callable[[list[str]], Terminal]]:
    with contextlib.ExitStack() as stack:

        def start(argv: list[str]) -> Terminal:
            made = Terminal(argv)
            stack.callback(made.close)
            return made

        yield start


SHELL = ["bash", "--norc", "--noprofile", "--noediting", "-i"]


@pytest.mark.parametrize(("key", "number"), [("\x03", 2), ("\x1c", 3)], ids=["ctrl-c", "ctrl-backslash"])
def test_a_key_reaches_cmd_once(
    terminal: Callable[[list[str]], Terminal], counter: list[str], key: str, number: int
) -> None:
    alone = terminal(counter)  # `ssh -t host gotunnel run …`: no shell
    alone.expect(r"ready \d+")
    alone.type(key)
    alone.expect(rf"got {number} end")

    shell = terminal(SHELL)
    shell.type(shlex.join(counter) + "\n")
    shell.expect(r"ready \d+")
    shell.type(key)
    shell.expect(rf"got {number} end\s+<0>")


def test_a_signal_to_gotunnel_on_a_terminal_reaches_cmd_once(
    terminal: Callable[[list[str]], Terminal], counter: list[str]
) -> None:
    alone = terminal(counter)
    alone.expect(r"ready \d+")
    os.kill(alone.process.pid, signal.SIGINT)
    alone.expect(r"got 2 end")


def test_a_job_is_killed_once(terminal: Callable[[list[str]], Terminal], counter: list[str]) -> None:
    shell = terminal(SHELL)
    shell.type(shlex.join(counter) + " &\n")
    shell.expect(r"ready \d+")
    shell.type("kill %1\n")  # an interactive bash signals the whole group
    shell.expect(r"got 15 end")


def test_ctrl_z_and_fg(terminal: Callable[[list[str]], Terminal], tmp_path: Path) -> None:
    script = tmp_path / "reader.py"
    script.write_text(
        "import select, signal\n"
        "signal.signal(signal.SIGCONT, lambda *_: print('again', flush=True))\n"
        "print('ready', flush=True)\n"
        # one that comes just before read(2) would wait for a line
        "while not select.select([0], [], [], 0.05)[0]: pass\n"
        "print('heard', input())\n"
    )
    shell = terminal(SHELL)
    shell.type(shlex.join([*DRIVER, sys.executable, str(script)]) + "\n")
    shell.expect("ready")
    for _ in range(3):
        shell.type("\x1a")
        shell.expect(r"Stopped[^<]*<14\d>")
        shell.type("fg\n")
        before = shell.expect(r"again\r?\n")
        assert before.string.count("again") == 1
    shell.type("me\n")
    rest = shell.expect(r"heard me\s+<0>")
    assert "again" not in rest.string  # SIGCONT came once each time


def test_ctrl_z_then_bg(terminal: Callable[[list[str]], Terminal], tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text("import time\nprint('ready', flush=True)\ntime.sleep(1)\nprint('done')\n")
    shell = terminal(SHELL)
    shell.type(shlex.join([*DRIVER, sys.executable, str(script)]) + "\n")
    shell.expect("ready")
    shell.type("\x1a")
    shell.expect(r"Stopped[^<]*<14\d>")
    shell.type("bg\n")
    shell.expect(r"done\r?\n")


def test_cmd_that_stops_itself_stops_us(terminal: Callable[[list[str]], Terminal]) -> None:
    shell = terminal(SHELL)  # an editor reads Ctrl-Z as a key
    shell.type(shlex.join([*DRIVER, "sh", "-c", "kill -STOP $$; echo b''ack"]) + "\n")
    shell.expect(r"Stopped[^<]*<147>")
    shell.type("fg\n")
    shell.expect(r"back\s+<0>")


def test_reading_in_the_background_stops_as_it_should(terminal: Callable[[list[str]], Terminal]) -> None:
    shell = terminal(SHELL)
    shell.type(shlex.join([*DRIVER, "sh", "-c", "read -r line; echo heard $line"]) + " &\n")
    shell.expect(r"<0>")
    shell.type("wait %1\n")
    shell.expect(r"Stopped[^<]*<\d+>")
    shell.type("fg\n")
    shell.expect(r"heard \$line'\r?\n")
    shell.type("me\n")
    shell.expect(r"heard me\s+<0>")


def test_ctrl_c_ends_a_pipeline(terminal: Callable[[list[str]], Terminal]) -> None:
    shell = terminal(SHELL)
    shell.type(shlex.join([*DRIVER, "sleep", "300"]) + " | cat\n")
    until(shell.sleeps, "CMD never ran")
    shell.type("\x03")
    shell.expect(r"<130>")
    shell.type("exit ${PIPESTATUS[0]}\n")
    assert shell.process.wait(30) == 130


def test_an_interactive_shell_behaves_as_alone(terminal: Callable[[list[str]], Terminal]) -> None:
    outer = terminal(SHELL)
    outer.expect("<0>")
    outer.type("PS1='outer<$?>'\n")
    outer.expect("outer<0>")
    outer.type("PS1='<$?>' " + shlex.join([*DRIVER, *SHELL]) + "\n")
    outer.expect(r"\n<0>")
    outer.type("sleep 300\n")
    until(outer.sleeps, "the inner shell's job never ran")
    outer.type("\x1a")
    outer.expect(r"Stopped[^<]*<148>")
    outer.type("fg\n")
    until(outer.sleeps, "fg did not bring it back")
    outer.type("\x03")
    outer.expect(r"<130>")
    outer.type("suspend\n")
    outer.expect(r"Stopped(?s:.*)outer<147>")
    outer.type("fg\n")
    outer.expect(r"<\d+>")
    outer.type("exit 4\n")
    outer.expect(r"outer<4>")


def test_a_terminal_that_goes_away_takes_all_along(terminal: Callable[[list[str]], Terminal]) -> None:
    it = terminal([*DRIVER, "sh", "-c", "setsid sleep 300 & echo ready $! $$; wait"])
    match = it.expect(r"ready (\d+) (\d+)")
    it.hang_up()
    until(lambda: not any(state(int(pid)) for pid in match.groups()), "CMD or its daemon lives on")
    assert it.process.wait(30) == 129


async def test_between_two_runs_a_signal_ends_the_wait() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Signals() as signals:
        assert signals.interrupted is None
        os.kill(os.getpid(), signal.SIGWINCH)
        os.kill(os.getpid(), signal.SIGINT)
        assert await asyncio.wait_for(signals.wait(), 30) == signal.SIGINT
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.05)
        assert signals.interrupted == signal.SIGINT  # the first one
    assert signal.getsignal(signal.SIGINT) is before


def test_nohup_holds(counter: list[str]) -> None:
    it = Counted(["nohup", *counter])
    os.kill(it.pid, signal.SIGHUP)  # a command that installs a handler gets it, as it would alone
    assert it.got() == "got 1 end"
