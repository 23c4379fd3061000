"""The commands that mend a setting, and which of those that a report prints may be run for a person.

Rules:
- A value is changed where it came from: `go env` can't beat a variable of the shell, so that one is exported
  or unset.
- Safe is a change that is small, that can be undone, and that needs no judgement: `go env -w`, `go env -u`.
  A host key is added only after its fingerprint was shown.  Everything else is for the person to run.
- What is run is a list of words, never a shell; a command that holds a placeholder in capitals isn't run.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gotunnel.address import one_line
from gotunnel.dataclass import dataclass
from gotunnel.doctor.facts import Facts

_LIMIT = 15.0  # seconds for one command
_KEYSCAN = re.compile(
    r"ssh-keyscan(?: -p (?P<port>\d{1,5}))? (?P<host>[A-Za-z0-9][A-Za-z0-9._:-]*)"
    r" >> ~/\.ssh/known_hosts\s*(?:#.*)?"
)
_GO_ENV = re.compile(r"go env -[wu] .+")
_PLACEHOLDER = re.compile(r"(?:^|[=/@:'|,])[A-Z][A-Z_]{2,}(?:$|[/'|,])|…")


def set_command(facts: Facts, name: str, value: str) -> str:
    """What gives the go variable `name` the value `value`."""
    if facts.origin(name) == "env" or facts.value("GOENV") == "off":
        return f"export {name}={shlex.quote(value)}"
    return f"go env -w {shlex.quote(f'{name}={value}')}"


def unset_command(facts: Facts, name: str, default: str = "") -> str:
    """What takes `name` back to go's default; where it is go's own default that is wrong, sets `default`."""
    origin = facts.origin(name)
    if origin == "env":
        return f"unset {name}"
    return f"go env -u {name}" if origin == "file" else set_command(facts, name, default)


@dataclass(frozen=True, slots=True)
class Change:
    """One safe change: `command` as it is shown, `words` as it is run; `host` and `port` for a host key."""

    command: str
    words: tuple[str, ...]
    host: str = ""
    port: int = 22


def change_of(command: str) -> Change | None:
    """The Change that `command` asks for, None where it isn't a safe one."""
    if found := _KEYSCAN.fullmatch(command):
        port = int(found["port"] or 22)
        if not 1 <= port <= 65535 or found["host"].isupper():
            return None
        host = str(found["host"])
        return Change(command, ("ssh-keyscan", "-T", "5", "-p", str(port), host), host=host, port=port)
    plain = command.partition("  #")[0].rstrip()
    if not _GO_ENV.fullmatch(plain):
        return None
    try:
        words = tuple(shlex.split(plain))
    except ValueError:
        return None
    settings = words[3:]
    if len(words) != 4 or any(_PLACEHOLDER.search(setting.partition("=")[2]) for setting in settings):
        return None
    return Change(plain, words)


def changes(findings: Iterable[Mapping[str, Any]]) -> list[Change]:
    """The safe changes of a report's findings: the first of each error or warning, once.

    A later change of a variable that was changed already is left out: the root cause comes first.
    """
    found: list[Change] = []
    touched: set[str] = set()
    for item in findings:
        if item["severity"] == "info":
            continue
        change = next(filter(None, map(change_of, item["fix"])), None)
        if change is None:
            continue
        subject = change.host or change.words[3].partition("=")[0]
        if subject not in touched:
            touched.add(subject)
            found.append(change)
    return found


def run_change(change: Change, environ: Mapping[str, str], cwd: str) -> str:
    """Make a change of the go environment; gives what went wrong, "" if nothing did.  Blocks."""
    done, problem = _run(change.words, environ, cwd)
    return problem or (
        one_line(done.stderr) or f"status {done.returncode}" if done and done.returncode else ""
    )


def scan_keys(change: Change, environ: Mapping[str, str], cwd: str) -> tuple[str, tuple[str, ...]]:
    """(lines for known_hosts, their fingerprints) of the host of `change`; both empty: no answer.  Blocks."""
    done, _ = _run(change.words, environ, cwd)
    lines = "".join(
        f"{line}\n" for line in (done.stdout if done else "").splitlines() if line and line[0] != "#"
    )
    if not lines:
        return "", ()
    shown, _ = _run(("ssh-keygen", "-l", "-f", "-"), environ, cwd, text=lines)
    return lines, tuple(one_line(line) for line in (shown.stdout if shown else "").splitlines())


def add_known_hosts(lines: str, home: str) -> str:
    """Append to ~/.ssh/known_hosts, made where it isn't there; gives what went wrong, "" if nothing did."""
    path = Path(home, ".ssh", "known_hosts")
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        before = path.read_bytes() if path.exists() else b""
        with path.open("ab") as file:
            file.write((b"\n" if before and not before.endswith(b"\n") else b"") + lines.encode())
        if not before:
            path.chmod(0o600)
    except OSError as error:
        return f"{path}: {error.strerror}"
    return ""


def _run(
    words: tuple[str, ...], environ: Mapping[str, str], cwd: str, text: str = ""
) -> tuple[subprocess.CompletedProcess[str] | None, str]:
    try:
        done = subprocess.run(
            words,
            env=dict(environ),
            cwd=cwd,
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"no answer in {_LIMIT:.0f} s"
    except OSError as error:
        return None, f"{words[0]}: {error.strerror}"
    return done, ""
