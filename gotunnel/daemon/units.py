"""The systemd units, as text: the one source of `systemd/` and of `gotunnel service install`.

Rules:
- Pure: what the units depend on (program, ports, systemd's version) comes in, texts go out.
- `systemd/` holds what `shipped` gives: a test compares, `python -m gotunnel.daemon.units systemd` writes.
- The sockets are systemd's own, so a client waits while the service restarts; hence no limit on starts or
  triggers either: a socket that hits one fails, and refuses.
- No boot waits for a way out: the service is ordered after the target that starts it.

Source: systemd.service(5), systemd.socket(5), systemd.exec(5), systemd.unit(5) of version 252; newer
directives are written only for a systemd that knows them, since an older one warns of them at each load.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path

from gotunnel.daemon.activation import NAMES
from gotunnel.dataclass import dataclass

PROGRAM = "/usr/bin/env gotunnel"  # of the files in systemd/; `service install` writes an absolute path
PORTS: Mapping[str, int] = dict(zip(NAMES, (4480, 4481, 4482), strict=True))
WORDS = {"proxy": "HTTP and SOCKS proxy", "modproxy": "Go module proxy", "admin": "status page and metrics"}
MARK = "# gotunnel: written by `gotunnel service install`"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the units depend on.  `program` is a command line's beginning, quoted as systemd wants it;
    `systemd` is its version, 0 for the oldest that we know; `ports` are those of 127.0.0.1."""

    user: bool = False
    program: str = PROGRAM
    systemd: int = 0
    ports: Mapping[str, int] = field(default_factory=lambda: PORTS)


def render(wanted: Wanted) -> dict[str, str]:
    """File name -> text of every unit."""
    units = {"gotunnel.service": _service(wanted, ""), "gotunnel@.service": _service(wanted, "%i")}
    return units | {f"gotunnel-{name}.socket": _socket(wanted, name) for name in NAMES}


def shipped() -> dict[str, str]:
    """Path below `systemd/` -> text."""
    system, user = render(Wanted()), render(Wanted(user=True))
    return system | {f"user/{name}": text for name, text in user.items()}


def quoted(*words: str) -> str:
    """A command line as ExecStart= reads it (systemd.service(5), "Command lines")."""
    return " ".join(_word(word) for word in words)


def _word(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if any(c in " '\";" for c in word) or not word else escaped


def _socket(wanted: Wanted, name: str) -> str:
    return f"""\
[Unit]
Description=gotunnel: {WORDS[name]}
Documentation=man:systemd.socket(5)

[Socket]
# systemctl edit gotunnel-{name}.socket: an empty ListenStream= first, then another address
ListenStream=127.0.0.1:{wanted.ports[name]}
FileDescriptorName={name}
Service=gotunnel.service
Backlog=1024
TriggerLimitIntervalSec=0

[Install]
WantedBy=sockets.target
"""


def _service(wanted: Wanted, profile: str) -> str:
    blocks = [_unit(wanted, profile), _running(wanted, profile)]
    if wanted.user:
        blocks += [_USER]
    else:
        blocks += [_places(profile), _HARDENING]
    return "\n".join([*blocks, f"[Install]\nWantedBy={_target(wanted)}\n"])


def _target(wanted: Wanted) -> str:
    return "default.target" if wanted.user else "multi-user.target"


def _unit(wanted: Wanted, profile: str) -> str:
    online = "" if wanted.user else "Wants=network-online.target\n"
    after = _target(wanted) if wanted.user else f"network-online.target {_target(wanted)}"
    return f"""\
[Unit]
Description=gotunnel: Go modules on any network{", profile %i" if profile else ""}
Documentation=man:systemd.service(5)
{online}# no boot waits until a way out works, which is when we are ready; who needs gotunnel is ordered
# after {"its sockets (sockets.target)" if not profile else "basic.target"}, not after this service
After={after}
StartLimitIntervalSec=0
"""


def _running(wanted: Wanted, profile: str) -> str:
    config = "%E/gotunnel"  # a user's is $XDG_CONFIG_HOME/gotunnel
    start = f"--config {config}/%i.toml serve --profile %i" if profile else "serve"
    variables = f"{config}/{'%i.' if profile else ''}environment"
    kind = "notify-reload" if wanted.systemd >= 253 else "notify"
    reload = "" if wanted.systemd >= 253 else "ExecReload=/bin/kill -HUP $MAINPID\n"
    steps = "RestartSteps=8\nRestartMaxDelaySec=30s\n" if wanted.systemd >= 254 else ""
    sockets = "" if profile else "Sockets=" + " ".join(f"gotunnel-{name}.socket" for name in NAMES) + "\n"
    return f"""\
[Service]
Type={kind}
NotifyAccess=main
ExecStart={wanted.program} {start}
{reload}{sockets}# variables such as GOTUNNEL_VIA or AWS_ACCESS_KEY_ID; read by systemd, so 0600 is enough
EnvironmentFile=-{variables}
TimeoutStartSec=infinity
TimeoutStopSec=20s
WatchdogSec=30s
Restart=always
RestartSec=500ms
{steps}# the service drains; what helps it (a ProxyCommand) lives until it is done
KillMode=mixed
LimitNOFILE=65536
UMask=0077
SyslogIdentifier=gotunnel
"""


def _places(profile: str) -> str:
    name = "gotunnel-%i" if profile else "gotunnel"
    cache = f"%C/{name}" if profile else "%C"
    return f"""\
# Places.  ~/.ssh isn't there: what a jump host wants comes as a credential.  Put the key into
# /etc/credstore/{name.replace("-", ".")}.ssh_key and known_hosts beside it (root, 0600), and write
# via = "ssh://dev@jump?identity_credential=ssh_key&known_hosts_credential=known_hosts"
LoadCredential=ssh_key:{name.replace("-", ".")}.ssh_key
LoadCredential=known_hosts:{name.replace("-", ".")}.known_hosts
LoadCredential=password:{name.replace("-", ".")}.password
LoadCredential=alert-secret:{name.replace("-", ".")}.alert-secret
DynamicUser=yes
User={name}
StateDirectory={name}
StateDirectoryMode=0700
RuntimeDirectory={name}
RuntimeDirectoryMode=0700
CacheDirectory={name}
CacheDirectoryMode=0700
ConfigurationDirectory=gotunnel
Environment=XDG_CACHE_HOME={cache}
"""


_USER = """\
# as one of the user's programs: ~/.ssh, its agent and ProxyCommand are there
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
SystemCallArchitectures=native
"""

_HARDENING = """\
# Hardening: it reads its files, writes its three directories, and talks TCP and UDP; that is all
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
DevicePolicy=closed
KeyringMode=private
LockPersonality=yes
MemoryDenyWriteExecute=yes
PrivateDevices=yes
PrivateMounts=yes
PrivateTmp=yes
PrivateUsers=yes
ProcSubset=pid
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
"""


def _files(directory: Path) -> Iterator[Path]:
    for name, text in shipped().items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        yield file


if __name__ == "__main__":
    for written in _files(Path(sys.argv[1])):
        sys.stdout.write(f"{written}\n")
