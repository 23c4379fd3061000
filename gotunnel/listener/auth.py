"""Who may use the endpoint: a secret of the run's own, as Basic credentials (RFC 7617).

Rules:
- Compared in constant time; with a secret of the run's own any user name will do.
- Without the secret nothing is dialled, and nothing is said of what could be.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets

USER = "gotunnel"


def new_secret() -> str:
    """192 random bits in letters that need no escaping in a URL."""
    return secrets.token_urlsafe(24)


def allowed(header: str, secret: str, user: str = "") -> bool:
    """Is this Proxy-Authorization value right?  An empty `secret` allows everybody, an empty `user` any."""
    if not secret:
        return True
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        name, _, given = base64.b64decode(value.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return False
    return matches(name, given, secret, user)


def matches(name: bytes, given: bytes, secret: str, user: str = "") -> bool:
    """Is this user's password right?"""
    right = hmac.compare_digest(given, secret.encode())
    return right and (not user or hmac.compare_digest(name, user.encode()))
