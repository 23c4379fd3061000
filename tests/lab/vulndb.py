"""A Go vulnerability database (https://go.dev/security/vuln/database), as files for an origin to serve."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

_WHEN = "2026-01-02T03:04:05Z"


def write(directory: Path, *, id: str, module: str, symbols: list[str], fixed: str) -> None:
    """A database below `directory` that knows one flaw: of `module`'s `symbols`, mended in `fixed` (no v)."""
    entry = {
        "schema_version": "1.3.1",
        "id": id,
        "modified": _WHEN,
        "published": _WHEN,
        "summary": "A flaw of the lab",
        "details": "Made up, for the lab.",
        "affected": [
            {
                "package": {"name": module, "ecosystem": "Go"},
                "ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": fixed}]}],
                "ecosystem_specific": {"imports": [{"path": module, "symbols": symbols}]},
            }
        ],
        "database_specific": {"url": f"https://pkg.go.dev/vuln/{id}"},
    }
    known = [{"id": id, "modified": _WHEN, "fixed": fixed}]
    files: dict[str, Any] = {
        "index/db.json": {"modified": _WHEN},
        "index/modules.json": [{"path": module, "vulns": known}],
        "index/vulns.json": [{"id": id, "modified": _WHEN, "aliases": []}],
        f"ID/{id}.json": entry,
    }
    for name, value in files.items():
        text = json.dumps(value).encode()
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
        path.with_suffix(".json.gz").write_bytes(gzip.compress(text))
