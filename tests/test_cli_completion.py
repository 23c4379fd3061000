"""The completion scripts, each in the shell that it is for; the man page in mandoc and man."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gotunnel.cli import main as cli
from gotunnel.cli import manpage
from gotunnel.cli.completion import script
from gotunnel.cli.grammar import everything, grammar
from tests.conftest import need
from tests.lab import proc

# what is asked for, what has to be among the answers, and what must not be
QUESTIONS = [
    ("gotunnel ca", {"cache"}, {"run"}),
    ("gotunnel --log-level ", {"warning", "debug"}, {"run"}),
    ("gotunnel --config some.toml ca", {"cache"}, {"run"}),
    ("gotunnel cache ex", {"export"}, {"import"}),
    ("gotunnel cache --off", set(), {"--offline"}),
    ("gotunnel cache export --off", {"--offline"}, {"--json"}),
    ("gotunnel run --via x --no-", {"--no-modproxy", "--no-daemon"}, {"--force"}),
    ("gotunnel env --shell f", {"fish"}, {"sh", "json"}),
    ("gotunnel completion ", {"bash", "zsh", "fish"}, {"run"}),
    ("gotunnel run -q -- gof", {"gofake"}, set()),
    ("gotunnel run gof", {"gofake"}, set()),
    ("gotunnel serve --config ./con", {"./conf.toml"}, set()),
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a file, and a command on PATH, to be found."""
    (tmp_path / "conf.toml").touch()
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "gofake"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shell(name: str) -> str:
    found = shutil.which(name)
    need((found is not None, f"not installed: {name}"))
    assert found is not None
    return found


def answers(argv: list[str], text: str) -> set[str]:
    done = subprocess.run([*argv, text], capture_output=True, text=True, timeout=60, check=False)
    assert not done.stderr, done.stderr
    return {line.partition("\t")[0].strip() for line in done.stdout.splitlines()}


@pytest.mark.parametrize(("line", "there", "absent"), QUESTIONS)
def test_bash(place: Path, line: str, there: set[str], absent: set[str]) -> None:
    words = line.split(" ")
    driver = (
        f"{script('bash')}\ncompopt() {{ :; }}\nCOMP_WORDS=({shlex.join(words)})\n"
        f"COMP_CWORD={len(words) - 1}\n_gotunnel\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    )
    found = answers([shell("bash"), "--norc", "-c"], driver)
    assert there <= found
    assert not absent & found


def test_bash_takes_option_and_value_joined_by_an_equals_sign(place: Path) -> None:
    for words in (["--shell", "="], ["--shell", "=", "f"]):
        driver = (
            f"{script('bash')}\nCOMP_WORDS=(gotunnel env {shlex.join(words)})\nCOMP_CWORD={1 + len(words)}\n"
        )
        found = answers(
            [shell("bash"), "--norc", "-c"], driver + "_gotunnel\nprintf '%s\\n' \"${COMPREPLY[@]}\""
        )
        assert "fish" in found


@pytest.mark.parametrize(("line", "there", "absent"), QUESTIONS)
def test_fish(place: Path, line: str, there: set[str], absent: set[str]) -> None:
    fish = shell("fish")
    (place / "gotunnel.fish").write_text(script("fish"))
    found = answers([fish, "--no-config", "-c"], f"source gotunnel.fish; complete -C {shlex.quote(line)}")
    assert there <= found
    assert not absent & found


def test_zsh(place: Path) -> None:
    zsh = shell("zsh")
    functions = place / "functions"
    functions.mkdir()
    (functions / "_gotunnel").write_text(script("zsh"))
    assert subprocess.run([zsh, "-n", str(functions / "_gotunnel")], check=False).returncode == 0
    (place / ".zshrc").write_text(
        "PS1='READY> '\nfpath=(~/functions $fpath)\n"
        "autoload -Uz compinit && compinit -u -D\nzstyle ':completion:*' list-prompt ''\n"
    )
    from tests.test_cli_ask import Terminal

    terminal = Terminal([zsh, "-d", "-i"], {**os.environ, "TERM": "dumb", "ZDOTDIR": str(place)})
    terminal.until("READY> ")
    terminal.type("gotunnel cache export --off\t")
    terminal.until("--offline")
    terminal.type("\x15gotunnel run --no-pre\t")
    terminal.until("--no-prefetch")
    terminal.type("\x15gotunnel run -q gofa\t")
    terminal.until("gofake")
    terminal.type("\x15gotunnel env --shell fi\t")
    terminal.until("fish")
    terminal.type("\x15exit\n")


def test_zsh_that_sources_the_script(place: Path) -> None:
    (place / "script").write_text(script("zsh"))
    compinit = "autoload -Uz compinit && compinit -u -D; "
    for first, bound in ((compinit, {"_gotunnel"}), ("", {""})):
        for how in ("source ./script", "source <(cat script)", 'eval "$(cat script)"'):
            found = answers([shell("zsh"), "-f", "-c"], f"{first}{how}; print -r -- $_comps[gotunnel]")
            assert found - {""} == bound - {""}


def test_the_command_prints_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "fish"]) == 0
    assert capsys.readouterr().out == script("fish")
    assert cli.main(["completion", "csh"]) == 2


def test_the_man_page_names_every_command_and_option() -> None:
    text = manpage.page().replace("\\-", "-")
    for command in everything(grammar())[1:]:
        assert f".SS {' '.join(command.path[1:])}\n" in text
        for option in command.options:
            assert all(f"\\fB{name}\\fR" in text for name in option.names if option.names[-1] != "--help")
    assert text.isascii()


def test_the_man_page_in_the_source_is_the_one_of_today() -> None:
    kept = (proc.ROOT / "gotunnel" / "cli" / "gotunnel.1").read_text()
    assert kept == manpage.page(), "write it anew: python -m gotunnel.cli.manpage gotunnel/cli/gotunnel.1"


def test_the_man_page_is_clean_roff(tmp_path: Path) -> None:
    file = tmp_path / "gotunnel.1"
    subprocess.run([sys.executable, "-m", "gotunnel.cli.manpage", str(file)], check=True, cwd=proc.ROOT)
    need((bool(shutil.which("mandoc") or shutil.which("man")), "not installed: mandoc or man"))
    if mandoc := shutil.which("mandoc"):
        lint = subprocess.run(
            [mandoc, "-T", "lint", "-W", "warning", str(file)], capture_output=True, text=True, check=False
        )
        told = [line for line in lint.stdout.splitlines() if "missing date" not in line]
        assert not told, told
    if shutil.which("man"):
        environment = {**os.environ, "LC_ALL": "C", "MANWIDTH": "80", "MANPAGER": "cat"}
        shown = subprocess.run(
            ["man", "--warnings", "-l", str(file)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not shown.stderr, shown.stderr
        assert "--no-prefetch" in shown.stdout
        assert "EXIT STATUS" in shown.stdout
