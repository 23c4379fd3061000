"""CMD's streams, status and environment, as someone who calls `Child` or pipes a run sees them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gotunnel.child.run import Child, ChildResult, result_of, start_error
from gotunnel.child.signals import Signals
from gotunnel.errors import CommandError

DRIVER = [sys.executable, "-m", "tests.child_driver"]


async def run(*argv: str, path: str | None = None, cwd: str | None = None) -> ChildResult:
    env = dict(os.environ) if path is None else {"PATH": path}
    with Signals() as signals:
        async with Child(argv, env=env, signals=signals, cwd=cwd) as child:
            return await child.wait()


@pytest.mark.parametrize(
    ("script", "status", "signal"),
    [("exit 0", 0, None), ("exit 77", 77, None), ("kill -TERM $$", 143, 15), ("kill -KILL $$", 137, 9)],
)
async def test_status_is_the_shell_s(script: str, status: int, signal: int | None) -> None:
    assert await run("sh", "-c", script) == ChildResult(status, signal)


def test_wait_status_is_read() -> None:
    assert result_of(0x0300) == ChildResult(3)
    assert result_of(0x0080 | 6) == ChildResult(134, 6)  # with a core


async def test_what_cannot_be_started(tmp_path: Path) -> None:
    def file(name: str, text: str, mode: int) -> str:
        path = tmp_path / name
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    cases = {
        ("no-such-command-anywhere",): (127, "command not found"),
        ("",): (127, "not found"),
        ("two\nlines",): (127, "two lines: command not found"),
        (str(tmp_path / "missing"),): (127, "no such file"),
        (file("plain", "#!/bin/sh\n", 0o644),): (126, "permission denied"),
        (str(tmp_path),): (126, "is a directory"),
        (file("text", "echo hello\n", 0o755),): (126, "neither a program"),
        (file("lost", "#!/no/such/interpreter\n", 0o755),): (126, "interpreter"),
    }
    for argv, (status, words) in cases.items():
        with pytest.raises(CommandError) as caught:
            await run(*argv)
        assert caught.value.status == status
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(CommandError, match="can't start true in this directory: No such file") as caught:
        await run("true", cwd=str(tmp_path / "missing"))
    assert caught.value.status == 126


async def test_cmd_is_searched_in_its_own_path(tmp_path: Path) -> None:
    for place, mode, status in (("a", 0o644, 1), ("b", 0o755, 42)):
        (tmp_path / place).mkdir()
        (tmp_path / place / "tool").write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / place / "tool").chmod(mode)
    (tmp_path / "c" / "tool").mkdir(parents=True)
    assert (await run("tool", path=f"{tmp_path}/c:{tmp_path}/a:{tmp_path}/b")).status == 42
    with pytest.raises(CommandError, match="permission denied"):
        await run("tool", path=f"{tmp_path}/a")
    with pytest.raises(CommandError, match="not found"):
        await run("tool", path=f"{tmp_path}/c")


def test_an_unforeseen_errno_is_told_in_words() -> None:
    error = start_error("go", "exec", 7, "/usr/bin/go")
    assert str(error) == "/usr/bin/go: can't be run: Argument list too long"


def test_streams_are_byte_exact(tmp_path: Path) -> None:
    data = os.urandom(5_000_000)
    script = (
        "import sys; data = sys.stdin.buffer.read()\n"
        "sys.stdout.buffer.write(data); sys.stderr.buffer.write(data[::-1])"
    )
    tee = tmp_path / "tee"
    done = subprocess.run(
        [*DRIVER, "--tee", str(tee), sys.executable, "-c", script],
        input=data,
        capture_output=True,
        check=True,
    )
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()
    backwards = hashlib.sha256(data[::-1]).digest()
    assert hashlib.sha256(done.stderr).digest() == backwards
    assert hashlib.sha256(tee.read_bytes()).digest() == backwards


def test_standard_error_comes_at_once(tmp_path: Path) -> None:
    argv = [
        *DRIVER,
        "--tee",
        str(tmp_path / "tee"),
        "sh",
        "-c",
        "printf half >&2; read -r line; echo $line >&2",
    ]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        assert process.stderr.read(4) == b"half"  # though CMD has not ended its line, and waits for us
        process.stdin.write(b"way\n")
        process.stdin.close()
        assert process.stderr.read() == b"way\n"


def test_a_reader_of_standard_error_that_leaves_doesn_t_hold_cmd(tmp_path: Path) -> None:
    argv = [*DRIVER, "--tee", str(tmp_path / "tee"), "sh", "-c", "yes >&2; exit 5"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.read(10)
        process.stderr.close()
        assert process.wait(30) == 5


def test_a_pipe_that_closes_ends_cmd() -> None:
    shell = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$@" yes | head -1; echo ${PIPESTATUS[0]}', "-", *DRIVER],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert shell.stdout.split() == ["y", "141"], shell.stderr


def test_open_descriptors_are_inherited_and_none_of_ours_leaks() -> None:
    script = '"$@" ls -l /proc/self/fd 7<&0; cat <("$@" cat <(echo through))'
    shell = subprocess.run(
        ["bash", "-c", script, "-", *DRIVER],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    numbers = {int(line.split()[8]) for line in shell.stdout.splitlines() if " -> " in line}
    assert numbers == {0, 1, 2, 3, 7}, shell.stdout  # 3 is ls's own
    assert shell.stdout.splitlines()[-1] == "through"


def test_dispositions_are_those_of_a_plain_start() -> None:
    script = "grep -E 'SigBlk|SigIgn' /proc/self/status"
    for prefix in ([], ["nohup"], ["env", "--ignore-signal=INT,USR1", "--block-signal=TERM"]):
        masks = []
        for driver in (DRIVER, []):
            argv = [*prefix, *driver, "sh", "-c", script]
            shown = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout
            words = shown.split()
            # glibc's posix_spawn ignores its two internal signals in what it starts
            masks.append((int(words[1], 16), int(words[3], 16) & ~(3 << 31)))
        assert masks[0] == masks[1]


async def test_terminate_gives_a_grace_and_then_kills() -> None:
    ready = asyncio.Event()
    with Signals() as signals:
        stubborn = ["sh", "-c", "trap '' TERM; echo >&2; while :; do sleep 300; done"]
        async with Child(
            stubborn, env=os.environ, signals=signals, grace=0.3, on_stderr=lambda _: ready.set()
        ) as child:
            await ready.wait()
            child.terminate()
            assert await child.wait() == ChildResult(137, 9)
        async with Child(["sleep", "300"], env=os.environ, signals=signals) as child:
            child.terminate()
            assert await child.wait() == ChildResult(143, 15)


async def test_leaving_the_block_kills_cmd() -> None:
    with Signals() as signals:
        async with Child(["sleep", "300"], env=os.environ, signals=signals) as child:
            pid = child.pid
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(child.wait(), 0.1)
        assert pid is not None
        assert not Path(f"/proc/{pid}").exists()
        assert await child.wait() == ChildResult(137, 9)


async def test_nothing_is_left_open() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with Signals() as signals:
        for argv in (["true"], ["no-such-command"]):
            try:
                async with Child(argv, env=os.environ, signals=signals, on_stderr=lambda _: None) as child:
                    await child.wait()
            except CommandError:
                pass
    assert sorted(os.listdir("/proc/self/fd")) == before


async def test_a_quick_command_is_not_held_up() -> None:
    start = time.monotonic()
    await run("true")
    assert time.monotonic() - start < 5  # the grace for leftovers is not spent where nothing is left
