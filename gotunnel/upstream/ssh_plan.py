"""From an ssh hop as typed, and ssh_config, to the plain values that one SSH connection needs.

Rules:
- What was typed (URL query, -i, --known-hosts) comes before ssh_config, as in ssh.
- BatchMode forbids every question; what may be asked on a terminal is `methods` and `host_key_mode` "ask".
- An identity that was typed must be readable: a ConfigError at the start, not a refusal later.
"""

from __future__ import annotations

import os
from dataclasses import field

from gotunnel.dataclass import dataclass
from gotunnel.errors import ConfigError
from gotunnel.upstream.spec import SshHop, credential_path
from gotunnel.upstream.ssh_config import SshSettings, resolve

METHODS = ("publickey", "keyboard-interactive", "password")  # ssh's order, of what we can do


@dataclass(frozen=True, slots=True)
class SshPlan:
    """One jump host, resolved.  Times in seconds; `keepalive` 0 means our own default."""

    host: str  # as typed; what people see
    hostname: str
    port: int
    user: str
    named: bool  # ssh_config has an entry for it
    identities: tuple[str, ...] = ()
    explicit_identities: bool = False
    identities_only: bool = False
    identity_agent: str | None = None
    certificates: tuple[str, ...] = ()
    key_text: str = field(default="", repr=False)
    known_hosts_files: tuple[str, ...] = ()
    known_hosts_text: str = field(default="", repr=False)
    host_key_name: str = ""  # what known_hosts is asked for, and for which port
    host_key_port: int = 22
    host_key_mode: str = "yes"  # yes, ask, accept-new, no
    methods: tuple[str, ...] = METHODS  # of logging in, in order
    batch: bool = False
    ciphers: str = ""
    macs: str = ""
    kex: str = ""
    compression: bool = False
    keepalive: float = 0.0
    keepalive_count: int = 3
    connect_timeout: float | None = None
    connections: int = 0
    ignored: tuple[str, ...] = ()  # options of ssh_config that ask for what we don't do
    proxy_command: str = ""
    jumps: tuple[SshHop, ...] = ()


def plan(hop: SshHop) -> SshPlan:
    """Resolve one hop.  Raises ConfigError."""
    files = [hop.config] if hop.config else None
    settings = resolve(hop.host, user=hop.user, port=hop.port, files=files)
    if "RevokedHostKeys" in settings.ignored:
        raise ConfigError(
            f"ssh_config for {hop.host}: RevokedHostKeys is not supported; "
            "mark such keys @revoked in known_hosts"
        )
    identity = tuple(credential_path(path, "identity_credential") for path in hop.identity)
    for path in identity:
        _readable(path, "identity (-i)")
    checking = hop.host_key_checking or settings.strict_host_key_checking
    if hop.known_hosts:
        known_hosts = credential_path(hop.known_hosts, "known_hosts_credential")
        # as to ssh, /dev/null is an empty file, and one that isn't there yet will be made for a new key
        made = checking in ("accept-new", "no") and not os.path.exists(known_hosts)
        if known_hosts != os.devnull and not made:
            _readable(known_hosts, "known_hosts (--known-hosts)")
        known: tuple[str, ...] = (known_hosts,)
    else:
        known = (*settings.user_known_hosts_files, *settings.global_known_hosts_files)
    return SshPlan(
        host=hop.host,
        hostname=settings.hostname,
        port=settings.port,
        user=settings.user,
        named=settings.named,
        identities=identity or settings.identity_files,
        explicit_identities=bool(hop.identity) or settings.explicit_identities,
        identities_only=settings.identities_only,
        identity_agent=settings.identity_agent,
        certificates=settings.certificate_files,
        key_text=hop.key_text,
        known_hosts_files=known,
        known_hosts_text=hop.known_hosts_text,
        host_key_name=settings.host_key_alias or settings.hostname,
        host_key_port=22 if settings.host_key_alias else settings.port,
        host_key_mode=checking,
        methods=_methods(settings),
        batch=settings.batch_mode,
        ciphers=settings.ciphers or "",
        macs=settings.macs or "",
        kex=settings.kex_algorithms or "",
        compression=settings.compression if hop.compression is None else hop.compression,
        keepalive=float(settings.server_alive_interval),
        keepalive_count=settings.server_alive_count_max,
        connect_timeout=settings.connect_timeout,
        connections=hop.connections,
        ignored=settings.ignored,
        proxy_command=settings.proxy_command or "",
        jumps=_jumps(settings, hop),
    )


def _methods(settings: SshSettings) -> tuple[str, ...]:
    """What may be tried, in order."""
    wanted = (settings.preferred_authentications or ",".join(METHODS)).split(",")
    allowed = {
        "publickey": settings.pubkey_authentication,
        "keyboard-interactive": settings.kbd_interactive and not settings.batch_mode,
        "password": settings.password_authentication and not settings.batch_mode,
    }
    return tuple(method for method in dict.fromkeys(wanted) if allowed.get(method, False))


def _jumps(settings: SshSettings, hop: SshHop) -> tuple[SshHop, ...]:
    """An alias's ProxyJump, as hops that stand before it."""
    if not settings.proxy_jump:
        return ()
    from dataclasses import replace

    from gotunnel.upstream.spec import parse_chain

    hops = parse_chain(settings.proxy_jump).hops
    if not all(isinstance(h, SshHop) for h in hops):
        raise ConfigError(f"ProxyJump {settings.proxy_jump!r} of {hop.host}: want ssh hosts only")
    return tuple(
        replace(h, config=hop.config, key_text=hop.key_text, known_hosts_text=hop.known_hosts_text)
        for h in hops
        if isinstance(h, SshHop)
    )


def _readable(path: str, what: str) -> None:
    # a pipe would be drained or waited for here, and is read more than once later
    if os.path.exists(path) and not os.path.isfile(path):
        raise ConfigError(f"{what} {path!r}: is not a regular file")
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise ConfigError(f"{what} {path!r}: {error.strerror}") from error
    except ValueError as error:  # a NUL in it
        raise ConfigError(f"{what} {path!r}: {error}") from error
