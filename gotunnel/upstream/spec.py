"""CHAINs as text: parsed once, into frozen hop specifications (contract §3).

Rules:
- A CHAIN is hops joined by commas, outermost first, as in `ssh -J`; a literal comma is `%2C`.
- Without a scheme a hop is ssh: `bastion`, `user@host:port`.
- Host names keep their case: ssh aliases are case-sensitive here as they are in ssh_config(5).
- Passwords are kept out of `repr` and `str`; `str(chain)` is safe to show.
- Every error is a ConfigError of one line that repeats the hop with its password masked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from urllib.parse import unquote

from gotunnel.address import HostPort
from gotunnel.dataclass import dataclass
from gotunnel.errors import ConfigError
from gotunnel.upstream.masking import (
    DIRECT_OPTIONS,
    PASSWORD_OPTIONS,
    SSH_OPTIONS,
    TLS_OPTIONS,
    quoted,
)
from gotunnel.upstream.masking import masked as masked

HOST_KEY_CHECKING = ("yes", "accept-new", "no")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)


CREDENTIAL = "${CREDENTIALS_DIRECTORY}/"  # how the file of a systemd credential begins until it is read


def credential_path(path: str, option: str, environ: Mapping[str, str] | None = None) -> str:
    """`path` with the place of systemd's credentials put in; `option` names it in the error.

    Raises ConfigError where nobody gave us credentials.  Source: systemd.exec(5), LoadCredential=.
    """
    if not path.startswith(CREDENTIAL):
        return path
    folder = (os.environ if environ is None else environ).get("CREDENTIALS_DIRECTORY")
    name = path.removeprefix(CREDENTIAL)
    if not folder:
        raise ConfigError(
            f"{option}={name}: no CREDENTIALS_DIRECTORY here; set LoadCredential= in the systemd unit"
        )
    return str(Path(folder) / name)


@dataclass(frozen=True, slots=True)
class Secret:
    """A password and how to get it: given in the URL, or by file, variable or systemd credential."""

    value: str = field(default="", repr=False)
    file: str = ""
    env: str = ""
    credential: str = ""

    def __bool__(self) -> bool:
        return bool(self.value or self.file or self.env or self.credential)

    def read(self, environ: Mapping[str, str] | None = None) -> str:
        """The password, masked from now on in all that we say.

        Raises ConfigError where its file or variable can't be read.
        """
        password = self._read(os.environ if environ is None else environ)
        if password and password not in _masked:
            from gotunnel.observe.logs import register_secret

            _masked.add(password)
            register_secret(password)
        return password

    def _read(self, environ: Mapping[str, str]) -> str:
        if self.env:
            if self.env not in environ:
                raise ConfigError(f"password_env: the variable {self.env} is not set")
            return environ[self.env]
        path = self.file
        if self.credential:
            path = credential_path(CREDENTIAL + self.credential, "password_credential", environ)
        if path:
            try:
                return Path(path).expanduser().read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"password_file {path}: {getattr(error, 'strerror', error)}") from error
        return self.value


_masked: set[str] = set()  # passwords that were read


@dataclass(frozen=True, slots=True)
class DirectHop:
    """The machine's own network, or one interface or source address of it."""

    interface: str = ""
    source: str = ""

    def __str__(self) -> str:
        pairs = (("interface", self.interface), ("source", self.source))
        options = [f"{name}={quoted(value, '&')}" for name, value in pairs if value]
        return "direct:" + ("?" + "&".join(options) if options else "")


@dataclass(frozen=True, slots=True)
class SshHop:
    """An SSH jump host; None or "" means what ssh_config says, else ssh's default."""

    host: str
    user: str | None = None
    port: int | None = None
    identity: tuple[str, ...] = ()
    known_hosts: str = ""
    host_key_checking: str = ""
    config: str = ""
    compression: bool | None = None
    connections: int = 0  # 0: auto
    key_text: str = field(default="", repr=False)
    known_hosts_text: str = field(default="", repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else quoted(self.host)
        user = f"{quoted(self.user, ':/@')}@" if self.user else ""
        return f"ssh://{user}{host}" + (f":{self.port}" if self.port else "")


@dataclass(frozen=True, slots=True)
class ConnectHop:
    """An upstream proxy by HTTP CONNECT, in clear or inside TLS."""

    address: HostPort
    tls: bool = False
    user: str = ""
    password: Secret = Secret()
    ca: str = ""
    cert: str = ""
    key: str = ""
    server_name: str = ""

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{_user(self.user, self.password)}{_shown(self.address)}"


@dataclass(frozen=True, slots=True)
class SocksHop:
    """A SOCKS proxy; `remote_names` where names are resolved at its end (the h and a forms)."""

    address: HostPort
    version: int = 5
    remote_names: bool = True
    user: str = ""
    password: Secret = Secret()

    def __str__(self) -> str:
        suffix = {5: "h", 4: "a"}[self.version] if self.remote_names else ""
        return f"socks{self.version}{suffix}://{_user(self.user, self.password)}{_shown(self.address)}"


HopSpec = DirectHop | SshHop | ConnectHop | SocksHop


@dataclass(frozen=True, slots=True)
class Chain:
    """Ordered hops, outermost first; `str` gives the redacted CHAIN."""

    hops: tuple[HopSpec, ...]

    def __str__(self) -> str:
        return ",".join(str(hop) for hop in self.hops)

    @property
    def resolves_far(self) -> bool:
        """True where the names of targets are resolved at the far end."""
        last = self.hops[-1]
        return isinstance(last, SshHop | ConnectHop) or (isinstance(last, SocksHop) and last.remote_names)

    @property
    def has_typed_password(self) -> bool:
        """True where a password stands in the text itself, so that `ps` may show it."""
        return any(bool(h.password.value) for h in self.hops if isinstance(h, ConnectHop | SocksHop))


def _user(user: str, password: Secret) -> str:
    if not user and not password:
        return ""
    user = quoted(user, ":/@")
    return f"{user}:***@" if password else f"{user}@"


def _shown(address: HostPort) -> str:
    return str(address) if ":" in address.host else f"{quoted(address.host)}:{address.port}"


def parse_chain(text: str) -> Chain:
    """Parse a CHAIN.  Raises ConfigError with one line."""
    parts = [part.strip() for part in text.split(",")]
    if not any(parts):
        raise ConfigError(
            "a way out is empty: want a CHAIN such as bastion or http://proxy:3128,ssh://bastion"
        )
    if not all(parts):
        raise ConfigError(f"{masked(text)!r}: an empty hop between commas (a literal comma is %2C)")
    hops = tuple(_hop(part, text) for part in parts)
    for hop in hops[1:]:
        if isinstance(hop, DirectHop):
            raise ConfigError(f"{masked(text)!r}: {hop} must stand first in a chain")
    return Chain(hops)


def _hop(text: str, chain: str) -> HopSpec:
    """One hop of `chain`, which is what an error shows: a password with a comma in it is cut in two here."""
    try:
        if text == "direct" or text.startswith("direct:"):
            return _direct(text)
        match = _SCHEME.fullmatch(text)
        if match is None:
            return _ssh(text)
        kind = _KINDS.get(match[1].lower())
        if match[1].lower() == "srv":
            raise ValueError("srv:// (jump hosts from DNS) stands alone, as via of an [[upstream]]")
        if kind is None:
            raise ValueError(
                f"unknown scheme {match[1]!r}; want one of direct: ssh:// http:// https:// socks5h:// "
                "socks5:// socks4a:// socks4://"
            )
        return kind(match[1].lower(), match[2])
    except ValueError as error:
        words = str(error)
        if "@" in text.partition("?")[2]:  # what stands there may be a piece of a password
            words = "what stands after ? can't be read; a literal ? in a user or password is %3F"
        raise ConfigError(f"way out {masked(chain)!r}: {words}") from None


@dataclass(slots=True)
class _Parts:
    user: str | None
    password: str | None
    where: str
    options: dict[str, list[str]]

    def one(self, name: str, default: str = "") -> str:
        values = self.options.get(name, [])
        if len(values) > 1:
            raise ValueError(f"option {name!r} is given twice")
        return values[0] if values else default

    def path(self, name: str) -> str:
        value = self.one(name)
        return os.path.expanduser(value) if value else ""

    def credentials(self, option: str) -> tuple[str, ...]:
        """The files of systemd credentials, as `credential_path` takes them."""
        names = self.options.get(option, [])
        for name in names:
            if "/" in name or name in (".", ".."):
                raise ValueError(f"{option}={name}: want the name of a credential, without directories")
        return tuple(CREDENTIAL + name for name in names)

    def secret(self) -> Secret:
        sources = [name for name in PASSWORD_OPTIONS if self.one(name)]
        if len(sources) + bool(self.password) > 1:
            raise ValueError("more than one password; give one of " + ", ".join(PASSWORD_OPTIONS))
        return Secret(
            self.password or "",
            self.path("password_file"),
            self.one("password_env"),
            self.one("password_credential"),
        )


def _split(rest: str, allowed: tuple[str, ...]) -> _Parts:
    rest, _, query = rest.partition("?")
    if "#" in rest + query:
        raise ValueError("a fragment (#…) has no meaning here; a literal # is %23")
    authority, _, path = rest.partition("/")
    if path:
        raise ValueError("a path has no meaning here; a literal / in a password is %2F")
    userinfo, at, where = authority.rpartition("@")
    user, colon, password = userinfo.partition(":")
    if not where or where.startswith(":"):
        raise ValueError("the host is missing")
    return _Parts(
        _clean(unquote(user)) if at else None,
        _clean_secret(unquote(password)) if colon else None,
        _clean(unquote(where)),
        _options(query, allowed),
    )


def _address(where: str, default_port: int) -> HostPort:
    try:
        return HostPort.parse(where, default_port)
    except ValueError:  # its text repeats what may be a piece of a password
        raise ValueError(
            "want HOST or HOST:PORT, a port from 1 to 65535, an IPv6 address in brackets"
        ) from None


def _clean(text: str) -> str:
    if not text.isprintable():
        raise ValueError("control characters are not allowed")
    return text


def _clean_secret(text: str) -> str:
    if any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) <= 0xDFFF for c in text):
        raise ValueError("control characters are not allowed")
    return text


def _options(query: str, allowed: tuple[str, ...]) -> dict[str, list[str]]:
    options: dict[str, list[str]] = {}
    for item in filter(None, query.split("&")):
        name, equals, value = item.partition("=")
        if name not in allowed:
            from difflib import get_close_matches

            near = get_close_matches(name, allowed, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(allowed) or 'none'}"
            raise ValueError(f"unknown option {name!r}{hint}")
        if not equals or not value:
            raise ValueError(f"option {name!r} wants a value: {name}=…")
        options.setdefault(name, []).append(_clean(unquote(value)))
    return options


def _direct(text: str) -> DirectHop:
    rest = text.removeprefix("direct").removeprefix(":")
    if rest and not rest.startswith("?"):
        raise ValueError("want direct: or direct:?interface=NAME or direct:?source=ADDRESS")
    options = _options(rest[1:], DIRECT_OPTIONS)
    source = _Parts(None, None, "", options).one("source")
    if source and HostPort(source, 1).ip is None:
        raise ValueError(f"source {source!r} is no IP address")
    return DirectHop(_Parts(None, None, "", options).one("interface"), source)


def _ssh(text: str, rest: str | None = None) -> SshHop:
    parts = _split(text if rest is None else rest, SSH_OPTIONS)
    if parts.password:
        raise ValueError(
            "ssh takes no password in a URL; use a key (-i FILE), an agent, or type it when asked"
        )
    # an ssh host may have no port; HostPort wants one, so a marker stands in for "as ssh_config says"
    address = _address(parts.where, 65536)
    if address.host.startswith("-"):
        raise ValueError(f"a host can't start with '-': {address.host!r}")
    checking = parts.one("host_key_checking")
    if checking and checking not in HOST_KEY_CHECKING:
        raise ValueError(f"host_key_checking={checking}: want {', '.join(HOST_KEY_CHECKING)}")
    compression = parts.one("compression")
    if compression not in ("", "yes", "no"):
        raise ValueError(f"compression={compression}: want yes or no")
    connections = parts.one("connections", "auto")
    if connections != "auto" and not (connections.isascii() and connections.isdigit()):
        raise ValueError(f"connections={connections}: want auto or 1 to 64")
    given = parts.credentials("known_hosts_credential")
    if len(given) + bool(parts.one("known_hosts")) > 1:
        raise ValueError("more than one known_hosts; give one of known_hosts, known_hosts_credential")
    count = 0 if connections == "auto" else int(connections[:4])
    if connections != "auto" and not 1 <= count <= 64:
        raise ValueError(f"connections={connections}: want auto or 1 to 64")
    return SshHop(
        host=address.host,
        user=parts.user or None,
        port=None if address.port == 65536 else address.port,
        identity=(
            *(os.path.expanduser(p) for p in parts.options.get("identity", [])),
            *parts.credentials("identity_credential"),
        ),
        known_hosts=parts.path("known_hosts") or (given[0] if given else ""),
        host_key_checking=checking,
        config=parts.path("config"),
        compression={"yes": True, "no": False}.get(compression),
        connections=count,
    )


def _ssh_url(scheme: str, rest: str) -> SshHop:
    return _ssh("", rest)


def _connect(scheme: str, rest: str) -> ConnectHop:
    tls_options = TLS_OPTIONS if scheme == "https" else ()
    parts = _split(rest, PASSWORD_OPTIONS + tls_options)
    if parts.one("key") and not parts.one("cert"):
        raise ValueError("key= wants cert= beside it")
    return ConnectHop(
        address=_address(parts.where, 443 if scheme == "https" else 80),
        tls=scheme == "https",
        user=parts.user or "",
        password=parts.secret(),
        ca=parts.path("ca"),
        cert=parts.path("cert"),
        key=parts.path("key"),
        server_name=parts.one("server_name"),
    )


def _socks(scheme: str, rest: str) -> SocksHop:
    version = int(scheme[5])
    parts = _split(rest, PASSWORD_OPTIONS)
    password = parts.secret()
    if version == 4 and password:
        raise ValueError(f"{scheme} knows no passwords, only a user; use socks5h")
    if len((parts.user or "").encode()) > 255 or len(password.value.encode()) > 255:
        raise ValueError("a SOCKS user or password has at most 255 bytes (RFC 1929)")
    return SocksHop(
        address=_address(parts.where, 1080),
        version=version,
        remote_names=scheme[-1] in "ha",
        user=parts.user or "",
        password=password,
    )


_KINDS: dict[str, Callable[[str, str], HopSpec]] = {
    "ssh": _ssh_url,
    "http": _connect,
    "https": _connect,
    **dict.fromkeys(("socks5", "socks5h", "socks4", "socks4a"), _socks),
}
