"""Where a secret could come out: ps, another's view of the environment, logs, events, core files, crash texts."""

# ruff: noqa: E501
from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import need
from tests.gotunnel_alone import environment
from tests.lab.keys import Key
from tests.lab.proc import ROOT
from tests.security import GOTUNNEL, World, head_of, reply

PASSWORD, IN_FILE = "hush-of-the-variable", "hush-of-the-file"
LINUX = (sys.platform.startswith("linux"), "reads /proc")


class Run:
    """A `gotunnel run` whose CMD waits until it was looked at."""

    def __init__(self, home: Path, *options: str, cmd: Sequence[str] = (), **env: str) -> None:
        self.home, self.go_on = home, home / "go-on"
        waiting = f"env > {home}/env; while [ ! -e {self.go_on} ]; do sleep 0.05; done"
        self.process = subprocess.Popen(
            [*GOTUNNEL, *options[:2], "run", *options[2:], "--events", str(home / "events"), "--", *(cmd or ["sh", "-c", waiting])],
            env=environment(home, PYTHONPATH=str(ROOT), **env), cwd=home, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def wait_for_cmd(self) -> dict[str, str]:
        """What CMD has in its environment."""
        until = time.monotonic() + 40
        while not (self.home / "env").exists() or "GOTUNNEL_RUN_ID" not in (self.home / "env").read_text():
            assert time.monotonic() < until
            assert self.process.poll() is None, self.process.communicate()[1]
            time.sleep(0.05)
        lines = (self.home / "env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def family(self) -> list[int]:
        """The process and all below it."""
        found, look = [], [self.process.pid]
        while look:
            found.append(pid := look.pop())
            with contextlib.suppress(OSError):
                for task in os.listdir(f"/proc/{pid}/task"):
                    look += [int(w) for w in Path(f"/proc/{pid}/task/{task}/children").read_text().split()]
        return found

    def end(self) -> tuple[int, str]:
        self.go_on.touch()
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out + err


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def test_ps_shows_no_secret_of_gotunnel_nor_of_anything_it_starts(
    tmp_path: Path, world: World, client_key: Key
) -> None:
    need(LINUX)
    (tmp_path / "password").write_text(IN_FILE + "\n")
    key = client_key.private.read_text()
    run = Run(
        tmp_path, "--log-level", "debug",
        "--via", f"http://u@127.0.0.1:{world.port}?password_env=HUSH",
        "--via", f"http://u@127.0.0.1:{world.port}?password_file={tmp_path}/password",
        HUSH=PASSWORD, GOTUNNEL_SSH_KEY=key,
    )  # fmt: skip
    env = run.wait_for_cmd()
    secret = env["HTTPS_PROXY"].rpartition("@")[0].rpartition(":")[2]
    secrets = [
        PASSWORD,
        IN_FILE,
        secret,
        env["GOPROXY"].partition(",")[0].rpartition("/")[2],
        *key.split("\n")[1:-2],
    ]
    assert all(len(word) > 8 for word in secrets)
    family = run.family()
    assert len(family) >= 3  # gotunnel, its keeper, CMD
    for pid in family:
        shown = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/comm").read_bytes()
        assert not [word for word in secrets if word.encode() in shown], shown
    # the commands that git and ssh will run are seen in ps as well
    for name in ("GIT_SSH_COMMAND", "GIT_PROXY_COMMAND"):
        assert not [word for word in secrets if word in env.get(name, "")]
    status, said = run.end()
    told = said + (tmp_path / "events").read_text()
    assert status == 0
    assert not [word for word in secrets if word in told]


def test_a_password_typed_is_warned_of_and_said_no_second_time(tmp_path: Path, world: World) -> None:
    run = Run(
        tmp_path, "--log-level", "debug", "--via", f"http://u:{PASSWORD}@127.0.0.1:{world.port}", cmd=["true"]
    )
    status, said = run.end()
    assert (status, said.count("can be seen in ps"), said.count(PASSWORD)) == (0, 1, 0)


# becomes nobody when all is imported (the files may lie where nobody can go), is looked at by a child of the
# same user, runs the command line's own main, and is looked at again from where `run` would begin
_LOOKED_AT = """
import ctypes, os, sys, threading
import locale, gotunnel.cli.options, gotunnel.observe.logs
from gotunnel.cli import main as m, run
libc = ctypes.CDLL(None)
run.main = lambda args: 0
m.main(["run", "true"])  # imports all that it needs
os.setgroups([]); os.setgid(65534); os.setuid(65534)
libc.prctl(4, 1, 0, 0, 0)  # as an ordinary start leaves it

def ask():
    read, write = os.pipe()
    if os.fork() == 0:
        libc.prctl(4, 1, 0, 0, 0)
        found = []
        for name in ("environ", "mem", "maps"):
            try:
                with open(f"/proc/{os.getppid()}/{name}", "rb"):
                    found.append(name)
            except OSError:
                pass
        os.write(write, " ".join(found).encode() or b"nothing")
        os._exit(0)
    os.wait()
    return os.read(read, 100).decode()

before = ask()
run.main = lambda args: print(before, "|", ask(), "|", libc.prctl(3, 0, 0, 0, 0)) or 0
sys.exit(m.main(["run", "true"]))
"""


def test_the_process_that_holds_secrets_leaves_no_core_and_lets_no_peer_in(
    tmp_path: Path, world: World
) -> None:
    """Seen as another process of the same user sees it: that is what a hostile build step is."""
    need(LINUX, (os.getuid() == 0, "only root can become somebody else"))
    ran = subprocess.run(
        [sys.executable, "-c", _LOOKED_AT], capture_output=True, text=True, timeout=60, check=False,
        env=environment(tmp_path, PYTHONPATH=str(ROOT)),
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    before, after, flag = (part.strip() for part in ran.stdout.split("|"))
    assert "environ" in before  # an ordinary process of this user is open to its peers
    assert (after, flag) == ("nothing", "0")


def test_cmd_itself_may_be_looked_at_and_dump_its_core_as_ever(tmp_path: Path, world: World) -> None:
    need(LINUX)
    run = Run(tmp_path, "--log-level", "error", "--via", f"http://127.0.0.1:{world.port}", cmd=[
        sys.executable, "-c", "import ctypes, resource; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(4))",
    ])  # fmt: skip
    status, said = run.end()
    import resource

    assert (status, said.strip()) == (0, f"1 {resource.getrlimit(resource.RLIMIT_CORE)}")


_CRASH = """
import os, sys, threading
from gotunnel.upstream.spec import parse_chain, Secret
from gotunnel.cli import main as m
from gotunnel.cli import run
from gotunnel.listener.auth import Keys
keys = Keys("secret-of-the-endpoint")
password = Secret(env="HUSH").read()
text = f"{password} secret-of-the-endpoint http://u:typed-hush@h/ {os.environ['GOTUNNEL_SSH_KEY']}"
class Late:
    def __del__(self): raise ValueError(text)
def crash(args):
    thread = threading.Thread(target=lambda: 1 / 0 if not text else (_ for _ in ()).throw(ValueError(text)))
    thread.start(); thread.join()
    Late()
    try:
        raise KeyError(text)
    except KeyError as error:
        raise RuntimeError([text]) from error
run.main = crash
sys.exit(m.main(["run", "true"]))
"""


def test_a_crash_text_holds_no_secret(tmp_path: Path, client_key: Key) -> None:
    """Injected into the main thread, another thread and a finaliser."""
    key = client_key.private.read_text()
    ran = subprocess.run(
        [sys.executable, "-c", _CRASH], capture_output=True, text=True, timeout=60, check=False,
        env=environment(tmp_path, PYTHONPATH=str(ROOT), HUSH=PASSWORD, GOTUNNEL_SSH_KEY=key),
    )  # fmt: skip
    assert ran.returncode == 1
    for word in ("RuntimeError", "KeyError", "ValueError", "in crash", "***"):
        assert word in ran.stderr
    assert ran.stderr.count("Traceback") == 4
    for word in (PASSWORD, "secret-of-the-endpoint", "typed-hush", *key.split("\n")[1:-2]):
        assert word not in ran.stderr, word


def test_a_failure_s_text_holds_no_secret(tmp_path: Path) -> None:
    """A proxy that gives our password back in its refusal: it is not handed on to logs, events and CMD."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    conn, _ = server.accept()
                    with conn, contextlib.suppress(OSError):
                        head = head_of(conn).decode()
                        sent = head.partition("Authorization: Basic ")[2].partition("\r\n")[0]
                        words = f"{PASSWORD} {sent} http://u:{PASSWORD}@h/ \x1b[31m"
                        reply(words.encode(), status=f"403 no {words}", headers=f"X: {words}\r\n")(conn, b"")

        threading.Thread(target=serve, daemon=True).start()
        curl = ["sh", "-c", 'curl -sv -m 20 https://t.example/ 2>&1 | grep -v -i "authorization:"; true']
        run = Run(
            tmp_path, "--log-level", "debug", "--via", f"http://u@127.0.0.1:{server.getsockname()[1]}?password_env=HUSH",
            cmd=curl, HUSH=PASSWORD,
        )  # fmt: skip
        _, said = run.end()
        server.shutdown(socket.SHUT_RDWR)
    told = said + (tmp_path / "events").read_text()
    assert "proxy.denied" in told
    assert PASSWORD not in told
    assert "\x1b" not in told
    for line in (tmp_path / "events").read_text().splitlines():
        json.loads(line)


def test_a_signal_that_would_dump_core_dumps_none(tmp_path: Path, world: World) -> None:
    need(LINUX)
    run = Run(tmp_path, "--log-level", "error", "--via", f"http://127.0.0.1:{world.port}")
    run.wait_for_cmd()
    os.kill(run.process.pid, signal.SIGSEGV)
    run.process.communicate(timeout=30)
    status = run.process.returncode
    run.go_on.touch()
    assert status == -signal.SIGSEGV
    assert not list(tmp_path.glob("core*"))
