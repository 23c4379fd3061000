"""The network of the faults: a client, all that it sees of the world, and its company's way stations.

    client 10.78.0.1 ---- 10.78.0.2 world: every address of PLACES, and of STRANGE
           10.77.0.1 ---- 10.77.0.2 hops: jump host, proxies; its own link to the world, honest names
           10.99.0.1 ---- 10.99.0.2 world, over a line of 100 ms (`slowly`)

Rules:
- Names as they are in the real world (proxy.golang.org), trusted by a CA of the lab's own, so that doctor
  treats them as public; the public resolvers over HTTPS are the world's as well, and honest.
- Nothing is restarted between cases: a case changes names, filters and files, and takes that back.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from tests.faults import cast
from tests.faults.case import Scene
from tests.faults.places import (
    BLOCK_PAGE,
    BOGON,
    COMPANY,
    DOH,
    GITLIB,
    HONEST,
    HOPS,
    LIAR,
    LIB,
    LOGINLIB,
    OTHER,
    PASSWORD,
    PLACES,
    PRIVATE,
    SSHLIB,
    STRANGE,
    USER,
    VERSION,
)
from tests.lab import gotool, keys, netns, proc, wan
from tests.lab.corpus import Corpus, h1
from tests.lab.gitserver import GitServer, make_repository
from tests.lab.netns import Filter, Namespace
from tests.lab.origin import Origin
from tests.lab.pki import Authority
from tests.lab.proxies import HttpProxy, SocksProxy
from tests.lab.sshd import Sshd
from tests.lab.sumdb import SumDatabase

S = TypeVar("S", bound=proc.Service)


class Strange(proc.PythonService):
    """The servers of strange.py in one namespace."""

    def __init__(self, directory: Path, place: Namespace, servers: list[dict[str, Any]]) -> None:
        super().__init__(directory, place=place, address="127.0.0.1", port=1)
        self._config = directory / "config.json"
        self._config.write_text(json.dumps(servers))

    def _argv(self) -> list[str]:
        return [sys.executable, "-m", "tests.faults.strange", str(self._config)]


def can_be() -> list[tuple[bool, str]]:
    """What the world needs of this machine."""
    from tests.lab import gitserver, sshd

    return [
        netns.can_make_namespaces(), gotool.can_run_go(), gitserver.can_serve_git(), sshd.can_run_sshd(),
        HttpProxy.available(), SocksProxy.available(), wan.can_make_wan(),
    ]  # fmt: skip


class World:
    """All of it, made by `with`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._stack = contextlib.ExitStack()
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        try:
            self._spaces()
            self._pki()
            self._services()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # --- making it ----------------------------------------------------------------------------------

    def _spaces(self) -> None:
        enter = self._stack.enter_context
        self.client, self.world, self.hops = (enter(Namespace(n)) for n in ("client", "world", "hops"))
        for address in (*PLACES.values(), LIAR, HONEST, *DOH.values(), *STRANGE.values(),
                        BLOCK_PAGE, PRIVATE, BOGON, OTHER):  # fmt: skip
            self.world.ip("address", "add", f"{address}/32", "dev", "lo")
        self.link = netns.link(self.client, self.world, "10.78.0.1/24", "10.78.0.2/24")
        netns.link(self.client, self.hops, "10.77.0.1/24", f"{HOPS}/24")
        netns.link(self.hops, self.world, "10.79.0.1/24", "10.79.0.2/24")
        self.client.add_route("default", "via", "10.78.0.2")
        self.hops.add_route("default", "via", "10.79.0.2")
        # the kernel must not join packets: net.mtu counts their bytes
        self.world.ip("link", "set", "dev", self.link.device_b, "gso_max_segs", "1")
        # a closed port of UDP is told of each time
        self.world.run(["sysctl", "-qw", "net.ipv4.icmp_ratelimit=0"])
        self.client.use_resolver(LIAR)
        for space in (self.hops, self.world):
            space.use_resolver(HONEST)

    def _pki(self) -> None:
        self.authority = Authority(self.directory / "pki", "Lab Root")
        self.other_authority = Authority(self.directory / "other-pki", "Corp Inspection CA")
        self.ca = self.authority.cert

    def _services(self) -> None:
        where, issue = self.directory, self.authority.issue
        self.corpus = Corpus(where / "goproxy", count=3, levels=1, filler=20000, prefix="golang.org/x")
        tree = self.corpus.directory
        (where / "sumdb").mkdir()
        (where / "sumdb" / "latest").write_text("go.sum database tree\n1\nAAAA\n\n— sum.golang.org AAAA\n")

        def origin(name: str, root: Path) -> Origin:
            return self._start(Origin(where / name, root, certificate=issue(name), name=name,
                                      place=self.world, address=PLACES[name], port=443))  # fmt: skip

        self.source, self.mirror = origin("proxy.golang.org", tree), origin("goproxy.cn", tree)
        origin("sum.golang.org", where / "sumdb")
        self.sumdb = self._start(
            SumDatabase(where / "sumdb-server", self.corpus.go_sum(), padding=0, host="sum.lab.example",
                        certificate=issue("sum.lab.example"), place=self.world,
                        address=PLACES["sum.lab.example"], port=443)
        )  # fmt: skip
        self.key = keys.new_key(where / "keys" / "id_ed25519")
        self.stranger = keys.new_key(where / "keys" / "stranger")
        self.restricted = {
            words: keys.new_key(where / "keys" / words.partition("=")[0])
            for words in ("no-port-forwarding", 'permitopen="10.9.9.9:1"')
        }
        self._git_servers(issue("git.corp.example"))
        self._hops()
        self._strange()

    def _git_servers(self, certificate: Any) -> None:
        where = self.directory
        root = where / "git"
        self.sums = {LIB: self._repository(root / "team" / "lib.git", LIB)}
        self.sums[GITLIB] = self._repository(root / "team" / "gitlib.git", GITLIB)
        self.sums[LOGINLIB] = self._repository(root / "team" / "secret.git", LOGINLIB)
        self.sshlib = root / "team" / "sshlib.git"
        self.sums[SSHLIB] = self._repository(self.sshlib, SSHLIB)
        imports = {
            LIB: f"https://{LIB}.git",
            GITLIB: f"git://{GITLIB}.git",
            LOGINLIB: "https://code.corp.example:8443/team/secret.git",
        }
        self.git = self._start(
            GitServer(where / "git-https", root, certificate, imports=imports, name="git.corp.example",
                      place=self.world, address=PLACES["git.corp.example"], port=443)
        )  # fmt: skip
        self.git_sshd: Sshd
        for port in (22, 443):
            sshd = Sshd(where / f"git-sshd-{port}", place=self.world, address=PLACES["code.corp.example"],
                        port=port, authorized=[self.key])  # fmt: skip
            if port == 443:
                sshd.host_key = self.git_sshd.host_key
            self.git_sshd = self._start(sshd)
        place = PLACES["git.corp.example"]
        daemon = self.world.popen(
            ["git", "daemon", f"--base-path={root}", "--export-all", "--reuseaddr", f"--listen={place}"],
            env={"PATH": "/usr/bin:/bin", "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory",
                 "GIT_CONFIG_VALUE_0": "*", "HOME": str(root)},
        )  # fmt: skip
        self._stack.callback(daemon.wait)
        self._stack.callback(proc.kill_tree, daemon.pid)

    def _repository(self, bare: Path, module: str) -> str:
        """Make it; its lines of go.sum."""
        make_repository(bare, module, (VERSION,))
        mod = f"module {module}\n\ngo 1.21\n".encode()
        lib = f'package lib\n\n// Version of this module.\nconst Version = "{VERSION}"\n'.encode()
        files = {f"{module}@{VERSION}/go.mod": mod, f"{module}@{VERSION}/lib.go": lib}
        return f"{module} {VERSION} {h1(files)}\n{module} {VERSION}/go.mod {h1({'go.mod': mod})}\n"

    def _hops(self) -> None:
        where = self.directory
        at: dict[str, Any] = {"place": self.hops, "address": HOPS}
        login: dict[str, Any] = {"user": USER, "password": PASSWORD}
        self.jump = Sshd(where / "jump", port=22, **at)
        self.admit()
        self._start(self.jump)
        self._start(HttpProxy(where / "http", port=8888, **at))
        self._start(HttpProxy(where / "http-login", port=8889, **at, **login))
        self._start(SocksProxy(where / "socks", port=1080, **at))
        self._start(SocksProxy(where / "socks-login", port=1081, **at, **login))

    def _strange(self) -> None:
        where = self.directory
        self._table, self._honest = where / "names.json", where / "honest.json"
        self._honest.write_text(json.dumps(self._names() | {COMPANY[1]: [OTHER]}))
        self._questions = where / "asked-in-public"
        self._questions.touch()
        self.truth()
        of_world = cast.of_world(
            self.authority, self.other_authority, root=self.corpus.directory,
            table=self._table, honest=self._honest, questions=self._questions,
        )  # fmt: skip
        self._start(Strange(where / "strange", self.world, of_world))
        self._start(Strange(where / "strange-hops", self.hops, cast.of_hops()))

    def _start(self, service: S) -> S:
        self._stack.callback(service.stop)
        service.start()
        return service

    # --- using it -----------------------------------------------------------------------------------

    def _names(self) -> dict[str, list[str] | str]:
        known: dict[str, list[str] | str] = {name: [address] for name, address in PLACES.items()}
        return known | {"jump.corp.example": [HOPS], "proxy.corp.example": [HOPS]}

    def admit(self, *, restricted: bool = True) -> None:
        """The jump host admits the users' keys, those of `restricted` with their restrictions, or without."""
        self.jump.forget_keys()
        self.jump.authorize(self.key)
        for words, key in self.restricted.items():
            self.jump.authorize(key, words if restricted else "")

    def truth(self) -> None:
        """The client's resolver is honest."""
        self.lie({})

    def lie(self, changes: Mapping[str, list[str] | str]) -> None:
        """The client's resolver says this of some names, and the truth of all others."""
        new = self._table.with_suffix(".new")
        new.write_text(json.dumps(self._names() | dict(changes)))
        new.replace(self._table)

    def asked_in_public(self) -> set[str]:
        """The names that the public resolvers were asked for, by whomever, so far."""
        return set(self._questions.read_text().split())

    def slowly(self) -> contextlib.AbstractContextManager[None]:
        """The client's way to the world is a line of 100 ms there and back."""
        return self._slowly()

    @contextlib.contextmanager
    def _slowly(self) -> Iterator[None]:
        line = wan.WanLink(self.client, self.world, wan.Line(delay=50), self.directory)
        self.client.ip("route", "replace", "default", "via", line.address_b)
        try:
            yield
        finally:
            self.client.ip("route", "replace", "default", "via", "10.78.0.2")
            line.close()

    def black_hole(self, address: str = "", port: int = 0, proto: str = "tcp") -> Filter:
        """The client's own network swallows what goes to an address and port (none: everything)."""
        words = f"ip daddr {address} {proto} dport {port}" if address else ""
        words = f'iifname "{self.link.device_b}" {words} drop'
        return Filter(self.world, f"chain in {{ type filter hook input priority 0; {words}; }}")

    def refuse(self, address: str, port: int) -> Filter:
        """A firewall of the client's network answers for an address and port with resets."""
        words = f"ip daddr {address} tcp dport {port} reject with tcp reset"
        return Filter(self.client, f"chain out {{ type filter hook output priority 0; {words}; }}")

    @contextlib.contextmanager
    def scene(self, *, private: bool = False, sums: bool = True) -> Iterator[Scene]:
        """A new user with a healthy set-up; what the case breaks is mended at the end."""
        home = Path(tempfile.mkdtemp(prefix=f"{next(self._numbers)}-", dir=self._homes()))
        env = self.environment(home)
        project = self.corpus.write_project(home / "project", sums=sums)
        with contextlib.ExitStack() as undo:
            undo.callback(self.truth)
            undo.callback(self.source.behave)
            scene = Scene(self, env, home, project, undo)
            if private:
                scene.goenv("GOPRIVATE=*.corp.example")
                need(scene, LIB)
            yield scene

    def _homes(self) -> Path:
        directory = self.directory / "homes"
        directory.mkdir(exist_ok=True)
        return directory

    def environment(self, home: Path) -> dict[str, str]:
        """The whole environment of a user whose home is `home`, and the files that he has there."""
        ssh, programs, telemetry = home / ".ssh", home / "bin", home / ".config" / "go" / "telemetry"
        for directory in (ssh, programs, telemetry):
            directory.mkdir(parents=True)
        (telemetry / "mode").write_text("off\n")
        self.take_key(ssh, self.key)
        known = ssh / "known_hosts"
        self.jump.write_known_hosts(known, "jump.corp.example")
        self.git_sshd.write_known_hosts(known, "code.corp.example")
        line = self.git_sshd.known_hosts_line().split(maxsplit=1)[1]
        with known.open("a") as file:
            file.write(f"code.corp.example,{PLACES['code.corp.example']} {line}")
        (home / "passwd").write_text(f"root:x:0:0:root:{home}:/bin/bash\n")
        program = programs / "gotunnel"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m gotunnel "$@"\n')
        program.chmod(0o755)
        go = gotool.find_go()
        return {
            "PATH": f"{programs}:{Path(go or '').parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(proc.ROOT),
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "GOPATH": str(home / "go"),
            "GOCACHE": str(gotool.build_cache()),
            "GOFLAGS": "-modcacherw",
            "GOTOOLCHAIN": "local",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=5",
            "SSL_CERT_FILE": str(self.ca),
            "GIT_SSL_CAINFO": str(self.ca),
        }

    def take_key(self, ssh: Path, key: keys.Key) -> None:
        """Make a key the user's own."""
        target = ssh / "id_ed25519"
        shutil.copy(key.private, target)
        target.chmod(0o600)
        (ssh / "id_ed25519.pub").write_text(key.public + "\n")

    def fill(self, scene: Scene, line: str, command: str) -> str:
        """A line of a fix with its placeholders filled in, as the user would."""
        secret = scene.home / "secret"
        secret.write_text(PASSWORD + "\n")
        words = {
            "USER@JUMPHOST": f"root@{HOPS}",
            "via OTHER": "via http://10.77.0.2:8888",
            "go …": command,
            "://USER@": f"://{USER}@",
            "password_file=FILE": f"password_file={secret}",
            "CA.pem": str(scene.home / "CA.pem"),
            "PATH/TO/KEY": str(self.key.private),
        }
        for word, meant in words.items():
            line = line.replace(word, meant)
        return line


def need(scene: Scene, module: str) -> None:
    """The project needs a module of the company's."""
    scene.gomod(f"-require={module}@{VERSION}")
    with (scene.project / "go.sum").open("a") as sums:
        sums.write(scene.world.sums[module])


def git_by_ssh(scene: Scene) -> None:
    """git takes code.corp.example over SSH."""
    base = scene.world.sshlib.parent.parent
    rule = f"url.ssh://root@code.corp.example{base}/.insteadOf"
    scene.sh(f"git config --global {rule} https://code.corp.example/")


@contextlib.contextmanager
def temporary() -> Iterator[World]:
    """A world in a temporary directory, for use outside of pytest."""
    directory = Path(tempfile.mkdtemp(prefix="gt-faults-"))
    try:
        with World(directory) as made:
            yield made
    finally:
        shutil.rmtree(directory, ignore_errors=True)
