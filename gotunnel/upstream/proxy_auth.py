"""Logging in to an HTTP proxy: which scheme, in which round, on which connection.

Rules:
- The first CONNECT to a proxy asks in vain and learns the schemes; what worked is sent at once from then on.
  Only inside TLS the first one carries Basic already: it costs nothing there, and some proxies hide from
  whoever comes without.
- The strongest scheme that we can do is used: Negotiate > NTLM > Digest > Basic.  Basic is never sent in
  clear to a proxy that offers a stronger one.
- A password that was judged wrong is not tried again with another scheme, and not soon: directories lock
  accounts after a few failures.
- NTLM and Negotiate log in a connection, not a request: all their rounds are on the same one.
- pyspnego (the extra `ntlm`; `kerberos` for tickets) is imported when a proxy asks for it, in a thread:
  Kerberos asks a server.
"""

from __future__ import annotations

import base64
import importlib.util
import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from gotunnel.address import one_line
from gotunnel.errors import Blame, DialError
from gotunnel.tasks import in_thread
from gotunnel.wire.http1 import Reply, basic
from gotunnel.wire.proxy_auth import Challenge, DigestNonce, challenges, strongest_digest, token_of

if TYPE_CHECKING:
    import spnego

T = TypeVar("T")
REFUSED_WAIT = 60.0  # seconds until a refused password may be tried again
_MOST_ROUNDS = 6  # asked in vain, a stale nonce, and three of NTLM
_NAMES = {"basic": "Basic", "digest": "Digest", "ntlm": "NTLM", "negotiate": "Negotiate"}
_EXTRAS = {"ntlm": "pip install 'gotunnel[ntlm]'", "negotiate": "pip install 'gotunnel[kerberos]'"}


class ProxyAuth:
    """What is known about logging in to one proxy; `password` is asked for each time it is needed."""

    def __init__(self, *, label: str, host: str, user: str, password: Callable[[], str], tls: bool) -> None:
        self.label = label
        self.host = host
        self.user = user
        self.password = password
        self.tls = tls
        self.scheme = ""  # the one that worked
        self.nonce: DigestNonce | None = None

    def login(self, uri: str) -> Login:
        """A login for one CONNECT to `uri`.  Raises ConfigError where the password can't be read."""
        return Login(self, uri, self.password())

    def forget(self) -> None:
        """Nothing is known any more."""
        self.scheme, self.nonce = "", None


class Login:
    """The rounds of one CONNECT: `first`, then `answer` to each 407, then `accepted`."""

    def __init__(self, kept: ProxyAuth, uri: str, password: str) -> None:
        self._kept = kept
        self._uri = uri
        self._password = password
        self._has_password = bool(kept.user or password)
        self._scheme = ""  # of the credential that was sent last
        self._nonce: DigestNonce | None = None
        self._fresh = False  # the nonce came in an answer to this login
        self._context: spnego.ContextProxy | None = None
        self._rounds = 0
        self.bound = False  # the next request counts on this connection only

    async def first(self) -> str:
        """The credential to send unasked; "" for none.  Raises DialError."""
        scheme = self._kept.scheme
        if not scheme and self._kept.tls and self._has_password:
            scheme = "basic"
        if scheme == "digest":
            self._nonce = self._kept.nonce
        return await self._start(scheme) if scheme else ""

    async def answer(self, reply: Reply) -> str:
        """The credential that answers a 407.  Raises DialError where there is none."""
        self._rounds += 1
        offered = challenges(reply.values("proxy-authenticate"))
        if self._rounds > _MOST_ROUNDS:
            raise self._error("asks for a login again and again")
        mine = [c for c in offered if c.scheme == self._scheme]
        if mine and self._context is not None:
            token = token_of(mine[0])
            if token is None or self._context.complete:
                raise self._refused(judged=self._context.complete)
            self.bound = True
            return await self._step(token)
        if self._scheme == "digest" and (fresh := strongest_digest(mine)) is not None:
            if self._fresh and fresh.param("stale").lower() != "true":
                raise self._refused(judged=True)
            return self._digest(fresh)
        if mine:
            raise self._refused(judged=True)
        return await self._choose(offered)

    def accepted(self, reply: Reply) -> None:
        """It let us through: the next dial says the same at once."""
        if self._scheme:
            self._kept.scheme = self._scheme
        if self._scheme == "digest" and self._nonce is not None:
            info = reply.header("proxy-authentication-info")
            self._kept.nonce = self._nonce.next(info) if info else self._nonce

    # --- choosing ----------------------------------------------------------------------------

    async def _choose(self, offered: Sequence[Challenge]) -> str:
        schemes = {challenge.scheme for challenge in offered}
        self._scheme, self._context = "", None
        has_spnego = importlib.util.find_spec("spnego") is not None
        tickets = all(importlib.util.find_spec(name) is not None for name in ("spnego", "gssapi", "krb5"))
        for scheme, usable in (
            ("negotiate", tickets),
            ("ntlm", has_spnego and self._has_password),
            ("negotiate", has_spnego and self._has_password and not tickets),  # NTLM inside Negotiate
        ):
            if usable and scheme in schemes:
                try:
                    return await self._start(scheme)
                except DialError:  # no ticket: nothing was sent yet
                    self._context = None
        digest = strongest_digest(offered)
        if self._has_password and digest is not None:
            return self._digest(digest)
        if self._has_password and "basic" in schemes and (self._kept.tls or schemes == {"basic"}):
            return await self._start("basic")
        raise self._error(self._what_is_missing(schemes, has_spnego, tickets))

    def _what_is_missing(self, schemes: set[str], has_spnego: bool, tickets: bool) -> str:
        names = ", ".join(_NAMES[s] for s in _NAMES if s in schemes)
        others = one_line(", ".join(sorted(schemes - _NAMES.keys())), 60)
        words = f"wants a login ({names or others or 'it does not say which'})"
        if schemes & {"ntlm", "negotiate"} and self._has_password and not has_spnego:
            words += f"; {_EXTRAS['ntlm']} can do that with your password"
        elif "negotiate" in schemes and not self._has_password:
            install = f"{_EXTRAS['negotiate']} can do that with a ticket"
            words += (
                f"; {'kinit gets a ticket' if tickets else install}, or put USER:PASSWORD@ before its host"
            )
        elif names and not self._has_password:
            words += "; put USER:PASSWORD@ before its host, or USER@ and ?password_file=FILE"
        elif "basic" in schemes:
            words += "; Basic would send the password in clear, and the others can't be used here"
        elif not names or "digest" in schemes:
            words += "; none that we can do"
        return words

    # --- one scheme --------------------------------------------------------------------------

    async def _start(self, scheme: str) -> str:
        self._scheme = scheme
        if scheme == "basic":
            return basic(self._kept.user, self._password)
        if scheme == "digest":
            return self._digest_credential()
        self._context = await self._in_thread(lambda: self._new_context(scheme))
        return await self._step(None)

    def _new_context(self, scheme: str) -> spnego.ContextProxy:
        import spnego

        return spnego.client(
            self._kept.user or None,
            self._password or None,
            hostname=self._kept.host,
            service="HTTP",
            protocol=scheme,
        )

    async def _step(self, token: bytes | None) -> str:
        context = self._context
        assert context is not None
        answer = await self._in_thread(lambda: context.step(token))
        if not answer:
            raise self._refused(judged=False)
        return f"{_NAMES[self._scheme]} {base64.b64encode(answer).decode('ascii')}"

    def _digest(self, challenge: Challenge) -> str:
        # not shared before it has worked: another dial's higher count would make ours look replayed
        self._scheme, self._nonce, self._fresh = "digest", DigestNonce(challenge), True
        return self._digest_credential()

    def _digest_credential(self) -> str:
        if self._nonce is None:
            self._scheme = ""
            return ""
        return self._nonce.credential(
            self._kept.user, self._password, method="CONNECT", uri=self._uri, cnonce=secrets.token_hex(16)
        )

    async def _in_thread(self, job: Callable[[], T]) -> T:
        try:
            return await in_thread(f"login {self._kept.label}", job)
        except ImportError as error:
            extra = _EXTRAS[self._scheme]
            raise self._error(f"{_NAMES[self._scheme]} needs pyspnego: {extra}") from error
        except Exception as error:  # what a strange token makes of it is anybody's guess
            words = f"{_NAMES[self._scheme]} failed: {type(error).__name__}"
            if type(error).__module__.startswith("spnego"):  # others may repeat what they choked on
                words += f": {one_line(str(error), 150)}"
            raise self._error(words) from error

    # --- errors ------------------------------------------------------------------------------

    def _refused(self, *, judged: bool) -> DialError:
        words = f"refuses our user and password ({_NAMES[self._scheme]})"
        if not self._has_password:
            words = f"refuses our ticket ({_NAMES[self._scheme]})"
        return self._error(words, REFUSED_WAIT if judged else 0.0)

    def _error(self, words: str, retry_after: float = 0.0) -> DialError:
        self._kept.forget()
        label = self._kept.label
        return DialError(
            "proxy.auth-required",
            f"{label}: {words}",
            blame=Blame.CREDENTIALS,
            hop=label,
            retry_after=retry_after,
        )
