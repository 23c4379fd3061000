"""How many files this process may have open: a connection is at least two.

Rules:
- Our limit is raised to the hard one; CMD gets the one back that we were started with, since programs that
  use select(2), or close every possible descriptor, suffer from a large one.
"""

from __future__ import annotations

import contextlib
import sys

_MACOS_MOST = 10240  # OPEN_MAX: setrlimit(2) there takes no more, whatever the hard limit says
_before: int | None = None


def raise_limit() -> int:
    """Raise RLIMIT_NOFILE to its hard limit, as far as the system lets us; the limit that holds then."""
    global _before
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft
    for wanted in (hard, _MACOS_MOST) if sys.platform == "darwin" else (hard,):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            if _before is None:
                _before = soft
            break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def limit_before() -> int | None:
    """The soft limit before we raised it; None where we did not."""
    return _before
