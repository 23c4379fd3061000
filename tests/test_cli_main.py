"""Bad input at the command line: one line, the contract's status, nothing left."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gotunnel import __version__
from gotunnel.cli.main import COMMANDS, main
from gotunnel.errors import UsageError
from tests.gotunnel_alone import GOTUNNEL, environment, gotunnel

USAGE, CONFIG, NOT_FOUND, CANNOT_RUN = 2, 78, 127, 126


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        ("run --via gopher://x -- true", CONFIG, "unknown scheme 'gopher'"),
        ("run --via http:// -- true", CONFIG, "host is missing"),
        ("run --via ssh://h:0 -- true", CONFIG, "65535"),
        ("run --via a,,b -- true", CONFIG, "empty hop"),
        ("run --via ssh://h,direct: -- true", CONFIG, "must stand first"),
        ("run --via http://u:hush@h:80/x -- true", CONFIG, "path has no meaning"),
        ("run -i /no/key -J h -- true", CONFIG, "/no/key"),
        ("run -F /no/config -J h -- true", CONFIG, "/no/config"),
        ("run --known-hosts /no/known -J h -- true", CONFIG, "/no/known"),
        ("run --events /no/dir/events -- true", CONFIG, "/no/dir/events: No such file"),
        ("run --events . -- true", CONFIG, "Is a directory"),
        ("--config /no/file run -- true", CONFIG, "--config: /no/file: no such file"),
        ("run -- no-such-command", NOT_FOUND, "no-such-command: command not found"),
        ("run ./plain", CANNOT_RUN, "chmod +x"),
        ("run", USAGE, "what shall I run?"),
        ("run --", USAGE, "what shall I run?"),
        ("run --nope -- true", USAGE, "unrecognized arguments: --nope; see: gotunnel run --help"),
        ("run --vai x -- go build", USAGE, "unrecognized arguments: --vai; did you mean --via?"),
        ("doctor --jsn", USAGE, "unrecognized arguments: --jsn; did you mean --json?"),
        ("run mod tidy", NOT_FOUND, "mod: command not found; did you mean: gotunnel run -- go mod tidy"),
        ("mod tidy", USAGE, "write: gotunnel run -- go mod tidy"),
        ("tidy", USAGE, "write: gotunnel run -- go mod tidy"),
        ("test ./...", USAGE, "write: gotunnel run -- go test ./..."),
        ("run --via", USAGE, "--via: expected one argument"),
        ("run --retries x -- true", USAGE, "--retries"),
        ("run --retries 101 -- true", USAGE, "want 0 to 100"),
        ("run --retries -1 -- true", USAGE, "want 0 to 100"),
        ("run --timeout 5 -- true", USAGE, '--timeout 5: "5" is no duration'),
        ("run --timeout 0s -- true", USAGE, "--timeout 0s"),
        ("run --mirror goproxy.cn -- true", USAGE, "want the URL of a module proxy"),
        ("run --log-level loud -- true", USAGE, "invalid choice"),
        ("cache info --config /no/file", CONFIG, "--config: /no/file: no such file"),
        ("config check -q --config /no/file --log-level loud", USAGE, "invalid choice"),
        ("connect h", USAGE, "PORT"),
        ("connect h 0", USAGE, "no port"),
        ("connect -- -oProxyCommand=x 22", 69, "-oProxyCommand=x"),
        ("rnu", USAGE, "did you mean 'run'?"),
        ("--retries", USAGE, "unrecognized arguments"),
    ],
)
def test_bad_input(tmp_path: Path, args: str, status: int, words: str) -> None:
    (tmp_path / "plain").write_text("")
    ran = gotunnel(*args.split(), home=tmp_path)
    assert (ran.status, ran.stdout, ran.left) == (status, b"", [])
    assert words in ran.line
    assert "hush" not in ran.stderr


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"GOTUNNEL_VIA": "ssh://a gopher://x"}, "GOTUNNEL_VIA: way out 'gopher://x'"),
        ({"HTTPS_PROXY": "gopher://u:hush@h"}, "HTTPS_PROXY: unknown scheme"),
        ({"GOTUNNEL_LISTEN_PROXY": "nonsense"}, "GOTUNNEL_LISTEN_PROXY"),
        ({"GOTUNNEL_CONFIG": "/no/file"}, "GOTUNNEL_CONFIG: /no/file: no such file"),
    ],
)
def test_bad_variables(tmp_path: Path, env: dict[str, str], words: str) -> None:
    ran = gotunnel("run", "--", "true", home=tmp_path, env=env)
    assert (ran.status, ran.stdout, ran.left) == (CONFIG, b"", [])
    assert words in ran.line
    assert "hush" not in ran.stderr


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = gotunnel("run", "--", "true", home=tmp_path, env={"GOTUNNEL_LISTEN_PROXY": f"127.0.0.1:{port}"})
    assert (ran.status, ran.left) == (CONFIG, [])
    assert f"127.0.0.1:{port}: already in use; choose another address" in ran.line


def test_go_without_run_is_answered_with_the_right_spelling(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "go").write_text("#!/bin/sh\n")
    (tmp_path / "go").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["-q", "go", "mod", "edit", "-replace", "a b=c"]) == USAGE
    assert capsys.readouterr().err == (
        "gotunnel: 'go' is no command of gotunnel; write: gotunnel run -- go mod edit -replace 'a b=c'\n"
    )


def test_global_options_may_stand_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[cache]\nurl = "s3://bucket?foo=1"\n')
    for args in (["--config", str(file), "config", "check"], ["config", f"--config={file}", "check"],
                 ["config", "check", "--config", str(file)]):  # fmt: skip
        assert main(args) == CONFIG
        assert capsys.readouterr().out.startswith(f"{file}:2: [cache] url: the store's URL: s3:// has no key")


def test_no_arguments_is_a_usage_error_that_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == USAGE
    told = capsys.readouterr()
    assert told.out == ""
    assert "gotunnel run -J dev@bastion -- go mod tidy" in told.err


@pytest.mark.parametrize("args", [["--version"], ["--help"], ["run", "--help"], ["connect", "-h"]])
def test_help_and_version_go_to_standard_output(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(args)
    assert caught.value.code == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert (__version__ if args == ["--version"] else "usage: gotunnel") in told.out


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from gotunnel.cli.main import build_parser; "
        "build_parser('run').format_help(); print(*sys.modules)"
    )
    out = subprocess.run(
        [GOTUNNEL[0], "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert not {"asyncio", "asyncssh", "ssl", "h11", "rich", "tomllib"} & set(out.split())


def test_an_interrupt_is_130_and_a_bug_shows_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(args: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("gotunnel.cli.main._dispatch", interrupt)
    assert main(["run"]) == 130

    def bug(args: list[str]) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr("gotunnel.cli.main._dispatch", bug)
    with pytest.raises(ZeroDivisionError):
        main(["run"])

    def wrong(args: list[str]) -> int:
        raise UsageError("two\nlines with http://u:hush@h")

    monkeypatch.setattr("gotunnel.cli.main._dispatch", wrong)
    assert main(["run"]) == USAGE

    monkeypatch.setattr("gotunnel.cli.main.mask_crashes", lambda: interrupt([]))
    assert main(["run"]) == 130


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_closed_descriptor_is_survived(tmp_path: Path, closed: int) -> None:
    argv = [*GOTUNNEL, "run", "--events", "-", "--", "sh", "-c", "exit 7"]
    command = f'exec "$@" {closed}<&-'
    ran = subprocess.run(
        ["sh", "-c", command, "sh", *argv], env=environment(tmp_path, PYTHONPATH=os.getcwd()),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 7, ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_reader_that_goes_away_is_no_trace(tmp_path: Path) -> None:
    command = '"$@" | true; exit 0'
    ran = subprocess.run(
        ["sh", "-c", command, "sh", *GOTUNNEL, "config", "show"], capture_output=True, text=True, timeout=60,
        env=environment(tmp_path, PYTHONPATH=os.getcwd()), check=False,
    )  # fmt: skip
    assert ran.stderr == ""


def test_help_fits_a_terminal_of_80_columns(tmp_path: Path) -> None:
    long = []
    for command in ((), *((name,) for name in COMMANDS)):
        ran = gotunnel(*command, "--help", home=tmp_path, env={"COLUMNS": "80", "LANG": "C"})
        long += [line for line in ran.stdout.decode().splitlines() if len(line) > 80]
    assert long == []


@pytest.mark.parametrize("words", [["help"], ["help", "run"]])
def test_help_is_a_word_too(words: list[str], tmp_path: Path) -> None:
    asked = gotunnel(*words, home=tmp_path)
    assert (asked.status, asked.stdout) == (0, gotunnel(*words[1:], "--help", home=tmp_path).stdout)


def test_a_thread_in_native_code_does_not_abort_the_end() -> None:
    """Python before 3.14 unwinds it by pthread_exit, at which Rust calls abort(3)."""
    program = """
import threading, time, bcrypt
from gotunnel.cli import main as cli

def work():
    while True:
        bcrypt.kdf(b"x", b"salt" * 4, 32, 1, ignore_few_rounds=True)

def main(argv):
    threading.Thread(target=work, daemon=True).start()
    time.sleep(0.1)
    print("said", end="")
    return 7

cli.main = main
raise SystemExit(cli.entry([]))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (7, "said", "")
