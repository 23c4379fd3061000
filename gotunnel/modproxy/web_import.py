"""Imports aiohttp's server quickly; it is half of what the first answer costs this machine.

Rules:
- aiohttp makes a TLS context for its client as it is imported, and reads all that this machine trusts into
  it: 15 to 40 ms, a sixth.  We have only its server.  So in this thread, meanwhile, it gets a context that
  checks and trusts nobody: a client of it would fail closed.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator
from typing import Any

_turn = threading.Lock()


def import_web() -> Any:
    """`aiohttp.web`."""
    with _turn, _no_certificates():
        from aiohttp import web
    return web


@contextlib.contextmanager
def _no_certificates() -> Iterator[None]:
    original, here = ssl.create_default_context, threading.get_ident()

    def make(*args: Any, **options: Any) -> ssl.SSLContext:
        if threading.get_ident() != here:
            return original(*args, **options)
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    ssl.create_default_context = make
    try:
        yield
    finally:
        ssl.create_default_context = original
