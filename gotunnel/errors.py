"""The error tree.

Rules:
- Every error that leaves a function of ours is one of these; foreign errors are translated at the
  edge where they arise, with `raise … from`.
- The text of an error is one line for a person: what, where, what to do.  It never holds a secret.
- A `DialError` knows whom to blame and whether another way out may help, so that nobody above has to
  read its text.  `finding` is an id of the catalogue (`findings/catalogue.py`).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence


class Blame(enum.Enum):
    """Who is at fault for a failed dial; decides what the breaker is charged with."""

    HOP = "hop"  # the way out itself: unreachable, silent, broken
    TARGET = "target"  # the way out works, the target refused or doesn't exist
    POLICY = "policy"  # the way out works, but is not allowed to reach this target
    CREDENTIALS = "credentials"  # the way out knows us no more: a key, a password, a host key


class GotunnelError(Exception):
    """Base of the tree.  `status` is the exit status that the command line gives it (contract §2)."""

    status = 1


class UsageError(GotunnelError):
    """The command line is wrong."""

    status = 2


class ConfigError(GotunnelError):
    """The configuration is wrong: a CHAIN, a key, a file it names."""

    status = 78


class CommandError(GotunnelError):
    """CMD can't be run (126) or isn't found (127)."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class DialError(GotunnelError):
    """A target could not be reached by one way out.

    `finding` is an id of the catalogue, `hop` the label of the hop that failed ("" when it was the
    target).  `retry_after` is the least time in seconds before the same hop may be tried again
    (a refused key: OpenSSH >= 9.8 penalises repeated failures, sshd_config(5) PerSourcePenalties).
    """

    status = 69

    def __init__(
        self,
        finding: str,
        detail: str,
        *,
        blame: Blame,
        another_way: bool = True,
        hop: str = "",
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(detail)
        self.finding = finding
        self.detail = detail
        self.blame = blame
        self.another_way = another_way
        self.hop = hop
        self.retry_after = retry_after

    @property
    def charges_hop(self) -> bool:
        """True where the breaker of the way out is to be charged."""
        return self.blame in (Blame.HOP, Blame.CREDENTIALS)


class NoWayOut(DialError):
    """Every way out failed; `failures` holds (upstream name, its error) in the order tried.

    It speaks for the failure that may pass: one way with a refused key and one that timed out are worth
    another try.
    """

    def __init__(self, target: str, failures: Sequence[tuple[str, DialError]]) -> None:
        self.failures = tuple(failures)
        errors = [error for _, error in self.failures]
        passing = [error for error in errors if error.blame is not Blame.CREDENTIALS]
        first = next(iter([*passing, *errors]), None)
        named = [(name.removesuffix(":"), error) for name, error in self.failures]  # "direct:"
        words = "; ".join(f"{name}: {error.finding}: {error.detail}" for name, error in named)
        super().__init__(
            first.finding if first else "unknown",
            f"no way out reached {target}: {words or 'none is usable now'}",
            blame=first.blame if first else Blame.HOP,
            another_way=any(error.another_way for error in errors),
        )


class StreamLost(GotunnelError):
    """An open stream broke; what was read before is all there is."""


class ModuleError(GotunnelError):
    """The go command can't have a file of a module, and what it is told.

    `status` of the class is the exit status; `http_status` goes to the go command: 404 and 410 only if a
    source said so, 403 by a filter, 502 and 504 for the network, 500 for what is wrong here.  `subject` is
    the module (`PATH@VERSION`) or the file asked for, `source` and `upstream` the labels of who was asked,
    and how.
    """

    status = 69

    def __init__(
        self,
        finding: str,
        detail: str,
        *,
        http_status: int = 502,
        subject: str = "",
        source: str = "",
        upstream: str = "",
    ) -> None:
        super().__init__(detail)
        self.finding = finding
        self.detail = detail
        self.http_status = http_status
        self.subject = subject
        self.source = source
        self.upstream = upstream
