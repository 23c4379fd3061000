"""Several `serve` without state of their own over one real bucket, behind one address."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.conftest import need
from tests.examples import configuration
from tests.lab import proc
from tests.lab.corpus import Corpus
from tests.lab.gotool import can_run_go
from tests.lab.origin import Origin
from tests.lab.s3 import VersityGw

GOTUNNEL = [sys.executable, "-m", "gotunnel"]
PASSWORD = "correct horse/battery"  # not what a path or a URL likes

# passes connections on, to one replica and the other in turn
_FRONT = """
import asyncio, itertools, sys
port, *replicas = map(int, sys.argv[1:])
turn = itertools.cycle(replicas)
async def carry(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
async def answer(reader, writer):
    there, to = await asyncio.open_connection("127.0.0.1", next(turn))
    await asyncio.gather(carry(reader, to), carry(there, writer))
async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


class Replica:
    """One of them, as a container has it: a file system of its own, configuration and secrets alike."""

    def __init__(self, directory: Path, config: Path, env: Mapping[str, str]) -> None:
        self.directory = directory
        self.ports = {name: proc.free_port() for name in ("proxy", "modproxy", "admin")}
        for place in ("run", "tmp"):
            (directory / place).mkdir(mode=0o700, parents=True)
        self.env = {
            **env,
            "PATH": os.environ["PATH"],
            "GOTUNNEL_CONFIG": str(config),
            "STATE_DIRECTORY": str(directory / "run"),
            "RUNTIME_DIRECTORY": str(directory / "run"),
            "XDG_CACHE_HOME": str(directory / "tmp"),
            **{f"GOTUNNEL_LISTEN_{name.upper()}": f"0.0.0.0:{port}" for name, port in self.ports.items()},
        }
        self.process = self._start()

    def wait(self) -> None:
        self.process.wait_ready("a replica", lambda: "a way out works" in self.process.output(), 30.0)

    def start_anew(self) -> None:
        """As a container that died: nothing of its files is there."""
        self.process.stop()
        shutil.rmtree(self.directory / "run")
        (self.directory / "run").mkdir(mode=0o700)
        self.process = self._start()
        self.wait()

    def _start(self) -> proc.Process:
        argv = [*GOTUNNEL, "serve"]
        return proc.Process(argv, log=self.directory / "log", env=self.env, cwd=self.directory)

    @property
    def token(self) -> str:
        """What opens the admin endpoint."""
        return str(json.loads((self.directory / "run" / "server.json").read_text())["token"])

    def status(self, door: str, path: str, user: str, password: str = PASSWORD) -> int:
        """What a client with this name and password is answered."""
        url = f"http://127.0.0.1:{self.ports[door]}{path}"
        words = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "--noproxy", "*", "--max-time", "3"]
        said = proc.run(["curl", *words, "-u", f"{user}:{password}", url], check=False)
        return int(said.stdout)

    def gotunnel(self, *words: str) -> subprocess.CompletedProcess[str]:
        return proc.run([*GOTUNNEL, *words], env=self.env, check=False)

    def environment(self) -> dict[str, str]:
        """What `gotunnel env` says in its container, where neither HOME nor go is."""
        ran = self.gotunnel("env", "--shell", "json")
        assert ran.returncode == 0, ran.stderr
        found: dict[str, str] = json.loads(ran.stdout)
        return found


class Team:
    """Two replicas, a bucket, a source, and a front for the module proxy."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self.directory = directory
        self.corpus = Corpus(directory / "tree", count=6, levels=2)
        self.origin = stack.enter_context(Origin(directory / "origin", self.corpus.directory))
        bucket = stack.enter_context(VersityGw(directory / "s3"))
        (directory / "password").write_text(f"{PASSWORD}\n")
        text = configuration("kubernetes.yaml")
        for pattern, new in (
            ('via = ".*"', 'via = "direct:"'),
            ("/run/secrets/gotunnel/password", str(directory / "password")),
            ('url = "s3:.*"', f'url = "{bucket.store_url("team")}"'),
            ('format = "json"', 'format = "text"'),
        ):
            text, times = re.subn(pattern, new, text)
            assert times == 1, pattern
        config = directory / "config.toml"
        config.write_text(text)
        env = {**bucket.variables, "GOPROXY": self.origin.url, "GOSUMDB": "off", "GOTOOLCHAIN": "local"}
        self.replicas = [Replica(directory / name, config, env) for name in ("one", "two")]
        for replica in self.replicas:
            stack.callback(lambda replica: replica.process.stop(), replica)
            replica.wait()
        self.front = proc.free_port()
        behind = [str(replica.ports["modproxy"]) for replica in self.replicas]
        argv = [sys.executable, "-c", _FRONT, str(self.front), *behind]
        front = proc.Process(argv, log=directory / "front.log")
        stack.callback(front.stop)
        front.wait_ready("the front", lambda: "ready" in front.output())

    def download(self, goproxy: str, cache: str) -> subprocess.CompletedProcess[str]:
        """A client's `go mod download` into a module cache of its own."""
        project = self.directory / "project"
        if not project.exists():
            self.corpus.write_project(project)
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "GOPROXY": goproxy,
            "GOSUMDB": "off",
            "GOMODCACHE": str(self.directory / cache),
            "GOFLAGS": "-modcacherw",
            "GOTOOLCHAIN": "local",
            "GOENV": "off",
        }
        return proc.run(["go", "-C", str(project), "mod", "download"], env=env, check=False)


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    need(VersityGw.available(), can_run_go())
    with contextlib.ExitStack() as stack:
        yield Team(tmp_path, stack)


def test_what_one_has_fetched_another_serves_and_one_url_is_good_for_all(team: Team) -> None:
    found = [
        re.fullmatch(r"http://127\.0\.0\.1:\d+(/[\w-]{32})", r.environment()["GOPROXY"])
        for r in team.replicas
    ]
    path, *others = {match and match[1] for match in found}
    assert path, "replicas tell no GOPROXY"
    assert not others
    ran = team.download(f"http://127.0.0.1:{team.front}{path}", "first")  # from both, by turns
    assert ran.returncode == 0, ran.stderr
    assert len(team.origin.begun(r"\.zip$")) >= len(team.corpus.modules)

    team.origin.stop()
    for number, replica in enumerate(team.replicas):
        ran = team.download(f"http://127.0.0.1:{replica.ports['modproxy']}{path}", f"again-{number}")
        assert ran.returncode == 0, ran.stderr


def test_who_is_let_in_by_one_is_let_in_by_all(team: Team) -> None:
    listed = f"/{team.corpus.first[0].path}/@v/v1.0.0.info"
    for replica in team.replicas:
        assert replica.status("modproxy", listed, "team") == 200  # as behind a balancer's TLS
        assert replica.status("modproxy", listed, "other") == 401
        assert replica.status("modproxy", listed, "team", "wrong") == 401
        for page in ("/", "/api/status", "/events"):
            assert replica.status("admin", page, "team") == 200, page
            assert replica.status("admin", page, "other") == 401, page
            assert replica.status("admin", page, "team", "wrong") == 401, page
        assert replica.status("admin", "/metrics", "team") == 200
        # what a browser sends by itself opens nothing that acts
        assert replica.status("admin", "/api/environment", "team") == 401
    one, two = team.replicas
    assert one.token == two.token != PASSWORD

    before = two.environment()
    two.start_anew()
    assert (two.environment(), two.token) == (before, one.token)
    assert PASSWORD not in two.process.output()
    assert one.token not in two.process.output()


def test_run_uses_a_replica_that_is_named_by_user_and_password(team: Team) -> None:
    one, two = team.replicas
    password = urllib.parse.quote(PASSWORD, safe="")
    one.env["GOTUNNEL_SERVER"] = f"http://team:{password}@127.0.0.2:{two.ports['admin']}"
    assert one.gotunnel("status").returncode == 0
    ran = one.gotunnel("run", "--", "sh", "-c", 'echo "$GOPROXY"')
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}\n", ran.stdout), "the run's own door"
    where = (team.origin.address, str(team.origin.port))
    request = f"GET /{team.corpus.first[0].path}/@v/list HTTP/1.0\r\n\r\n"
    one.process.stop()
    ran = proc.run([*GOTUNNEL, "connect", *where], env=one.env, stdin=request, check=False)
    assert ran.stdout.endswith("v1.0.0\n"), ran.stderr
