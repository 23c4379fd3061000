"""`gotunnel service`: the systemd units (daemon/units.py) written, enabled and started, or taken away.

Rules:
- Nothing is asked; what was done is said, one line each, on standard output.  `--print` changes nothing.
- Files of the same name that we didn't write are left alone, and an administrator's drop-ins too.
- Starting waits until the service answers, so that the next command finds it, and no longer: ready it is when
  a way out works, which may be never.
- Ports are chosen once, at the first installation: several users have a service each.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gotunnel.daemon.activation import NAMES
from gotunnel.daemon.units import MARK, PORTS, Wanted, quoted, render
from gotunnel.dataclass import dataclass
from gotunnel.errors import GotunnelError, UsageError

if TYPE_CHECKING:
    from gotunnel.cli.remote import Server

USAGE = "gotunnel service install|uninstall|status [--user|--system] [--print]"
SYSTEM = Path("/etc/systemd/system")
BOOTED = Path("/run/systemd/system")  # sd_booted(3)
SOCKETS = tuple(f"gotunnel-{name}.socket" for name in NAMES)
SERVICE = "gotunnel.service"
_HOMES = ("/home/", "/root/", "/run/user/")  # what ProtectHome=yes hides
_ANSWERS = 10.0  # seconds that a new service may take
_DEATHS = 2  # by then it isn't chance
_STEP = 10  # from one try for three free ports to the next
_TRIES = 50


class ServiceError(GotunnelError):
    """The units can't be written, or systemctl says no."""


class NotRunning(GotunnelError):
    """There is no service, or it isn't up."""

    status = 69


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose units: the system's or the user's; `say` gets what was done."""

    user: bool
    directory: Path
    say: Callable[[str], None]

    def systemctl(self, *words: str, check: bool = True) -> str:
        """What systemctl prints.  Raises ServiceError with its own first line."""
        argv = ["systemctl", *(["--user"] if self.user else []), *words]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ServiceError(f"systemctl {words[0]}: {getattr(error, 'strerror', 'no answer')}") from error
        if check and done.returncode:
            said = (done.stderr.strip() or f"status {done.returncode}").splitlines()[0]
            raise ServiceError(f"systemctl {' '.join(words)}: {said}")
        return done.stdout.strip()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, and to whose units."""
    parser.add_argument("what", choices=("install", "uninstall", "status"))
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument("--user", action="store_true", help="your own service (default but for root)")
    whose.add_argument("--system", action="store_true", help="the machine's (default for root)")
    parser.add_argument("--print", action="store_true", help="install: show the units and change nothing")


def main(args: argparse.Namespace) -> int:
    """Do it; returns 0.  Raises ServiceError, or NotRunning (69) from `status`."""
    user = args.user or (not args.system and os.geteuid() != 0)
    directory = _user_directory(os.environ) if user else SYSTEM
    scope = Scope(user, directory, lambda line: print(line, flush=True))
    if args.what == "install" and args.print:
        for name, text in _texts(scope).items():
            sys.stdout.write(f"# {scope.directory / name}\n{text}\n")
        if unseen := _unseen(scope):
            from gotunnel.cli.console import tell

            tell(unseen)
        return 0
    if not BOOTED.is_dir():
        raise ServiceError(
            "this machine isn't run by systemd; let your own service manager start: gotunnel serve"
        )
    if args.what == "status":
        return _status(scope)
    if not user and os.geteuid() != 0:
        raise ServiceError(
            f"service {args.what} --system needs root: use sudo, or --user for a service of yours"
        )
    (_install if args.what == "install" else _uninstall)(scope)
    return 0


def _user_directory(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".config")
    return Path(base, "systemd", "user")


# --- install ----------------------------------------------------------------------------------------


def _texts(scope: Scope) -> dict[str, str]:
    return render(Wanted(scope.user, quoted(*_program(scope)), _version(), _ports(scope.directory)))


def _program(scope: Scope) -> list[str]:
    """The beginning of the command line that starts us."""
    called, beside = Path(sys.argv[0]), Path(sysconfig.get_path("scripts"), "gotunnel")
    words = [sys.executable, "-m", "gotunnel"]
    for script in (called.absolute(), beside):
        if script.name == "gotunnel" and script.is_file() and os.access(script, os.X_OK):
            words = [str(script)]
            break
    return words


def _unseen(scope: Scope) -> str:
    """Why the service wouldn't find its program, "" where it does."""
    for path in () if scope.user else (_program(scope)[0], sys.executable, __file__):
        real = os.path.realpath(path)
        if real.startswith(_HOMES):
            return (
                f"{real} is in a home directory, which the system's service doesn't see; install gotunnel "
                "elsewhere (python3 -m venv /opt/gotunnel && /opt/gotunnel/bin/pip install gotunnel), "
                "or take --user"
            )
    return ""


def _version() -> int:
    """systemd's, 0 where there is none."""
    if shutil.which("systemctl") is None:
        return 0
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(
            ["systemctl", "--version"], capture_output=True, text=True, check=False, timeout=10
        )
        if found := re.match(r"systemd (\d+)", said.stdout):
            return int(found[1])
    return 0


def _ports(directory: Path) -> dict[str, int]:
    """Those of an earlier installation, else three that are free."""
    kept: dict[str, int] = {}
    for name in NAMES:
        text = _ours(directory / f"gotunnel-{name}.socket")
        if found := re.search(r"^ListenStream=127\.0\.0\.1:(\d+)$", text or "", re.M):
            kept[name] = int(found[1])
    if len(kept) == len(NAMES):
        return kept
    for step in range(_TRIES):
        ports = {name: port + step * _STEP for name, port in PORTS.items()}
        if all(_is_free(port) for port in ports.values()):
            return ports
    raise ServiceError(f"no three free ports from {min(PORTS.values())} on; is something wrong with lo?")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _ours(file: Path) -> str | None:
    """The text of a unit that we wrote, None where there is none.  Raises ServiceError for a foreign one."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceError(f"{file}: {getattr(error, 'strerror', None) or 'is no text'}") from error
    if not text.startswith(MARK):
        raise ServiceError(f"{file} was not written by gotunnel; move it away, or change it yourself")
    return text.removeprefix(MARK).lstrip("\n")


def _install(scope: Scope) -> None:
    if unseen := _unseen(scope):
        raise ServiceError(unseen)
    texts = _texts(scope)
    before = {name: _ours(scope.directory / name) for name in texts}
    for name, text in texts.items():
        if before[name] == text:
            continue
        _write(scope.directory / name, f"{MARK}\n{text}")
        scope.say(f"wrote {scope.directory / name}")
    scope.systemctl("daemon-reload")
    if any(before[name] not in (None, texts[name]) for name in SOCKETS):
        scope.systemctl("stop", SERVICE, *SOCKETS)
    scope.systemctl("enable", *SOCKETS, SERVICE)
    if scope.systemctl("is-active", SOCKETS[0], check=False) != "active":
        scope.systemctl("stop", SERVICE)  # a socket isn't opened beside a service that runs without it
        scope.systemctl("start", *SOCKETS)
    before_it = scope.systemctl("show", "--value", "-p", "MainPID", SERVICE)
    scope.systemctl("reset-failed", SERVICE, check=False)  # the deaths that count are those to come
    scope.systemctl("restart", "--no-block", SERVICE)
    lives = _wait(scope, int(before_it or 0))
    listening = ", ".join(f"{WORD} on 127.0.0.1:{port}" for WORD, port in _ports(scope.directory).items())
    scope.say(f"enabled and started {SERVICE}: {listening}")
    config = "~/.config/gotunnel/config.toml" if scope.user else "/etc/gotunnel/config.toml"
    flag = "--user " if scope.user else ""
    scope.say(f"configuration: {config}; after a change: systemctl {flag}reload gotunnel")
    if not lives:
        scope.say(f"it ends again and again; why: journalctl {flag}-u {SERVICE} -n 20")
    scope.say(f"it is ready when a way out works: gotunnel service status{' --user' if scope.user else ''}")
    if scope.user and not _lingers():
        scope.say("it ends when you log out; to keep it: loginctl enable-linger")


def _wait(scope: Scope, old: int) -> bool:
    """Until another process than `old` answers as the service, not for ever; False if it dies repeatedly."""
    deadline = time.monotonic() + _ANSWERS
    while time.monotonic() < deadline:
        with contextlib.suppress(GotunnelError):
            server = _server(scope)
            if server and server.running and server.running.pid != old:
                break
        if int(scope.systemctl("show", "--value", "-p", "NRestarts", SERVICE) or 0) >= _DEATHS:
            return False
        time.sleep(0.1)
    return True


def _lingers() -> bool:
    import pwd

    with contextlib.suppress(KeyError, OSError):
        return Path("/var/lib/systemd/linger", pwd.getpwuid(os.getuid()).pw_name).exists()
    return False


def _write(file: Path, text: str) -> None:
    temporary = file.with_name(f".{file.name}.new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o644)
        os.replace(temporary, file)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ServiceError(f"{file}: {error.strerror}") from error


# --- uninstall, status ------------------------------------------------------------------------------


def _uninstall(scope: Scope) -> None:
    found = [name for name in render(Wanted(scope.user)) if _ours(scope.directory / name) is not None]
    if not found:
        scope.say(f"nothing of gotunnel in {scope.directory}")
        return
    scope.systemctl("stop", *SOCKETS, SERVICE, "gotunnel@*.service", check=False)
    scope.systemctl("disable", *found, check=False)
    for name in found:
        try:
            (scope.directory / name).unlink()
        except OSError as error:
            raise ServiceError(f"{scope.directory / name}: {error.strerror}") from error
        scope.say(f"removed {scope.directory / name}")
    scope.systemctl("daemon-reload")
    scope.systemctl("reset-failed", "gotunnel*", check=False)
    if not scope.user:
        scope.say("left: /etc/gotunnel, /var/lib/private/gotunnel*, /var/cache/private/gotunnel*")


def _status(scope: Scope) -> int:
    names = "LoadState,ActiveState,SubState,UnitFileState,MainPID,NRestarts,StatusText"
    lines = scope.systemctl("show", "-p", names, SERVICE).splitlines()
    shown = dict(line.partition("=")[::2] for line in lines)
    install = f"gotunnel service install{' --user' if scope.user else ' --system'}"
    if shown.get("LoadState") != "loaded":
        raise NotRunning(f"{SERVICE} isn't installed; to do so: {install}")
    pid = f", pid {shown['MainPID']}" if shown["MainPID"] != "0" else ""
    restarts = f", {shown['NRestarts']} restarts" if shown.get("NRestarts", "0") != "0" else ""
    scope.say(
        f"{SERVICE}: {shown['ActiveState']} ({shown['SubState']}), {shown['UnitFileState']}{pid}{restarts}"
        + (f": {shown['StatusText']}" if shown.get("StatusText") else "")
    )
    if shown["ActiveState"] not in ("active", "reloading"):
        return NotRunning.status
    _show_gotunnel_s_own(scope)
    return 0


def _server(scope: Scope) -> Server | None:
    """The running service itself.  Raises GotunnelError where it can't be read or doesn't answer."""
    from gotunnel.cli.remote import find

    environ = {name: value for name, value in os.environ.items() if name != "GOTUNNEL_SERVER"}
    return find(environ, "" if scope.user else "/run/gotunnel")


def _show_gotunnel_s_own(scope: Scope) -> None:
    """What `gotunnel status` says, as far as we may read where the service is."""
    try:
        server = _server(scope)
    except UsageError:
        return  # the system's service, and we aren't root
    if server is not None:
        from gotunnel.cli import watch

        watch.once(server.ask("GET", "/api/status"))
