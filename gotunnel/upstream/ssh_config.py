"""OpenSSH's client configuration for one host: `resolve(host)` gives what `ssh -G host` would, as a value.

Rules (ssh_config(5) and readconf.c; the oracle in the tests is `ssh -G`):
- The first value found for a keyword wins; IdentityFile and CertificateFile add up.  What the command line
  says is set before any file is read.  Of ProxyJump and ProxyCommand the first one found wins.
- ~/.ssh/config, then /etc/ssh/ssh_config; a file named by the user stands alone.  Every line is checked, also
  where its block doesn't apply.
- `Match final` or CanonicalizeHostname asks for a second pass, with the resolved host name as the host.
  Names are never looked up here: CanonicalizeHostname's own work is among the ignored.
- Tokens, `~` and `${NAME}` are expanded at the end, when host, user and port are known.
- What the host's configuration asks and we don't do is in `ignored`, unless it asks for what we do anyway.
- ~/.ssh/config and included files that others could have written are refused, as ssh does.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from gotunnel.address import one_line
from gotunnel.dataclass import dataclass
from gotunnel.errors import ConfigError
from gotunnel.upstream.ssh_reader import Reader, Value, account_of, tilde
from gotunnel.upstream.ssh_tokens import Hop, lower, sane_host, sane_user

_DEFAULT_KEYS = ("rsa", "ecdsa", "ecdsa_sk", "ed25519", "ed25519_sk", "xmss", "dsa")

# Keywords we don't honour whose loss changes something, and the values that ask for nothing.
_NAMED_IF_NOT = {
    "AddKeysToAgent": "no false",
    "CanonicalizeHostname": "no",
    "CanonicalizePermittedCNAMEs": "none",
    "CASignatureAlgorithms": "",
    "ChannelTimeout": "none",
    "ControlMaster": "no",
    "ControlPath": "none",
    "ControlPersist": "no false",
    "DynamicForward": "",
    "ForwardAgent": "no false",
    "ForwardX11": "no",
    "GSSAPIAuthentication": "no",
    "GSSAPIKeyExchange": "no",
    "HostbasedAuthentication": "no",
    "KbdInteractiveDevices": "",
    "KnownHostsCommand": "none",
    "LocalCommand": "none",
    "LocalForward": "",
    "NoHostAuthenticationForLocalhost": "no",
    "NumberOfPasswordPrompts": "3",
    "PKCS11Provider": "none",
    "ProxyUseFdpass": "no",
    "RekeyLimit": "default",
    "RemoteCommand": "none",
    "RemoteForward": "",
    "RequiredRSASize": "1024",
    "RevokedHostKeys": "none",
    "SecurityKeyProvider": "internal",
    "Tunnel": "no",
    "TunnelDevice": "any any:any",
    "VerifyHostKeyDNS": "no",
}


@dataclass(frozen=True, slots=True)
class SshSettings:
    """One host's settings.  Times are whole seconds; None is "not set" unless said otherwise.

    `host` is the alias as typed, `hostname` what to connect to.  `identity_agent` is the agent's socket
    (None: no agent).  `proxy_jump` is a list for `ssh -J`, each element `[user@]host[:port]`;
    `proxy_command` is ready for a shell.  Lists of algorithms are as written (`+`, `-`, `^` stand for ssh's
    default list changed).  `strict_host_key_checking` is ask, yes, no or accept-new ("off" is "no").
    `server_alive_interval` 0 is off, `connect_timeout` None the system's.
    `named`: a pattern without wildcards named the alias.  `ignored`: options that ask for what we don't do.
    """

    host: str
    hostname: str
    user: str
    port: int
    identity_files: tuple[str, ...]
    explicit_identities: bool
    identities_only: bool
    identity_agent: str | None
    certificate_files: tuple[str, ...]
    proxy_jump: str | None
    proxy_command: str | None
    user_known_hosts_files: tuple[str, ...]
    global_known_hosts_files: tuple[str, ...]
    strict_host_key_checking: str
    host_key_alias: str | None
    hash_known_hosts: bool
    check_host_ip: bool
    ciphers: str | None
    macs: str | None
    kex_algorithms: str | None
    host_key_algorithms: str | None
    pubkey_accepted_algorithms: str | None
    compression: bool
    server_alive_interval: int
    server_alive_count_max: int
    tcp_keep_alive: bool
    connect_timeout: int | None
    connection_attempts: int
    address_family: str
    bind_address: str | None
    bind_interface: str | None
    batch_mode: bool
    preferred_authentications: str | None
    password_authentication: bool
    kbd_interactive: bool
    pubkey_authentication: bool
    named: bool
    ignored: tuple[str, ...]


def resolve(
    host: str,
    *,
    user: str | None = None,
    port: int | None = None,
    files: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> SshSettings:
    """The settings that OpenSSH would use for `ssh [-l user] [-p port] host`.

    `files`: None for the user's and the system's configuration, else only these (`ssh -F`; "none": no file).
    `environ`: default os.environ.  Reads files and runs the commands of `Match exec` (each at most 30 s), so
    it blocks.  Raises ConfigError, `FILE:LINE: what; what to do`, for whatever ssh would refuse.
    """
    if not host or not sane_host(host):
        raise ConfigError(one_line(f"ssh host {host!r} is no host name; write a name or an address"))
    if user is not None and (not user or not sane_user(user)):
        raise ConfigError(one_line(f"ssh user {user!r} has characters that a shell could misread"))
    environ = os.environ if environ is None else environ
    reader = Reader(host, account_of(environ), environ)
    if user is not None:
        reader.values["User"] = Value((user,), "")
    if port is not None:
        reader.values["Port"] = Value((str(port),), "")
    reader.read_all(files)
    reader.host = _canonical(reader.target())
    reader.final = True
    if reader.wants_final or reader.text("CanonicalizeHostname", "no") != "no":
        reader.read_all(files)
    return _settings(reader)


def _canonical(host: str) -> str:
    """An address in its usual form, a name in lower case; nothing is looked up."""
    try:
        address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0][4]
        usual = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]
    except (OSError, UnicodeError, ValueError):
        return lower(host)
    return host if lower(host) == usual else usual


def _settings(reader: Reader) -> SshSettings:
    environ, account, text = reader.environ, reader.account, reader.text
    port, user = text("Port", "22"), text("User", account.name)
    tokens = reader.tokens(reader.host, reader.original, port, user)
    if (alias := reader.values.get("HostKeyAlias")) is not None:
        tokens["k"] = lower(alias.items[0])
    if "User" in reader.values and (chosen := reader.values["User"]).where:
        basic = {key: value for key, value in tokens.items() if key not in "Cr"}
        user = chosen.expanded(basic, environ)
        tokens = reader.tokens(reader.host, reader.original, port, user) | {"k": tokens["k"]}
    if not sane_user(user):
        where = reader.values["User"].where if "User" in reader.values else ""
        raise ConfigError(
            one_line(f"{where}user {user!r} has characters that a shell could misread; change it")
        )

    def path(value: Value) -> str:
        try:
            place = tilde(value.items[0], account)
        except ValueError as error:
            raise ConfigError(one_line(f"{value.where}{error}")) from None
        return replace(value, items=(place,)).expanded(tokens, environ)

    def paths(name: str, default: str) -> tuple[str, ...]:
        value = reader.values.get(name) or Value(tuple(default.split()), "")
        none = lower(value.items[0]) == "none"
        return () if none else tuple(path(replace(value, items=(item,))) for item in value.items)

    def flag(name: str, default: str = "no") -> bool:
        return text(name, default) == "yes"

    def maybe(name: str) -> str | None:
        return text(name, "") or None

    attempts = int(text("ConnectionAttempts", "1"))
    if attempts == 0:
        where = reader.values["ConnectionAttempts"].where
        raise ConfigError(f"{where}ConnectionAttempts 0 would never connect; want 1 or more")
    identities = [value for value in reader.identities if lower(value.items[0]) != "none"]
    if not reader.identities:
        identities = [Value((f"~/.ssh/id_{kind}",), "") for kind in _DEFAULT_KEYS]
    return SshSettings(
        host=reader.original,
        hostname=reader.host,
        user=user,
        port=int(port),
        identity_files=tuple(path(value) for value in identities),
        explicit_identities=bool(reader.identities),
        identities_only=flag("IdentitiesOnly"),
        identity_agent=_agent(reader.values.get("IdentityAgent"), path, environ),
        certificate_files=tuple(path(value) for value in reader.certificates),
        proxy_jump=_jump(reader, tokens),
        proxy_command=_command(reader, tokens),
        user_known_hosts_files=paths("UserKnownHostsFile", "~/.ssh/known_hosts ~/.ssh/known_hosts2"),
        global_known_hosts_files=paths(
            "GlobalKnownHostsFile", "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
        ),
        strict_host_key_checking=text("StrictHostKeyChecking", "ask"),
        host_key_alias=lower(text("HostKeyAlias", "")) or None,
        hash_known_hosts=flag("HashKnownHosts"),
        check_host_ip=flag("CheckHostIP"),
        ciphers=maybe("Ciphers"),
        macs=maybe("MACs"),
        kex_algorithms=maybe("KexAlgorithms"),
        host_key_algorithms=maybe("HostKeyAlgorithms"),
        pubkey_accepted_algorithms=maybe("PubkeyAcceptedAlgorithms"),
        compression=flag("Compression"),
        server_alive_interval=int(text("ServerAliveInterval", _default_interval(flag("BatchMode")))),
        server_alive_count_max=int(text("ServerAliveCountMax", "3")),
        tcp_keep_alive=flag("TCPKeepAlive", "yes"),
        connect_timeout=int(text("ConnectTimeout", "0")) or None,
        connection_attempts=attempts,
        address_family=text("AddressFamily", "any"),
        bind_address=maybe("BindAddress"),
        bind_interface=maybe("BindInterface"),
        batch_mode=flag("BatchMode"),
        preferred_authentications=maybe("PreferredAuthentications"),
        password_authentication=flag("PasswordAuthentication", "yes"),
        kbd_interactive=flag("KbdInteractiveAuthentication", "yes"),
        pubkey_authentication=flag("PubkeyAuthentication", "yes"),
        named=reader.named,
        ignored=_ignored(reader),
    )


def _default_interval(batch: bool) -> str:
    """Debian's ssh, and its descendants', watches the server in batch mode."""
    return "300" if batch and os.path.exists("/etc/debian_version") else "0"


def _agent(value: Value | None, path: Callable[[Value], str], environ: Mapping[str, str]) -> str | None:
    if value is None or (text := value.items[0]) == "SSH_AUTH_SOCK":
        return environ.get("SSH_AUTH_SOCK") or None
    if text == "none":
        return None
    if text.startswith("$") and not text.startswith("${"):
        return environ.get(text[1:]) or None
    return path(value)


def _jump(reader: Reader, tokens: Mapping[str, str]) -> str | None:
    value = reader.values.get("ProxyJump")
    if value is None or value.items == ("none",):
        return None
    text = value.expanded({key: tokens[key] for key in "hknpr"})
    last = Hop.parse(text.rpartition(",")[2])
    if (last.host, last.port or 22, last.user or tokens["r"]) == (tokens["h"], int(tokens["p"]), tokens["r"]):
        raise ConfigError(
            one_line(
                f"{value.where}ProxyJump leads from {last.host} to itself; "
                f"exclude it: Host … !{last.host}, or give it ProxyJump none first"
            )
        )
    return text


def _command(reader: Reader, tokens: Mapping[str, str]) -> str | None:
    value = reader.values.get("ProxyCommand")
    if value is None or lower(value.items[0]) == "none":
        return None
    return value.expanded({key: tokens[key] for key in "hknpr"})


def _ignored(reader: Reader) -> tuple[str, ...]:
    """In the order found.  What only Debian's own system file asks for (GSSAPI) isn't worth a word."""
    names = [
        name
        for name, value in reader.values.items()
        if name in _NAMED_IF_NOT
        and lower(value.items[0]) not in _NAMED_IF_NOT[name].split()
        and not (value.system and name.startswith("GSSAPI"))
    ]
    return tuple(dict.fromkeys(names + reader.untold))
