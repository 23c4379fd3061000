"""Questions on a real terminal: a pty whose other end is in our hands."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import sys
import termios
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gotunnel_alone import GOTUNNEL, environment
from tests.lab import proc
from tests.lab.keys import Key, new_key
from tests.lab.sshd import Sshd

ASKS = """
import asyncio, sys, os
from gotunnel.cli.ask import terminal
async def main():
    ask = terminal()
    if ask is None: return print("nobody")
    {body}
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""


class Terminal:
    """A program on a terminal of its own; `said` is all that came from it."""

    def __init__(self, argv: list[str], env: dict[str, str], *, stderr: str | None = None) -> None:
        self.said = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            if stderr is not None:
                os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT), 2)
            os.execve(argv[0], argv, env)
        self.status: int | None = None

    def until(self, words: str, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while words not in self.said:
            assert time.monotonic() < deadline, self.said
            if not self._read(deadline - time.monotonic()):
                assert words in self.said, self.said
                return

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def finish(self) -> int:
        """Its status as a shell says it, after all its output."""
        while self._read(30.0):
            pass
        if self.status is None:
            code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            self.status = code if code >= 0 else 128 - code
        return self.status

    @property
    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self.fd)[3] & termios.ECHO)

    @property
    def sends_signals(self) -> bool:
        return bool(termios.tcgetattr(self.fd)[3] & termios.ISIG)

    def _read(self, seconds: float) -> bool:
        if not select.select([self.fd], [], [], max(seconds, 0))[0]:
            return False
        with contextlib.suppress(OSError):  # EIO: all have closed it
            if data := os.read(self.fd, 65536):
                self.said += data.decode(errors="replace").replace("\r\n", "\n")
                return True
        return False

    def close(self) -> None:
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


Start = Callable[..., Terminal]


@pytest.fixture
def on_terminal(tmp_path: Path) -> Iterator[Start]:
    """`on_terminal(body)` runs a program that asks; `on_terminal(argv=[…])` any other."""
    with contextlib.ExitStack() as stack:

        def start(body: str = "", *, argv: list[str] | None = None, stderr: str | None = None) -> Terminal:
            env = environment(tmp_path, PYTHONPATH=str(proc.ROOT), PYTHONWARNINGS="error", TERM="dumb")
            made = Terminal(argv or [sys.executable, "-c", ASKS.format(body=body)], env, stderr=stderr)
            stack.callback(made.close)
            return made

        yield start


def test_a_secret_is_not_echoed_and_the_terminal_is_restored(on_terminal: Start) -> None:
    program = on_terminal("answer = await ask('Pass\\x1b[2J for \\nkey: '); print(repr(answer))")
    program.until("key: ")
    assert not program.echoes
    program.type("s3cret w\u00f6rd\n")
    program.until("'s3cret")
    assert program.finish() == 0
    assert program.said == "gotunnel: Pass [2J for\ngotunnel: key: \n's3cret wörd'\n"


def test_what_is_no_secret_is_echoed_and_questions_come_one_by_one(on_terminal: Start) -> None:
    program = on_terminal(
        "from gotunnel.upstream.asking import Asking; ask = Asking(ask); "
        "print(await asyncio.gather(ask('one? ', echo=True), ask('two? '))); input('back: ')"
    )
    program.until("one? ")
    assert program.echoes
    program.type("first\n")
    program.until("two? ")
    assert not program.echoes
    program.type("second\n")
    program.until("back: ")
    assert program.echoes
    assert program.sends_signals
    assert "one? first\ngotunnel: two? \n['first', 'second']" in program.said


@pytest.mark.parametrize(
    ("key", "shown"), [("typed\x03", "interrupted"), ("\x04", "None"), ("\x04\x04", "None")]
)
def test_keys_that_are_no_answer(key: str, shown: str, on_terminal: Start) -> None:
    program = on_terminal("print(await ask('? ')); await asyncio.sleep(0.5)")
    program.until("? ")
    program.type(key)
    program.until(shown)
    assert program.echoes
    assert program.sends_signals
    assert program.finish() == 0


def test_a_cancelled_question_gives_the_terminal_back_and_takes_no_line(on_terminal: Start) -> None:
    program = on_terminal(
        "task = asyncio.get_running_loop().create_task(ask('? ')); await asyncio.sleep(0.5); task.cancel(); "
        "await asyncio.wait([task]); print('got', input('next: '))"
    )
    program.until("next: ")
    assert program.echoes
    program.type("a line\n")
    program.until("got a line")
    assert program.finish() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_who_is_killed_gives_the_terminal_back(number: int, on_terminal: Start) -> None:
    program = on_terminal("await ask('? ')")
    program.until("? ")
    assert not program.echoes
    os.kill(program.pid, number)
    program.until("? \n")  # it left the line
    status = os.waitstatus_to_exitcode(os.waitpid(program.pid, 0)[1])
    program.status = status
    assert status == -number
    assert program.echoes


def test_without_a_terminal_to_read_on_nobody_is_asked(on_terminal: Start, tmp_path: Path) -> None:
    program = on_terminal("", stderr=str(tmp_path / "log"))
    assert program.finish() == 0
    assert program.said == "nobody\n"


def test_a_run_in_the_background_asks_nothing(on_terminal: Start) -> None:
    fork = "import os\nif os.fork():\n    os.wait()\nelse:\n    os.setpgid(0, 0)\n"
    asks = textwrap.indent(ASKS.format(body="print(await ask('? '))"), "    ")
    program = on_terminal(argv=[sys.executable, "-c", fork + asks])
    assert program.finish() == 0
    assert program.said == "None\n"


def test_run_asks_for_a_passphrase_and_goes_on(
    sshd: Callable[..., Sshd], client_key: Key, on_terminal: Start, tmp_path: Path
) -> None:
    server = sshd()
    locked = new_key(tmp_path / "locked", passphrase="open sesame")
    server.authorize(locked)
    script = tmp_path / "cmd"
    script.write_text(
        f"#!{sys.executable}\nimport subprocess, sys\n"
        f"print(subprocess.run([sys.executable, '-m', 'gotunnel', 'connect', '127.0.0.1', '{server.port}'], "
        "stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout[:8])\n"
    )
    script.chmod(0o700)
    program = on_terminal(argv=[
        *GOTUNNEL, "run", "-J", f"{server.user}@127.0.0.1:{server.port}", "-i", str(locked.private),
        "-F", "none", "--known-hosts", str(tmp_path / "known_hosts"), "--", str(script),
    ])  # fmt: skip
    program.until(f"Passphrase for {locked.private}: ")
    program.type("wrong\n")
    program.until(f"{locked.private}: \ngotunnel: Passphrase")
    program.type("open sesame\n")
    assert program.finish() == 0
    assert "b'SSH-2.0-'" in program.said
    assert "sesame" not in program.said


def test_a_command_that_needs_no_network_ends_the_question(
    sshd: Callable[..., Sshd], on_terminal: Start, tmp_path: Path
) -> None:
    server = sshd()
    locked = new_key(tmp_path / "locked", passphrase="open sesame")
    (tmp_path / "go").touch()
    command = f"while [ -e {tmp_path}/go ]; do sleep 0.05; done; exit 7"
    program = on_terminal(argv=[
        *GOTUNNEL, "run", "-J", f"127.0.0.1:{server.port}", "-i", str(locked.private), "-F", "none",
        "--known-hosts", str(tmp_path / "known_hosts"), "--", "sh", "-c", command,
    ])  # fmt: skip
    program.until("Passphrase for ")
    assert not program.echoes
    (tmp_path / "go").unlink()
    assert program.finish() == 7
    assert program.echoes
    assert program.sends_signals


def test_ctrl_c_at_a_question_ends_the_run(
    sshd: Callable[..., Sshd], on_terminal: Start, tmp_path: Path
) -> None:
    server = sshd()
    locked = new_key(tmp_path / "locked", passphrase="open sesame")
    program = on_terminal(argv=[
        *GOTUNNEL, "run", "-J", f"127.0.0.1:{server.port}", "-i", str(locked.private), "-F", "none",
        "--known-hosts", str(tmp_path / "known_hosts"), "--", "sleep", "60",
    ])  # fmt: skip
    program.until("Passphrase for ")
    program.type("half\x03")
    assert program.finish() == 130
    assert program.echoes


def test_connect_asks_about_a_new_host_key_and_keeps_it(
    sshd: Callable[..., Sshd], client_key: Key, on_terminal: Start, tmp_path: Path
) -> None:
    server = sshd()
    known = tmp_path / "mine"
    known.write_text("")
    argv = [*GOTUNNEL, "connect", "-J", f"{server.user}@127.0.0.1:{server.port}",
            "-i", str(client_key.private), "-F", "none", "--known-hosts", str(known),
            "127.0.0.1", str(server.port)]  # fmt: skip
    program = on_terminal(argv=argv)
    program.until("fingerprint)? ")
    assert "ED25519 SHA256:" in program.said
    program.type("maybe\n")
    program.until("yes, no or the fingerprint: ")
    program.type("yes\n")
    program.until("SSH-2.0-")
    program.type("\x03")
    assert program.finish() == 130
    assert known.read_text() == f"[127.0.0.1]:{server.port} {' '.join(server.host_key.public.split()[:2])}\n"
    program = on_terminal(argv=argv)
    program.until("SSH-2.0-")
    assert "trust" not in program.said
