"""Who we are at a source: userinfo in its URL, netrc, and GOAUTH's static forms.

Rules (go help goauth, go help goproxy; cmd/go/internal/auth/netrc.go):
- Credentials go over https only; a URL with userinfo over http is refused, as go refuses it.
- netrc's `machine` is the URL's host, with its port where that isn't 443; `default` and `macdef` give
  nothing, and nothing after a `default` counts.
- Of GOAUTH, `netrc` and `off` are read here; `git DIR` and commands are named as not supported.
- A secret is never in a repr, an error or a log.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from urllib.parse import unquote

from gotunnel.address import one_line
from gotunnel.dataclass import dataclass
from gotunnel.wire.http1 import basic


@dataclass(frozen=True)
class Credentials:
    """What netrc knows: machine -> (login, password)."""

    machines: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False)

    def authorization(self, host: str, port: int, userinfo: str = "") -> str:
        """The Authorization header for an https request to `host`:`port`, "" for none.

        `userinfo` is what stands before the `@` of the URL, %-encoded; it wins over netrc, as with go.
        """
        if userinfo:
            user, _, password = userinfo.partition(":")
            return basic(unquote(user), unquote(password))
        shown = f"[{host}]" if ":" in host else host
        names = (shown, f"{shown}:443") if port == 443 else (f"{shown}:{port}",)
        for name in names:
            if name in self.machines:
                return basic(*self.machines[name])
        return ""


NONE = Credentials()


def parse_netrc(text: str) -> dict[str, tuple[str, str]]:
    """machine -> (login, password) of those that have all three; the first of a name counts."""
    machines: dict[str, tuple[str, str]] = {}
    machine = login = password = ""
    in_macro = False
    for line in text.splitlines():
        if in_macro:
            in_macro = bool(line.strip())
            continue
        words = line.split()
        for key, value in zip(words[::2], [*words[1::2], ""], strict=False):
            if key == "machine":
                machine, login, password = value, "", ""
            elif key == "default":
                return machines
            elif key == "login":
                login = value
            elif key == "password":
                password = value
            elif key == "macdef":
                in_macro = True
            if machine and login and password:
                machines.setdefault(machine, (login, password))
                machine = login = password = ""
    return machines


def read_credentials(
    environ: Mapping[str, str], goauth: str = "netrc"
) -> tuple[Credentials, tuple[str, ...]]:
    """What GOAUTH allows us to know, and a line for each of its entries that we can't honour.

    `NETRC` names the file, else ~/.netrc; one that is absent or can't be read gives nothing, as with go.
    """
    complaints: list[str] = []
    machines: dict[str, tuple[str, str]] = {}
    for entry in (part.strip() for part in goauth.split(";")):
        if entry == "off":
            return NONE, tuple(complaints)
        if entry == "netrc":
            machines = {**_read_netrc(environ), **machines}
        elif entry:
            name = one_line(" ".join(entry.split()[:1]), 80)
            complaints.append(
                f"GOAUTH={name} …: only netrc and off are supported for module sources; "
                "put the credentials into ~/.netrc, or list the source's hosts in GONOPROXY"
            )
    return Credentials(machines), tuple(complaints)


def _read_netrc(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    path = environ.get("NETRC", "")
    if not path:
        home = environ.get("HOME", "")
        if not os.path.isabs(home):
            return {}
        path = os.path.join(home, ".netrc")
    try:
        return parse_netrc(Path(path).read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:
        return {}
