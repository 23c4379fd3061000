"""What stands in the demo's directory: project, certificate, keys, jump hosts, origin, go's environment.

Rules:
- Nothing of the user's settings for go, git, ssh or proxies comes through, and nothing of theirs is written:
  HOME, every cache and every temporary file are in the directory.
- GOSUMDB is off: go.sum is complete, and no checksum database could know these modules anyway.
- Where go trusts no SSL_CERT_FILE (macOS asks its keychain only) the origin speaks http, inside SSH still.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from gotunnel.dataclass import dataclass
from gotunnel.demo.corpus import Corpus, make_corpus
from gotunnel.demo.crew import Crew
from gotunnel.demo.gocmd import GoCommand
from gotunnel.demo.origin import Origin
from gotunnel.errors import GotunnelError

HOST = "modules.demo.invalid"  # .invalid: no resolver anywhere may know it (RFC 6761)
JUMPS = ("jump-1", "jump-2")
_START = 30.0  # seconds for a jump host; imports are slow on a cold and busy machine
_THEIRS = re.compile(
    r"(CGO_|GIT_|SSH_|SSL_CERT_|XDG_).*|GO[A-Z0-9_]*|NETRC|REQUEST_METHOD|TMPDIR|(\w+_)?proxy", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Jump:
    """A jump host that runs."""

    name: str
    port: int
    host_key: str
    process: Process


@dataclass(frozen=True, slots=True)
class Stage:
    """All that the acts need; `url` is the GOPROXY, `env` what a user of this project would have."""

    directory: Path
    project: Path
    url: str
    corpus: Corpus
    origin: Origin
    jumps: Mapping[str, Jump]
    env: Mapping[str, str]


def trusts_ssl_cert_file(platform: str = sys.platform) -> bool:
    """Does go take a CA from SSL_CERT_FILE?  crypto/x509: on Unix, except where the system verifies."""
    return platform not in ("darwin", "ios", "win32")


def go_environment(
    directory: Path, environ: Mapping[str, str], go: GoCommand, url: str, *, ca: Path | None
) -> dict[str, str]:
    """The environment of go and of `gotunnel run`; makes the directories that it names."""
    home = directory / "home"
    # GOTELEMETRY can't be set by the environment, and with it go leaves a process behind
    for config in (home / ".config", home / "Library" / "Application Support"):
        telemetry = config / "go" / "telemetry"
        telemetry.mkdir(parents=True)
        (telemetry / "mode").write_text("off\n")
    (directory / "tmp").mkdir()
    (directory / "gotunnel.toml").touch()
    env = {name: value for name, value in environ.items() if not _THEIRS.fullmatch(name)}
    env |= {
        "PATH": f"{go.program.parent}{os.pathsep}{environ.get('PATH', os.defpath)}",
        "HOME": str(home),
        "TMPDIR": str(directory / "tmp"),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "GOTUNNEL_CONFIG": str(directory / "gotunnel.toml"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GOENV": "off",
        "GOWORK": "off",
        "GOPATH": str(home / "go"),
        "GOMODCACHE": str(home / "go" / "pkg" / "mod"),
        "GOCACHE": str(home / "go-build"),
        "GOPROXY": url,
        "GOSUMDB": "off",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
        # without inlining the standard library compiles in two thirds of the time
        "GOFLAGS": "-modcacherw -gcflags=all=-l -ldflags=-s",
    }
    if ca is not None:
        env["SSL_CERT_FILE"] = str(ca)
    return env


@contextlib.asynccontextmanager
async def set_stage(
    crew: Crew, go: GoCommand, environ: Mapping[str, str], *, plain_http: bool
) -> AsyncIterator[Stage]:
    """Put all in place, the servers running.  Raises GotunnelError."""
    directory = crew.directory
    url, port = (f"http://{HOST}", 80) if plain_http else (f"https://{HOST}", 443)
    env = go_environment(directory, environ, go, url, ca=None if plain_http else directory / "ca.pem")
    public_key = _make_key(directory / "id_demo")
    starting = [_start_jump(crew, env, name, f"{HOST}:{port}", public_key) for name in JUMPS]
    processes = [await start for start in starting]
    # while those start up
    tls = None
    if not plain_http:
        from gotunnel.demo.certs import make_certificates

        tls = make_certificates(directory, HOST)
    corpus = make_corpus()
    corpus.write_project(directory / "hello")
    async with Origin(corpus.files, tls) as origin:
        for name in JUMPS:
            await origin.listen(_socket(directory, name), name)
        jumps = {name: await _ready(name, process) for name, process in zip(JUMPS, processes, strict=True)}
        _write_ssh_files(directory, jumps)
        yield Stage(directory, directory / "hello", url, corpus, origin, jumps, env)


def _socket(directory: Path, name: str) -> Path:
    return directory / f"{name}.sock"


def _make_key(path: Path) -> str:
    """Write a private key; gives the public one."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    key = Ed25519PrivateKey.generate()
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


async def _start_jump(crew: Crew, env: Mapping[str, str], name: str, target: str, public_key: str) -> Process:
    argv = [sys.executable, "-P", "-m", "gotunnel.demo.jump", target]
    argv += [str(_socket(crew.directory, name)), public_key]
    with (crew.directory / f"{name}.log").open("wb") as log:
        return await crew.start(argv, env=env, cwd=crew.directory, watched=True, errors=log.fileno())


async def _ready(name: str, process: Process) -> Jump:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_START):
            told = json.loads(await process.stdout.readline())
        return Jump(name, int(told["port"]), str(told["host_key"]), process)
    except (TimeoutError, ValueError, KeyError, TypeError):
        raise GotunnelError(
            f"demo: preparing failed: the jump host {name} did not start; "
            f"gotunnel demo --keep leaves {name}.log, which says why"
        ) from None


def _write_ssh_files(directory: Path, jumps: Mapping[str, Jump]) -> None:
    (directory / "known_hosts").write_text(
        "".join(f"[127.0.0.1]:{jump.port} {jump.host_key}\n" for jump in jumps.values())
    )
    (directory / "ssh_config").write_text(
        "".join(
            f"Host {jump.name}\n\tHostName 127.0.0.1\n\tPort {jump.port}\n\tUser demo\n"
            f'\tIdentityFile "{directory}/id_demo"\n\tIdentitiesOnly yes\n\tIdentityAgent none\n'
            f'\tUserKnownHostsFile "{directory}/known_hosts"\n'
            for jump in jumps.values()
        )
    )
