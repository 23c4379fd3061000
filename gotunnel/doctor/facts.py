"""What is known of this machine and project before anything is asked of the network.

Rules:
- The go environment is what go itself says, with where each value comes from; without a go command, or where
  it refuses to start, it is read as go reads it: environment, the file of `go env -w`, default.
- go is asked with GOTOOLCHAIN=local: else `go env` may fetch a toolchain.  The user's own GOTOOLCHAIN is read
  from the environment and the files.
- Programs run side by side, each bounded; what fails is a fact, never an error.
- Of netrc only the hosts are kept, of the SSH configuration only whether there is one.

Sources: `go help environment`, cmd/go/internal/cfg/cfg.go (EnvOrAndChanged), git-config(1).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field
from pathlib import Path
from typing import Literal

from gotunnel.address import HostPort, one_line
from gotunnel.dataclass import dataclass
from gotunnel.doctor.project import Contradiction, Space, cached, contradictions, read_project, spaces
from gotunnel.modproxy.filter import matches
from gotunnel.modproxy.gosum import GoSum
from gotunnel.modproxy.modfile import ModFile, Version
from gotunnel.pattern import Pattern, no_proxy_patterns

Origin = Literal["env", "file", "default"]

ASK_LIMIT = 5.0  # seconds for one question to go or git
PROXY_NAMES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
_DEFAULTS = {
    "GOPROXY": "https://proxy.golang.org,direct",
    "GOSUMDB": "sum.golang.org",
    "GOTOOLCHAIN": "auto",
    "GOAUTH": "netrc",
}
_GIT = r"^(core\.sshcommand|http\.(.*\.)?proxy|remote\..*\.proxy|url\..*\.insteadof)$"


@dataclass(frozen=True, slots=True)
class Setting:
    """One variable of the go environment; `origin`: the shell, the file of `go env -w`, or go's default."""

    value: str
    origin: Origin = "default"


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it.  `go` and `git` are paths, "" where there is none; `goversion` such as "go1.26.8"."""

    go: str = ""
    goversion: str = ""
    platform: str = ""  # "linux-amd64"
    go_error: str = ""  # what `go env` said where it refused
    env: Mapping[str, Setting] = field(default_factory=dict)
    goenv_file: str = ""
    proxies: Mapping[str, str] = field(
        default_factory=dict, repr=False
    )  # both cases, as set; may hold secrets
    own_proxy: str = field(default="", repr=False)  # GOTUNNEL_PROXY: our own endpoint
    git: str = ""
    git_proxies: tuple[tuple[str, str], ...] = ()
    instead_of: tuple[tuple[str, str], ...] = ()  # (what is written in its place, the prefix)
    netrc_hosts: frozenset[str] = frozenset()
    ssh_config: bool = False
    directory: str = ""
    gomod: str = ""  # its path, "" where there is none
    mod: ModFile | None = None
    gowork: str = ""
    work: ModFile | None = None
    standins: frozenset[Version] = frozenset()  # those of `gotunnel replace` in go.work
    members: tuple[tuple[str, ModFile], ...] = ()  # (directory, go.mod) of a workspace's modules
    mod_errors: tuple[tuple[str, str], ...] = ()  # (file, what is wrong)
    vendored: bool = False
    repository: str = ""  # the top of the git work tree that the project is in
    sums: GoSum = field(default_factory=GoSum)
    contradictions: tuple[Contradiction, ...] = ()
    cached: frozenset[tuple[str, str]] = frozenset()  # required (module, version) whose zip is in the cache
    spaces: tuple[Space, ...] = ()
    now: float = 0.0  # POSIX seconds

    def value(self, name: str) -> str:
        """The variable `name` of the go environment, go's default where nothing is known."""
        setting = self.env.get(name)
        return setting.value if setting and setting.value else _DEFAULTS.get(name, "")

    def origin(self, name: str) -> Origin:
        """Where `name` comes from."""
        setting = self.env.get(name)
        return setting.origin if setting else "default"

    def proxy_variable(self, *, tls: bool) -> tuple[str, str]:
        """(name, value) of the proxy variable that go reads for https or http, ("", "") for none."""
        base = "HTTPS_PROXY" if tls else "HTTP_PROXY"
        name = base if self.proxies.get(base) else base.lower()
        return (name, self.proxies[name]) if self.proxies.get(name) else ("", "")

    def proxy_for(self, host: str, port: int, *, tls: bool) -> str:
        """The proxy that go goes by to `host`, "" where it goes directly (x/net/http/httpproxy)."""
        _, value = self.proxy_variable(tls=tls)
        if not value or HostPort(host, port).is_loopback:
            return ""
        excepted = no_proxy_patterns(self.proxies.get("NO_PROXY") or self.proxies.get("no_proxy") or "")
        if any(Pattern.parse(pattern).matches(host, port) for pattern in excepted):
            return ""
        return value

    @property
    def mains(self) -> tuple[ModFile, ...]:
        """The main modules: the workspace's members, or the one go.mod."""
        return tuple(mod for _, mod in self.members) or ((self.mod,) if self.mod else ())

    @property
    def no_proxy_globs(self) -> str:
        """What goes past GOPROXY: GONOPROXY, else GOPRIVATE."""
        globs = self.value("GONOPROXY") if self.origin("GONOPROXY") != "default" else self.value("GOPRIVATE")
        return "" if globs == "none" else globs

    @property
    def no_sumdb_globs(self) -> str:
        """What is not looked up in the checksum database: GONOSUMDB, else GOPRIVATE."""
        globs = self.value("GONOSUMDB") if self.origin("GONOSUMDB") != "default" else self.value("GOPRIVATE")
        return "" if globs == "none" else globs

    def is_private(self, module: str) -> bool:
        """Is `module` fetched past GOPROXY?"""
        return matches(self.no_proxy_globs, module)

    def requirements(self) -> tuple[tuple[str, str], ...]:
        """(module, version) that have to come from the network, replacements applied, direct ones first."""
        replaced = {r.old: r for mod in (*self.mains, self.work) if mod for r in mod.replace}
        own = {mod.module for mod in self.mains}
        wanted = sorted((r for mod in self.mains for r in mod.require), key=lambda r: r.indirect)
        found = []
        for require in wanted:
            if require.path in own:
                continue
            exact = replaced.get(Version(require.path, require.version))
            replacement = exact or replaced.get(Version(require.path))
            if replacement:
                if replacement.is_local:
                    continue
                found.append((replacement.new.path, replacement.new.version))
            else:
                found.append((require.path, require.version))
        return tuple(dict.fromkeys(found))


def gather(environ: Mapping[str, str], cwd: str) -> Facts:
    """Everything, in at most about ASK_LIMIT seconds.  Blocks: call it in a thread."""
    go = shutil.which("go", path=environ.get("PATH", os.defpath)) or ""
    git = shutil.which("git", path=environ.get("PATH", os.defpath)) or ""
    with ThreadPoolExecutor(3) as pool:
        asked = pool.submit(_ask, [go, "env", "-json"], {**environ, "GOTOOLCHAIN": "local"}, cwd)
        config = pool.submit(_ask, [git, "config", "-z", "--get-regexp", _GIT], environ, cwd)
        parsed = pool.submit(_ask, [go, "mod", "edit", "-json"], {**environ, "GOTOOLCHAIN": "local"}, cwd)
        (answer, go_error), (git_answer, _) = asked.result(), config.result()
        _, refused = parsed.result()
    try:
        told: dict[str, str] = json.loads(answer) if answer else {}
    except ValueError:
        told = {}
    env, goenv_file = _environment(told, environ)
    git_proxies, instead_of = _git_settings(git_answer)
    home = environ.get("HOME", "")
    plain = {name: setting.value for name, setting in env.items()}
    project = read_project(plain, cwd)
    return Facts(
        go=go,
        goversion=told.get("GOVERSION", ""),
        platform="-".join(filter(None, (told.get("GOOS", ""), told.get("GOARCH", "")))),
        go_error="" if told else go_error,
        env=env,
        goenv_file=goenv_file,
        proxies={n: environ[n] for name in PROXY_NAMES for n in (name, name.lower()) if environ.get(n)},
        own_proxy=environ.get("GOTUNNEL_PROXY", ""),
        git=git,
        git_proxies=git_proxies,
        instead_of=instead_of,
        netrc_hosts=_netrc_hosts(environ),
        ssh_config=bool(home) and os.path.exists(os.path.join(home, ".ssh", "config")),
        directory=cwd,
        gomod=project.gomod,
        mod=project.mod,
        gowork=project.gowork,
        work=project.work,
        standins=project.standins,
        members=tuple(project.members),
        mod_errors=tuple(project.errors) or _as_go_reads(project.gomod, refused),
        vendored=project.vendored,
        repository=project.repository,
        sums=project.sums,
        cached=cached(project, plain.get("GOMODCACHE", "")),
        contradictions=contradictions(project.sums, plain.get("GOMODCACHE", "")),
        spaces=spaces(plain, environ, project),
        now=time.time(),
    )


def _as_go_reads(gomod: str, refused: str) -> tuple[tuple[str, str], ...]:
    """What go itself finds wrong with a go.mod that our parser, which is more patient, has read."""
    _, marked, words = refused.partition("errors parsing ")
    words = words.partition(":")[2]
    return ((gomod, one_line(words)),) if gomod and marked else ()


def _ask(argv: list[str], environ: Mapping[str, str], cwd: str) -> tuple[str, str]:
    """(standard output, what went wrong)."""
    if not argv[0]:
        return "", "not found"
    try:
        done = subprocess.run(
            argv,
            env=dict(environ),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ASK_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "", f"no answer in {ASK_LIMIT:.0f} s"
    except OSError as error:
        return "", error.strerror or str(error)
    if done.returncode:
        return "", one_line(done.stderr.decode("utf-8", "replace")) or f"status {done.returncode}"
    return done.stdout.decode("utf-8", "replace"), ""


def _environment(told: Mapping[str, str], environ: Mapping[str, str]) -> tuple[dict[str, Setting], str]:
    """Each variable with its origin; an empty one of the shell is not set, as with go."""
    file = told.get("GOENV") or environ.get("GOENV") or _default_goenv(environ)
    written = {} if file == "off" else _assignments(file)
    built_in = _assignments(os.path.join(told.get("GOROOT", ""), "go.env")) if told.get("GOROOT") else {}
    names = {*told, *written, *(n for n in environ if n.startswith("GO") and not n.startswith("GOTUNNEL"))}
    env = {}
    for name in names | set(_DEFAULTS):
        if environ.get(name):
            env[name] = Setting(environ[name], "env")
        elif written.get(name):
            env[name] = Setting(written[name], "file")
        else:
            value = told.get(name, "") if name != "GOTOOLCHAIN" else ""
            env[name] = Setting(value or built_in.get(name, "") or _DEFAULTS.get(name, ""))
    return env, file


def _default_goenv(environ: Mapping[str, str]) -> str:
    base = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", ""), ".config")
    return os.path.join(base, "go", "env")


def _assignments(path: str) -> dict[str, str]:
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, ValueError):
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line and not line.lstrip().startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def _git_settings(answer: str) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    proxies, instead = [], []
    for item in answer.split("\0"):
        name, _, value = item.partition("\n")
        if name.startswith("url."):
            instead.append((name.removeprefix("url.").removesuffix(".insteadof"), value))
        elif name.endswith("proxy"):
            proxies.append((name, value))
    return tuple(proxies), tuple(instead)


def _netrc_hosts(environ: Mapping[str, str]) -> frozenset[str]:
    path = environ.get("NETRC") or os.path.join(environ.get("HOME", ""), ".netrc")
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    return frozenset(re.findall(r"(?:^|\s)machine\s+(\S+)", text))
