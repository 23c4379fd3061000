"""Proxy authentication without sockets: challenges, and Digest (RFC 7616); Basic is in http1.

Rules:
- A header may hold several challenges, and a reply several headers; commas in quotes divide nothing.  What
  can't be read is passed over, never an error: another challenge may be one that we can answer.
- Digest: MD5, SHA-256 and their -sess forms, with `qop=auth` or none (RFC 2069); `auth-int` alone is not
  answered.  The strongest algorithm offered wins.
- A nonce may be used again with a higher count, also by another connection, until the proxy says no.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable
from urllib.parse import quote

from gotunnel.dataclass import dataclass

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAM = re.compile(rf'({_WORD})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|({_WORD}))', re.DOTALL)
_SCHEME = re.compile(rf"({_WORD})(?:[ \t]+([A-Za-z0-9._~+/-]+=*)(?=[ \t]*(?:,|$)))?")
_SKIP = re.compile(r"[\s,]*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)

# strongest first; the names are lower case
_ALGORITHMS = ("sha-256-sess", "sha-256", "md5-sess", "md5")


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a proxy asks for: `scheme` in lower case, then a `token` or `params` (names in lower case)."""

    scheme: str
    token: str = ""
    params: tuple[tuple[str, str], ...] = ()

    def param(self, name: str) -> str:
        """The first value of `name`, or ""."""
        return next((value for key, value in self.params if key == name), "")


def challenges(values: Iterable[str]) -> tuple[Challenge, ...]:
    """All challenges of the values of Proxy-Authenticate (RFC 9110 §11.3), in their order."""
    found: list[Challenge] = []
    for value in values:
        position = _skip(value, 0)
        while position < len(value):
            param = _PARAM.match(value, position)
            scheme = _SCHEME.match(value, position)
            if param and found and not (scheme and scheme[2]):
                name, quoted, plain = param.groups()
                text = plain if quoted is None else _ESCAPE.sub(r"\1", quoted)
                last = found[-1]
                found[-1] = Challenge(last.scheme, last.token, (*last.params, (name.lower(), text)))
                position = _skip(value, param.end())
            elif scheme and not param:
                found.append(Challenge(scheme[1].lower(), scheme[2] or ""))
                position = _skip(value, scheme.end())
            else:
                comma = value.find(",", position)
                position = len(value) if comma < 0 else _skip(value, comma)
    return tuple(found)


def _skip(value: str, position: int) -> int:
    match = _SKIP.match(value, position)
    return match.end() if match else position


def token_of(challenge: Challenge) -> bytes | None:
    """The bytes of a token in base64; None where there is none that can be read."""
    try:
        return base64.b64decode(challenge.token, validate=True) or None
    except binascii.Error:
        return None


def strongest_digest(offered: Iterable[Challenge]) -> Challenge | None:
    """The Digest challenge to answer, if there is one that we can."""
    usable = [c for c in offered if c.scheme == "digest" and c.param("nonce") and _qop(c) is not None]
    usable = [c for c in usable if _algorithm(c) in _ALGORITHMS]
    return min(usable, key=lambda c: _ALGORITHMS.index(_algorithm(c)), default=None)


def _algorithm(challenge: Challenge) -> str:
    return (challenge.param("algorithm") or "MD5").lower()


def _qop(challenge: Challenge) -> str | None:
    """ "auth", "" for a proxy of the first Digest (RFC 2069), None for one that we can't answer."""
    offered = challenge.param("qop").lower().replace(",", " ").split()
    if not offered:
        return ""
    return "auth" if "auth" in offered else None


def digest(
    challenge: Challenge, user: str, password: str, *, method: str, uri: str, count: int, cnonce: str
) -> str:
    """A Digest credential for one request; `count` is how often the nonce is used with it, from 1."""
    algorithm = _algorithm(challenge)
    hashed = _sha256 if algorithm.startswith("sha-256") else _md5
    realm, nonce, qop = challenge.param("realm"), challenge.param("nonce"), _qop(challenge)
    # a header's bytes stand in text as Latin-1, whatever the proxy meant by them; ours are UTF-8
    secret = hashed(_bytes(user) + b":" + realm.encode("latin-1") + b":" + _bytes(password))
    if algorithm.endswith("-sess"):
        secret = hashed(f"{secret}:{nonce}:{cnonce}".encode("latin-1"))
    request = hashed(f"{method}:{uri}".encode())
    number = f"{count:08x}"
    middle = f"{nonce}:{number}:{cnonce}:{qop}" if qop else nonce
    response = hashed(f"{secret}:{middle}:{request}".encode("latin-1"))
    fields = [
        _user_field(challenge, user, realm, hashed),
        f'realm="{_quoted(realm)}"',
        f'nonce="{_quoted(nonce)}"',
        f'uri="{_quoted(uri)}"',
        f'response="{response}"',
    ]
    if challenge.param("algorithm"):
        fields.append(f"algorithm={challenge.param('algorithm')}")
    if challenge.param("opaque"):
        fields.append(f'opaque="{_quoted(challenge.param("opaque"))}"')
    if qop:
        fields += [f"qop={qop}", f"nc={number}"]
    if qop or algorithm.endswith("-sess"):
        fields.append(f'cnonce="{_quoted(cnonce)}"')
    return "Digest " + ", ".join(fields)


def _user_field(challenge: Challenge, user: str, realm: str, hashed: Callable[[bytes], str]) -> str:
    if challenge.param("userhash").lower() == "true":
        name = hashed(_bytes(user) + b":" + realm.encode("latin-1"))
        return f'username="{name}", userhash=true'
    if user.isascii():
        return f'username="{_quoted(user)}"'
    return f"username*=UTF-8''{quote(_bytes(user), safe='')}"


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # what an environment holds may be no text


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


@dataclass(slots=True)
class DigestNonce:
    """A nonce and how often it was used: one for all connections to a proxy."""

    challenge: Challenge
    count: int = 0

    def credential(self, user: str, password: str, *, method: str, uri: str, cnonce: str) -> str:
        """The credential for the next request."""
        self.count += 1
        return digest(self.challenge, user, password, method=method, uri=uri, count=self.count, cnonce=cnonce)

    def next(self, info: str) -> DigestNonce:
        """The nonce to use from now on, as a Proxy-Authentication-Info says (RFC 7616 §3.5)."""
        fresh = "".join(c.param("nextnonce") for c in challenges([f"Digest {info}"]))
        if not fresh:
            return self
        others = tuple(pair for pair in self.challenge.params if pair[0] != "nonce")
        return DigestNonce(Challenge("digest", "", (("nonce", fresh), *others)))
