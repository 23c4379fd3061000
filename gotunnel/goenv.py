"""What CMD is told (contract §5), and how go's own settings are read.

Rules:
- `compose` is pure: it gets what was read and gives the whole environment; nothing of the user's that go or
  git reads otherwise is changed.
- Upper and lower case are both set: go reads upper first, curl and git prefer lower.
- git's ssh goes through `gotunnel connect`; a user's own ssh command (GIT_SSH_COMMAND, core.sshCommand) is
  extended, not replaced.  A user's git `http.proxy` or `remote.*.proxy` would beat the environment, so it is
  overridden.
- go is asked with GOTOOLCHAIN=local: else `go env` itself may fetch a toolchain, past every way out.
- The secret is in the environment only, never in argv.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from gotunnel.dataclass import dataclass
from gotunnel.errors import UsageError

DEFAULT_GOPROXY = "https://proxy.golang.org,direct"
DEFAULT_GOSUMDB = "sum.golang.org"
_READ_TIMEOUT = 10.0  # seconds
_NAMES = (
    *("GOPROXY", "GOPRIVATE", "GONOPROXY", "GONOSUMDB", "GOENV", "GOSUMDB", "GOMODCACHE", "GOFLAGS"),
    *("GOAUTH", "GOMOD", "GOWORK", "GO111MODULE", "GOVERSION", "GOOS", "GOARCH"),
)
_LOOPBACK = "localhost,127.0.0.1,::1"
# assignments and an unquoted program, as a shell reads them
_PROGRAM = re.compile(r"\s*(?:[A-Za-z_]\w*=[^\s'\"\\]*\s+)*[^\s'\"\\]+(?=\s|$)")
# a -J, which ssh refuses beside a ProxyCommand
_JUMP = re.compile(r"""\s+-J\s*(?:'[^']*'|"[^"\\]*"|[^\s'"\\])+(?=\s|$)""")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


@dataclass(frozen=True, slots=True)
class Found:
    """What was read of the user's go and git settings."""

    goproxy: str = DEFAULT_GOPROXY
    goprivate: str = ""
    gonoproxy: str = ""  # "" where it only follows GOPRIVATE
    gonosumdb: str = ""
    gosumdb: str = DEFAULT_GOSUMDB
    no_proxy_globs: str = ""  # what GONOPROXY comes to, GOPRIVATE counted
    no_sumdb_globs: str = ""
    gomodcache: str = ""
    goflags: str = ""
    goauth: str = ""
    gomod: str = ""  # the go.mod in use, "" or /dev/null where there is none
    gowork: str = ""
    go111module: str = ""
    goversion: str = ""  # of the go at hand, "go1.26.8"
    platform: str = ""  # "linux-amd64"
    git_ssh: str = ""  # core.sshCommand
    git_proxies: tuple[str, ...] = ()  # names of the settings http.proxy, http.URL.proxy, remote.NAME.proxy


def read(environ: Mapping[str, str], *, cwd: str | None = None) -> Found:
    """Ask go and git; what isn't installed gives its defaults.  Blocks for some tens of milliseconds."""
    with Asking(environ, cwd=cwd) as asking:
        return asking.found()


class Asking:
    """go and git, asked side by side from the moment this is made; `close` ends them, answered or not."""

    def __init__(self, environ: Mapping[str, str], *, cwd: str | None = None) -> None:
        self._environ = dict(environ)
        self._go = _ask(["go", "env", "-json", *_NAMES], {**environ, "GOTOOLCHAIN": "local"}, cwd)
        pattern = r"^(core\.sshcommand|http\.(.*\.)?proxy|remote\..*\.proxy)$"
        self._git = _ask(["git", "config", "-z", "--get-regexp", pattern], environ, cwd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave no process behind."""
        for process in (self._go, self._git):
            if process is not None:
                process.kill()
                process.wait()
                if process.stdout is not None:
                    process.stdout.close()

    def found(self) -> Found:
        """What they say.  Blocks."""
        return _found(self._environ, _answer(self._go), _answer(self._git))


def _found(environ: Mapping[str, str], go: str, git: str) -> Found:
    try:
        values: dict[str, str] = json.loads(go) if go else {}
    except ValueError:
        values = {}
    values = {name: values.get(name) or environ.get(name, "") for name in _NAMES}
    own = {name for name in _NAMES if environ.get(name)} | _written(values["GOENV"])
    ssh = ""
    proxies: list[str] = []
    for item in git.split("\0"):
        name, _, value = item.partition("\n")
        if name == "core.sshcommand":
            ssh = value
        elif name:
            proxies.append(name)
    return Found(
        goproxy=values["GOPROXY"] or DEFAULT_GOPROXY,
        goprivate=values["GOPRIVATE"],
        # go prints GOPRIVATE's value where these are not set
        gonoproxy=values["GONOPROXY"] if "GONOPROXY" in own else "",
        gonosumdb=values["GONOSUMDB"] if "GONOSUMDB" in own else "",
        gosumdb=values["GOSUMDB"] or DEFAULT_GOSUMDB,
        no_proxy_globs=values["GONOPROXY"] or values["GOPRIVATE"],
        no_sumdb_globs=values["GONOSUMDB"] or values["GOPRIVATE"],
        gomodcache=values["GOMODCACHE"],
        goflags=values["GOFLAGS"],
        goauth=values["GOAUTH"],
        gomod=values["GOMOD"],
        gowork=values["GOWORK"],
        go111module=values["GO111MODULE"],
        goversion=values["GOVERSION"],
        platform="-".join(filter(None, (values["GOOS"], values["GOARCH"]))),
        git_ssh=ssh,
        git_proxies=tuple(dict.fromkeys(proxies)),
    )


def _written(goenv: str) -> set[str]:
    """The names that `go env -w` has set in go's own file."""
    try:
        lines = Path(goenv).read_text(encoding="utf-8", errors="replace").splitlines() if goenv else []
    except OSError:
        return set()
    return {line.partition("=")[0].strip() for line in lines}


def _ask(argv: list[str], environ: Mapping[str, str], cwd: str | None) -> subprocess.Popen[bytes] | None:
    program = shutil.which(argv[0], path=environ.get("PATH", os.defpath))
    if program is None:
        return None
    try:
        return subprocess.Popen(
            [program, *argv[1:]],
            env=dict(environ),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return None


def _answer(process: subprocess.Popen[bytes] | None) -> str:
    if process is None:
        return ""
    try:
        output, _ = process.communicate(timeout=_READ_TIMEOUT)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return ""
    return output.decode("utf-8", "replace") if process.returncode == 0 else ""


def mirror_url(text: str) -> str:
    """Check one `--mirror`.  Raises UsageError."""
    _, _, rest = text.partition("://")
    wrong = any(c in ",|?#" or c.isspace() or not c.isprintable() for c in text)
    if wrong or not rest.strip("/") or not text.startswith(("https://", "http://", "file:///")):
        raise UsageError(f"--mirror {text!r}: want the URL of a module proxy, such as https://goproxy.cn")
    return text.rstrip("/")


def with_mirrors(goproxy: str, mirrors: Sequence[str]) -> str:
    """The list with mirrors before it; `|` so that any error of a mirror falls through to the next source."""
    return "|".join([*mirrors, goproxy])


def without_network(goproxy: str) -> str:
    """What of a list needs no network: its file:// sources, and then `off`."""
    files = [e.strip() for e in re.split("[,|]", goproxy) if e.strip().startswith("file://")]
    return ",".join([*files, "off"])


def http_sources(goproxy: str) -> list[str]:
    """The sources of a GOPROXY list that speak http, in their order."""
    entries = (entry.strip() for entry in goproxy.replace("|", ",").split(","))
    return [entry for entry in entries if entry.startswith(("https://", "http://"))]


def first_source(goproxy: str) -> str:
    """The first of them, "" if there is none."""
    return next(iter(http_sources(goproxy)), "")


def own_command() -> list[str]:
    """How to call gotunnel again, by absolute path."""
    script = Path(sys.executable).parent / "gotunnel"
    if script.is_file():
        return [str(script)]
    return [sys.executable, "-m", "gotunnel"]


def git_proxy_command() -> str:
    """The one-word wrapper for GIT_PROXY_COMMAND, or "" where it isn't installed."""
    for folder in (str(Path(sys.executable).parent), sysconfig.get_path("scripts")):
        script = Path(folder) / "gotunnel-connect"
        if script.is_file() and " " not in str(script):
            return str(script)
    return ""


def compose(
    environ: Mapping[str, str],
    found: Found,
    *,
    proxy_url: str,
    run_id: str,
    goproxy: str = "",
    private: Sequence[str] = (),
    offline: bool = False,
    command: Sequence[str] = (),
    git_proxy: str = "",
) -> dict[str, str]:
    """The whole environment of CMD.

    `proxy_url` carries the secret, as does `goproxy` (the list that CMD gets, "": the user's own); `command`
    is how CMD's children call gotunnel; `private` are the patterns of [go] private.
    """
    env = {k: v for k, v in environ.items() if k != "REQUEST_METHOD"}
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        env[name] = env[name.lower()] = proxy_url
    env["NO_PROXY"] = env["no_proxy"] = _LOOPBACK
    env["GOTUNNEL_PROXY"] = proxy_url
    env["GOTUNNEL_RUN_ID"] = run_id
    if goproxy:
        env["GOPROXY"] = goproxy
    if offline:
        env["GONOPROXY"] = "none"  # private modules too come from the store
    if private:
        env["GOPRIVATE"] = _joined(found.goprivate, private)
        for name, value in (("GONOPROXY", found.gonoproxy), ("GONOSUMDB", found.gonosumdb)):
            if value and not (offline and name == "GONOPROXY"):
                env[name] = _joined(value, private)
    if command:
        ssh = git_ssh_command(environ, found, command)
        if ssh:
            env["GIT_SSH_COMMAND"] = ssh
    if git_proxy:
        env["GIT_PROXY_COMMAND"] = git_proxy
    _override_git_proxies(env, found.git_proxies, proxy_url)
    return env


def _joined(before: str, more: Sequence[str]) -> str:
    return ",".join(filter(None, [before, *more]))


def git_ssh_command(environ: Mapping[str, str], found: Found, command: Sequence[str]) -> str:
    """The user's ssh command for git with our ProxyCommand; "" where it is PuTTY's, which has no -o.

    A script that isn't named ssh is taken for a wrapper around it, as git takes it: left alone, it would
    connect past the ways out.  ControlPath=none: with ControlMaster=no alone a live master is used, and
    ProxyCommand skipped.
    """
    base = environ.get("GIT_SSH_COMMAND") or found.git_ssh or shlex.quote(environ.get("GIT_SSH") or "ssh")
    try:
        words = shlex.split(base)
    except ValueError:
        return ""
    while words and _ASSIGNMENT.match(words[0]):
        words.pop(0)
    if not words or Path(words[0]).name.lower().removesuffix(".exe") in ("plink", "tortoiseplink", "putty"):
        return ""
    call = " ".join(shlex.quote(word).replace("%", "%%") for word in command)
    proxy = shlex.quote(f"ProxyCommand={call} connect %h %p")
    options = f"-o BatchMode=yes -o ControlPath=none -o {proxy}"
    # ssh takes the first of two: before the user's own words a ProxyJump or ProxyCommand of theirs can't go
    # past us
    if Path(words[0]).name.removesuffix(".exe") == "ssh" and (plain := _PROGRAM.match(base)):
        return f"{plain[0]} {options}{_JUMP.sub('', base[plain.end() :])}"
    return f"{base} {options}"


def _override_git_proxies(env: dict[str, str], names: Sequence[str], proxy_url: str) -> None:
    if not names:
        return
    given = env.get("GIT_CONFIG_COUNT", "")
    count = int(given) if given.isascii() and given.isdigit() else 0
    for offset, name in enumerate(names):
        env[f"GIT_CONFIG_KEY_{count + offset}"] = name
        env[f"GIT_CONFIG_VALUE_{count + offset}"] = proxy_url
    env["GIT_CONFIG_COUNT"] = str(count + len(names))
