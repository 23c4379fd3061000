"""`gotunnel env`: the environment for a running `serve`, in a shell's own words.

Rules:
- Without a service: nothing on standard output, one line on standard error, status 69.
- What a variable held before is kept in GOTUNNEL_ENV_BEFORE, so that `--unset` restores it; beside it a sum
  of what it was set to, which tells what the user has set since.
- Commands that open ways out, or ask a service for them, go by what was there before (`undo`): the service's
  own module proxy is no source for itself.
- Each value is quoted for its shell; nothing of it is ever expanded.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import zlib
from collections.abc import Mapping, MutableMapping
from typing import Any

from gotunnel.errors import GotunnelError

USAGE = "gotunnel env [--shell sh|fish|powershell|json] [--unset]"
BEFORE = "GOTUNNEL_ENV_BEFORE"
_SUMS = ""  # no variable's name
SHELLS = ("sh", "fish", "powershell", "json")


class NoService(GotunnelError):
    """There is no service whose environment could be printed."""

    status = 69


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--shell, --unset, --server."""
    parser.add_argument(
        "--shell", choices=SHELLS, default="sh", help="whose words (default: sh, for bash and zsh)"
    )
    parser.add_argument("--unset", action="store_true", help="restore what was there before")
    parser.add_argument(
        "--server", default="", metavar="URL", help="the running serve: http://:TOKEN@HOST:PORT"
    )
    parser.add_argument("--profile", default="", metavar="NAME", help="one of several services")


def main(args: argparse.Namespace) -> int:
    """Print it."""
    changes = restored(os.environ) if args.unset else wanted(args, os.environ)
    sys.stdout.write(in_words(changes, args.shell))
    return 0


def wanted(args: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, str | None]:
    """What has to change for the service to be used.  Raises NoService."""
    from gotunnel.cli.remote import find
    from gotunnel.goenv import compose, git_proxy_command, own_command, read

    server = find(environ, args.server, args.profile)
    if server is None:
        raise NoService("no serve is running; start it: gotunnel serve, or gotunnel service install")
    clean = {**environ}
    undo(clean)
    told = server.ask("GET", "/api/environment")
    found = read(clean)
    env = compose(
        clean,
        found,
        proxy_url=server.seen_from_here(told["proxy"]),
        run_id="",
        goproxy=server.seen_from_here(told["goproxy"]),
        private=told["private"],
        command=own_command(),
        git_proxy=git_proxy_command(),
    )
    env.pop("GOTUNNEL_RUN_ID", None)
    changed: dict[str, str | None] = {n: v for n, v in env.items() if clean.get(n) != v}
    changed |= dict.fromkeys(name for name in clean if name not in env)
    old: dict[str, Any] = {name: clean.get(name) for name in changed}
    old[_SUMS] = {name: _sum(value) for name, value in changed.items()}
    return {**changed, BEFORE: json.dumps(old, separators=(",", ":"))}


def restored(environ: Mapping[str, str]) -> dict[str, str | None]:
    """What has to change for all to be as before."""
    before = {n: v for n, v in _kept(environ).items() if v is None or isinstance(v, str)}
    return {**before, BEFORE: None} if before else {}


def undo(environ: MutableMapping[str, str]) -> None:
    """Make it as if no `env` had been taken; what was set since stays."""
    sums = _kept(environ).get(_SUMS)
    if not isinstance(sums, dict):
        sums = {}
    for name, value in restored(environ).items():
        if sums.get(name, _sum(environ.get(name))) != _sum(environ.get(name)):
            continue
        if value is None:
            environ.pop(name, None)
        else:
            environ[name] = value


def _kept(environ: Mapping[str, str]) -> dict[str, Any]:
    try:
        found = json.loads(environ.get(BEFORE, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _sum(value: str | None) -> int:
    return 0 if value is None else zlib.crc32(value.encode("utf-8", "surrogateescape"))


def in_words(changes: Mapping[str, str | None], shell: str) -> str:
    """The changes as lines for `shell`; None unsets."""
    if shell == "json":
        return json.dumps(changes, indent=2, ensure_ascii=False) + "\n"
    lines = []
    for name, value in changes.items():
        if shell == "sh":
            lines.append(f"unset {name}" if value is None else f"export {name}={_sh(value)}")
        elif shell == "fish":
            lines.append(f"set -e {name}" if value is None else f"set -gx {name} {_fish(value)}")
        else:
            lines.append(
                f"Remove-Item Env:{name} -ErrorAction SilentlyContinue"
                if value is None
                else f"$Env:{name} = {_powershell(value)}"
            )
    return "".join(line + "\n" for line in lines)


def _sh(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"


def _fish(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _powershell(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
