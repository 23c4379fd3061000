"""Who may use the endpoint: a secret of the run's own, as Basic credentials (RFC 7617).

Rules:
- Compared in constant time; with a secret of the run's own any user name will do.
- Without the secret nothing is dialled, and nothing is said of what could be.
- What opens the endpoint is masked in logs and crash texts as long as it does.
- Services that share a password come to the same secrets for their other doors, so that one can stand in for
  another; these may be shown where the password may not, and don't lead back to it.
- A shared endpoint has one more secret for each run that uses it; whose it was is known from then on (`RUN`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Callable

from gotunnel.observe.logs import register_secret

USER = "gotunnel"


def new_secret() -> str:
    """192 random bits in letters that need no escaping in a URL."""
    return secrets.token_urlsafe(24)


def derived(password: str, door: str) -> str:
    """The secret of another `door` that everybody who has the password comes to; dear to guess from."""
    salt = f"gotunnel {door}".encode()
    digest = hashlib.scrypt(password.encode(), salt=salt, n=1 << 14, r=8, p=1, dklen=24)
    return base64.urlsafe_b64encode(digest).decode()


class Keys:
    """Who may come in: the endpoint's own secret, and those of runs.

    An empty `secret` lets everybody in, an empty `user` allows any name with it.
    """

    def __init__(self, secret: str = "", user: str = "") -> None:
        self._secret, self._user = secret, user
        self._runs: dict[str, str] = {}  # by run
        self._forget: dict[str, Callable[[], None]] = {"": register_secret(secret)}

    @property
    def wanted(self) -> bool:
        """False where everybody may come in."""
        return bool(self._secret)

    def add(self, run: str, secret: str) -> None:
        """Let a run in."""
        self.remove(run)
        self._runs[run] = secret
        self._forget[run] = register_secret(secret)

    def remove(self, run: str) -> None:
        """The run is over."""
        if self._runs.pop(run, None) is not None:
            self._forget.pop(run)()

    def whose(self, header: str) -> str | None:
        """Whose Proxy-Authorization value this is: a run's, "" for the endpoint's own; None: nobody's."""
        if not self._secret:
            return ""
        scheme, _, value = header.partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            name, _, given = base64.b64decode(value.strip(), validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return None
        return self.owner(name, given)

    def owner(self, name: bytes, given: bytes) -> str | None:
        """As `whose`, for a user name and a password."""
        found = None
        for run, secret in self._runs.items():  # all of them: the time tells nothing
            if hmac.compare_digest(given, secret.encode()):
                found = run
        right = hmac.compare_digest(given, self._secret.encode())
        if right and (not self._user or hmac.compare_digest(name, self._user.encode())):
            return ""
        return found


def matches(name: bytes, given: bytes, secret: str, user: str = "") -> bool:
    """Is this user's password right?"""
    return Keys(secret, user).owner(name, given) is not None
