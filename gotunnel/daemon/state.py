"""Two small files: what is kept over restarts, and where a running service is found.

Rules:
- `serve.json` in the state directory keeps ports and secrets, so that a shell that took `gotunnel env` goes
  on working; `server.json` in the runtime directory says where a running service listens.
- Both are 0600, written atomically, in directories that are ours alone (0700): one that belongs to somebody
  else is refused, since who owns it could hand us their own proxy.
- A place that can't be written (a container without HOME) is `Unwritable`: a service can do without.
- A runtime file may be stale: a connection tells whether somebody listens there, and a proof that it is who
  wrote the file.  Nobody hears the token before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import hmac
import json
import os
import secrets
import socket
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from gotunnel.address import HostPort
from gotunnel.dataclass import dataclass
from gotunnel.errors import ConfigError

NONCE, PROOF = "Gotunnel-Nonce", "Gotunnel-Proof"  # heads of a request and its answer
_TMP = "/tmp"  # noqa: S108 - where even Python finds no directory for temporary files: it can't be written


class Unwritable(ConfigError):
    """There is no place to keep something in."""


T = TypeVar("T", "Kept", "Running")


@dataclass(frozen=True, slots=True)
class Kept:
    """What a service keeps over its restarts; port 0 means that none was taken yet."""

    secret: str = ""
    token: str = ""
    proxy: int = 0
    modproxy: int = 0
    admin: int = 0


@dataclass(frozen=True, slots=True)
class Running:
    """Where a service listens: URLs with their secrets.  `started` in seconds of the epoch."""

    pid: int
    started: float
    version: str
    proxy: str
    modproxy: str
    admin: str
    token: str


def state_directory(environ: Mapping[str, str]) -> Path:
    """$STATE_DIRECTORY of systemd, else XDG's; that for what runs, where nobody has a home."""
    if given := environ.get("STATE_DIRECTORY", "").split(":")[0]:
        return Path(os.path.realpath(given))  # with DynamicUser= it is a link into /var/lib/private
    base = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        home = environ.get("HOME") or os.path.expanduser("~")
        if not os.path.isabs(home):
            return runtime_directory(environ)
        base = os.path.join(home, ".local", "state")
    return Path(base) / "gotunnel"


def runtime_directory(environ: Mapping[str, str]) -> Path:
    """$RUNTIME_DIRECTORY of systemd, else XDG's, else one in /tmp."""
    if given := environ.get("RUNTIME_DIRECTORY", "").split(":")[0]:
        return Path(os.path.realpath(given))
    base = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(base):
        return Path(base) / "gotunnel"
    usual = Path(f"/run/user/{os.getuid()}")
    if usual.is_dir():
        return usual / "gotunnel"
    temporary = _TMP
    with contextlib.suppress(FileNotFoundError):
        temporary = tempfile.gettempdir()
    return Path(temporary) / f"gotunnel-{os.getuid()}"


def proof(token: str, nonce: str) -> str:
    """What only who knows the token can answer to `nonce`."""
    return hmac.new(token.encode(), f"gotunnel {nonce}".encode(), hashlib.sha256).hexdigest()


def answers(running: Running, patience: float = 20.0) -> bool:
    """Whether that service is there still, and no other program in its place.

    Blocks: one that systemd starts anew answers in a few seconds.
    """
    try:
        where = HostPort.parse(running.admin.partition("//")[2])
    except ValueError:
        return False
    nonce = secrets.token_hex(16)
    head = f"GET /healthz HTTP/1.0\r\nHost: {where}\r\n{NONCE}: {nonce}\r\n\r\n"
    try:
        with socket.create_connection((where.host, where.port), timeout=2.0) as asking:
            asking.settimeout(patience)
            asking.sendall(head.encode())
            with asking.makefile("rb") as answer:
                return f"{PROOF}: {proof(running.token, nonce)}".encode() in answer.read(4096)
    except TimeoutError:
        with contextlib.suppress(OSError):
            os.kill(running.pid, 0)
            return True  # it hangs
    except OSError:
        pass
    return False


def file_name(stem: str, profile: str) -> str:
    """`server.json`, or `server-NAME.json` of a profile."""
    return f"{stem}-{profile}.json" if profile else f"{stem}.json"


def load_kept(directory: Path, profile: str = "") -> Kept:
    """What was kept; what can't be read or is nonsense counts as nothing."""
    found = _read(directory / file_name("serve", profile))
    return _typed(Kept, {**asdict(Kept()), **found}) or Kept()


def save_kept(directory: Path, kept: Kept, profile: str = "") -> None:
    """Raises ConfigError, of which Unwritable."""
    _write(directory, file_name("serve", profile), asdict(kept))


def load_running(directory: Path, profile: str = "") -> Running | None:
    """What a service has written, None where there is none or it isn't ours to trust."""
    return _typed(Running, _read(directory / file_name("server", profile)))


def read_running(file: Path) -> Running | None:
    """As `load_running`, from a file that was named: whose it is, who named it has judged."""
    return _typed(Running, _read(file, anybody=True))


def save_running(directory: Path, running: Running, profile: str = "") -> None:
    """Raises ConfigError, of which Unwritable."""
    _write(directory, file_name("server", profile), asdict(running))


def forget_running(directory: Path, profile: str = "") -> None:
    """The service ends."""
    with contextlib.suppress(OSError):
        (directory / file_name("server", profile)).unlink()


def _typed(kind: type[T], found: Mapping[str, Any]) -> T | None:
    """A dataclass of plain values, None where a field is missing, of another type, or not known."""
    kinds: dict[str, Any] = {"str": str, "int": int, "float": (int, float)}
    fields = {field.name: kinds[str(field.type)] for field in dataclasses.fields(kind)}
    if found.keys() != fields.keys() or not all(isinstance(found[n], fields[n]) for n in fields):
        return None
    return kind(**found)


def _read(file: Path, *, anybody: bool = False) -> dict[str, object]:
    """The object in a file that only we, or root, could have written; {} for anything else.

    `anybody`: it may belong to another user, such as the system's service read by root.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return {}
    with os.fdopen(descriptor, "rb") as opened:
        about = os.fstat(descriptor)
        if about.st_mode & 0o022 or not stat.S_ISREG(about.st_mode):
            return {}
        if about.st_uid not in (os.getuid(), 0) and not anybody:
            return {}
        try:
            found = json.loads(opened.read(65536))
        except ValueError:
            return {}
    return found if isinstance(found, dict) else {}


def _write(directory: Path, name: str, content: Mapping[str, object]) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = directory.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
            raise ConfigError(f"{directory}: belongs to somebody else; remove it, or set XDG_RUNTIME_DIR")
        if about.st_mode & 0o022:
            raise ConfigError(f"{directory}: others may write there; chmod 700 {directory}")
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=directory)  # 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(content, file)
            os.replace(temporary, directory / name)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise Unwritable(f"{directory / name}: {error.strerror}; is the directory writable?") from error
