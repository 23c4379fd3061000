"""CHAINs as they may be shown: what a person typed, right or wrong, without any piece of a password.

Rules:
- What can't be told from a password is masked: a port that is none, a path, an option that we don't know.
- This file knows how a hop is cut up, not what it means; that is `spec`.
"""

from __future__ import annotations

import re

# the options that a hop may have after its ?
SSH_OPTIONS = ("identity", "known_hosts", "host_key_checking", "config", "compression", "connections",
               "identity_credential", "known_hosts_credential")  # fmt: skip
PASSWORD_OPTIONS = ("password_file", "password_env", "password_credential")
TLS_OPTIONS = ("ca", "cert", "key", "server_name")
DIRECT_OPTIONS = ("interface", "source")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_NEXT_HOP = re.compile(r",(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_WHERE = re.compile(
    r"(?P<host>\[[^\]]*\]|[^:/?]*)(?::(?P<port>[^/?]*))?(?P<path>/[^?]*)?(?P<rest>.*)", re.DOTALL
)
_PORT = re.compile(r"[0-5]?[0-9]{0,4}|6[0-4][0-9]{3}|65[0-5][0-9]{2}")  # a longer number is none
_SHOWN = frozenset((*SSH_OPTIONS, *PASSWORD_OPTIONS, *TLS_OPTIONS, *DIRECT_OPTIONS))


def quoted(text: str, also: str = "") -> str:
    """`text` with % before what would not be read back as it is."""
    return "".join(f"%{ord(c):02X}" if c in "%,?# " or c in also else c for c in text)


def masked(text: str) -> str:
    """A CHAIN as typed, right or wrong, without anything that may be a piece of a password."""
    return ",".join(_masked_hop(hop) for hop in _NEXT_HOP.split(text))


def _masked_hop(text: str) -> str:
    """One hop with a scheme and those without that follow it."""
    match = _SCHEME.fullmatch(text)
    scheme, rest = (f"{match[1]}://", match[2]) if match else ("", text)
    userinfo, at, where = rest.rpartition("@")
    user, colon, _ = userinfo.partition(":")
    hosts = ",".join(_masked_where(part) for part in where.split(","))
    return f"{scheme}{user}{':***' if colon else ''}{at}{hosts}"


def _masked_where(text: str) -> str:
    if text.startswith("direct:"):
        return text
    parts = _WHERE.fullmatch(text)
    assert parts is not None  # every group may be empty
    port, path, query = parts["port"], parts["path"], parts["rest"]
    if port is not None:
        port = f":{port if _PORT.fullmatch(port) else '***'}"
    path = "/***" if len(path or "") > 1 else path or ""
    options = "&".join(map(_masked_option, query[1:].split("&"))) if query else ""
    return f"{parts['host']}{port or ''}{path}{query[:1]}{options}"


def _masked_option(text: str) -> str:
    name, equals, value = text.partition("=")
    if name in _SHOWN:
        return text
    return f"{name}{equals}***" if equals and value else text
