"""Why a request for a module file failed, and whether to ask again.

Rules:
- Everything that fails on the way to a source is a `Failed`, a ModuleError that knows whether asking again
  (by another way out) may help; its text names the source's host and the way out, never a secret.
- How long one goes on: while a way out that has worked is down, WAIT seconds without a byte; else FRUITLESS
  failures in a row that brought nothing, and where it may have been the way out's, no sooner than SETTLE.
- 404 and 410 are what the source said; every other answer that is no success is 502 for go, silence is 504,
  and what is wrong on this machine is 500.
"""

from __future__ import annotations

import errno

from gotunnel.address import HostPort, one_line, redact
from gotunnel.errors import Blame, DialError, ModuleError, NoWayOut, StreamLost

_STATUS = {
    401: "http.unauthorized",
    403: "http.forbidden",
    404: "module.not-found",
    410: "module.not-found",
    407: "proxy.auth-required",
    429: "http.rate-limited",
    451: "http.forbidden",
    511: "http.captive-portal",  # RFC 6585 §6
}
AGAIN = frozenset({429, 502, 503, 504})
ATTEMPTS = 12  # failures in all that may be the source's; one more for each WORTH bytes that came
FRUITLESS = 4
WORTH = 64 * 1024
WAIT = 30.0  # seconds
SETTLE = 3.0
LATE = ("http.timeout", "tcp.timeout", "tls.timeout", "dns.timeout", "hop.stalled")


class Failed(ModuleError):
    """`again`: another try may help; `pause` is the least time in seconds before it; `upstream` the way out.

    `stalled`: it went silent in mid-body.  `waited`: every way out was tried, and waited for.  `odd`: ranges
    don't fit together.  `status` of the answer is `answered`, 0 where there was none.
    """

    def __init__(
        self,
        finding: str,
        detail: str,
        *,
        again: bool,
        upstream: str = "",
        http_status: int = 0,
        pause: float = 0.0,
        stalled: bool = False,
        waited: bool = False,
        odd: bool = False,
        answered: int = 0,
    ) -> None:
        status = http_status or (504 if finding in LATE else 502)
        super().__init__(finding, one_line(redact(detail)), http_status=status, upstream=upstream)
        self.again = again
        self.pause = pause
        self.stalled = stalled
        self.waited = waited
        self.odd = odd
        self.answered = answered


def by(upstream: str) -> str:
    """ " by WAY" for a message, "" where the way has no name."""
    name = upstream.removesuffix(":")
    return f" by {redact(name)}" if name else ""


def not_reached(error: DialError, upstream: str, *, only: bool = False) -> Failed:
    """A dial or a TLS handshake failed; the finding is kept.  `only`: no other way out was tried."""
    waited = isinstance(error, NoWayOut) and not only
    again = error.another_way and not (waited and error.blame in (Blame.TARGET, Blame.POLICY))
    detail = error.detail if isinstance(error, NoWayOut) else f"{error.detail}{by(upstream)}"
    return Failed(error.finding, detail, again=again, upstream=upstream, waited=waited)


def refused(host: HostPort, upstream: str, status: int, text: str, retry_after: str) -> Failed:
    """The source answered with a status that is no success; `text` is its plain-text body."""
    finding = _STATUS.get(status, "http.server-error" if status >= 500 else "unknown")
    words = text.strip() or f"status {status}"
    http_status = status if status in (404, 410) else 502
    if http_status == 502:
        words = f"{host}{by(upstream)}: answered {status}" + (f": {text.strip()}" if text.strip() else "")
    pause = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
    return Failed(
        finding,
        words,
        again=status in AGAIN,
        upstream=upstream,
        http_status=http_status,
        pause=pause,
        answered=status,
    )


def local(error: OSError, where: str) -> Failed:
    """Our own disk failed."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    finding = "disk.full" if full else "cache.permission"
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS):
        finding = "unknown"
    return Failed(finding, f"{where}: {error.strerror or error}", again=False, http_status=500)


class Patience:
    """Does a transfer go on after a failure?  Pure; times are seconds of one monotonic clock."""

    def __init__(self, now: float) -> None:
        self._progress = now
        self._fruitless = 0
        self._failures = 0
        self._bytes = 0

    def progress(self, now: float, size: int) -> None:
        """So many bytes came that weren't there before."""
        self._progress = now
        self._fruitless = 0
        self._bytes += size

    def goes_on(self, now: float, error: Failed, *, down: bool, worked: bool) -> bool:
        """After `error`: is it asked again?

        `down`: the way out by which it came is usable no more; `worked`: answers have come by some way.
        """
        cause = error.__cause__
        hop = cause.blame is Blame.HOP if isinstance(cause, DialError) else down
        silent = now - self._progress
        if worked and hop:
            return silent < WAIT
        self._failures += 1
        late = error.finding == "http.timeout" and not error.stalled  # a whole wait for the head
        self._fruitless += 2 if error.waited or late else 1
        if self._failures >= ATTEMPTS + self._bytes // WORTH:
            return False
        broke = error.stalled or isinstance(cause, StreamLost | OSError)
        return self._fruitless < FRUITLESS or (broke and worked and silent < SETTLE)
