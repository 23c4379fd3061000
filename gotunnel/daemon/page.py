"""The status page: files that lie beside this one, and the headers that keep the page to itself.

Rules:
- No file asks for anything of another host; scripts and styles come from here only (CSP), and nothing is
  written into the page but as text.
- Nothing is kept by a browser or anything between.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType

from gotunnel.dataclass import dataclass

FILES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "/": ("index.html", "text/html; charset=utf-8"),
        "/app.js": ("app.js", "text/javascript; charset=utf-8"),
        "/style.css": ("style.css", "text/css; charset=utf-8"),
        "/icon.svg": ("icon.svg", "image/svg+xml"),
    }
)
"""(file, content type) by path."""

HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": (
            "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
            "object-src 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-store",
        "Server": "gotunnel",
    }
)
"""Sent with every answer."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of the page."""

    content_type: str
    body: bytes


def load() -> dict[str, File]:
    """The files by path, read once.  Raises OSError where they weren't installed."""
    place = resources.files(__package__) / "static"
    return {path: File(kind, (place / name).read_bytes()) for path, (name, kind) in FILES.items()}
