"""What gotunnel keeps to itself when it runs, and when it crashes.

Rules:
- A process that holds keys, passwords and the secrets of runs leaves no core file, and another process of the
  same user can't attach to it or read its memory or environment (prctl(2) PR_SET_DUMPABLE).  Root still can:
  `sudo gdb` and `sudo py-spy` go on working.  It is not inherited: CMD, git and ssh are as debuggable as
  ever.  RLIMIT_CORE would have been inherited, and would have taken CMD's own core files.
- The trace of a bug is shown with every known secret masked, wherever it comes up: the main thread, another
  thread, a finaliser.
"""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def keep_memory_private() -> bool:
    """No core file and no peer's look into our memory, on Linux; says whether it is so."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        import ctypes
    except ImportError:
        return False
    return int(ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)) == 0


def mask_crashes() -> None:
    """From now on no trace that Python prints holds a secret that we know."""
    if key := os.environ.get("GOTUNNEL_SSH_KEY"):
        from gotunnel.observe.logs import register_secret

        register_secret(key)
    sys.excepthook = _show
    sys.unraisablehook = _unraisable
    import threading

    threading.excepthook = _in_thread


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    from gotunnel.observe.logs import mask

    if sys.stderr is not None:
        sys.stderr.write(mask("".join(traceback.format_exception(kind, error, trace))))


def _unraisable(about: sys.UnraisableHookArgs) -> None:
    if about.exc_value is not None:
        _show(about.exc_type, about.exc_value, about.exc_traceback)


def _in_thread(about: threading.ExceptHookArgs) -> None:
    if about.exc_value is not None:
        _show(about.exc_type, about.exc_value, about.exc_traceback)
