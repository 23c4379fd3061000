"""A working directory from somebody else: its go.mod, go.sum and go.work are read before CMD is even started."""

# ruff: noqa: E501
from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import need
from tests.lab import gotool
from tests.lab.proc import ROOT
from tests.security import GOTUNNEL, World

ESC = "\x1b]0;owned\x07\x1b[2J"
BAD = "\u202egnp.exe\u009b31m"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


class Ran:
    """A `gotunnel run` in a hostile directory; every byte that it said."""

    def __init__(self, directory: Path, world: World, *argv: str) -> None:
        need(gotool.can_run_go())
        self.before = len(world.asked)
        home = directory.parent / "home"
        home.mkdir(exist_ok=True)
        ran = subprocess.run(
            [*GOTUNNEL, "run", "--no-daemon", "--retries", "0", "--events", str(home / "events"),
             "--via", f"http://127.0.0.1:{world.port}", "--", *argv],
            cwd=directory, capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT), "GOPROXY": "http://mirror.example",
                 "GOSUMDB": "off", "GOTOOLCHAIN": "local", "GOENV": "off", "GOTELEMETRY": "off", "GOFLAGS": "-modcacherw"},
        )  # fmt: skip
        self.status, self.out, self.err = ran.returncode, ran.stdout, ran.stderr.decode()
        self.events = (home / "events").read_text() if (home / "events").exists() else ""
        self.targets = world.asked[self.before :]
        self.paths = [head.split(b" ")[1].decode() for head in world.heads]

    @property
    def ours(self) -> str:
        return "".join(line for line in self.err.splitlines(keepends=True) if line.startswith("gotunnel: "))


def obeys_nothing(text: str) -> None:
    """Each line could be shown on a terminal without it doing anything."""
    for line in text.split("\n"):
        assert line.isprintable(), line


MODS = {
    "escapes in a path": f'module p\n\ngo 1.21\n\nrequire "evil{ESC}.example/m" v1.0.0\n',
    "escapes in a version": f'module p\n\ngo 1.21\n\nrequire evil.example/m "v1.0.0{ESC}"\n',
    "letters that turn text round": f'module p\n\ngo 1.21\n\nrequire "{BAD}.example/m" v1.0.0\n',
    "escapes in a verb": f"module p\n\n{ESC} 1.21\n",
    "a path that climbs": "module p\n\ngo 1.21\n\nrequire ../../../etc/passwd v1.0.0\nrequire /etc/passwd v1.0.0\n",
    "a path with a query": "module p\n\ngo 1.21\n\nrequire evil.example/m?x=1 v1.0.0\nrequire evil.example/%2e%2e/m v1.0.0\n",
    "a path that is an address": "module p\n\ngo 1.21\n\nrequire 127.0.0.1:22/m v1.0.0\nrequire http://h/m v1.0.0\n",
    "a version that climbs": "module p\n\ngo 1.21\n\nrequire evil.example/m v1.0.0/../../../x\n",
    "a toolchain of another kind": f'module p\n\ngo 1.21\n\ntoolchain "go1.99.0-{ESC}/../../x"\n',
    "a go of another age": f"module p\n\ngo 99999999999999999999.{'9' * 5000}\n",
    "replaced by what is elsewhere": "module p\n\ngo 1.21\n\nrequire a.example/m v1.0.0\nreplace a.example/m => ../../../../etc\n",
    "no text": "\0\xff\xfe" * 3000,
    "a million lines": "module p\n\ngo 1.21\n" + "require a.example/m v1.0.0\n" * 50_000,
    "blocks in blocks": "module p\n" + "require (\n" * 20_000,
    "a line without an end": "module " + "x" * 2_000_000,
}  # fmt: skip


@pytest.mark.parametrize("kind", MODS)
def test_a_go_mod_draws_nothing_and_leads_nowhere(kind: str, tmp_path: Path, world: World) -> None:
    directory = tmp_path / "work"
    directory.mkdir()
    (directory / "go.mod").write_text(MODS[kind], encoding="utf-8", errors="surrogateescape")
    (directory / "p.go").write_text("package p\n")
    ran = Ran(directory, world, "go", "mod", "download")
    obeys_nothing(ran.ours)
    obeys_nothing(ran.events)
    assert "Traceback" not in ran.err
    assert set(ran.targets) <= {"mirror.example:80"}
    for path in ran.paths:
        assert ".." not in path
        assert "%2e" not in path.lower()
        assert "passwd" not in path
        assert path.isascii()
        assert path.isprintable()


FILES: dict[str, Callable[[Path], object]] = {
    "go.sum draws": lambda d: (d / "go.sum").write_text(f"a.example/m v1.0.0 h1:{ESC}{BAD}=\n{ESC}\n"),
    "go.sum is no text": lambda d: (d / "go.sum").write_bytes(b"\0\xff\xfe" * 1000),
    "go.sum is a directory": lambda d: (d / "go.sum").mkdir(),
    "go.sum is a secret of ours": lambda d: (d / "go.sum").symlink_to("/etc/shadow"),
    "go.work uses the root": lambda d: (d / "go.work").write_text(
        f'go 1.21\n\nuse /\nuse ../../../../etc\nuse "{ESC}"\n'
    ),
    "go.work is no text": lambda d: (d / "go.work").write_bytes(b"\0\xff" * 1000),
}


@pytest.mark.parametrize("kind", FILES)
def test_what_lies_beside_it_draws_nothing_and_is_not_shown(kind: str, tmp_path: Path, world: World) -> None:
    directory = tmp_path / "work"
    directory.mkdir()
    (directory / "go.mod").write_text("module p\n\ngo 1.21\n\nrequire a.example/m v1.0.0\n")
    FILES[kind](directory)
    ran = Ran(directory, world, "go", "mod", "download")
    obeys_nothing(ran.ours)
    obeys_nothing(ran.events)
    assert "Traceback" not in ran.err
    assert "root:" not in ran.ours
    assert set(ran.targets) <= {"mirror.example:80"}


def test_a_module_named_like_an_option_is_none(tmp_path: Path, world: World) -> None:
    """What stands in go.mod is never a word of a command line of ours."""
    directory = tmp_path / "work"
    directory.mkdir()
    (directory / "go.mod").write_text(
        "module -toolexec=/tmp/x\n\ngo 1.21\n\nrequire -modfile=/etc/passwd v1.0.0\n"
    )
    mark = tmp_path / "mark"
    (directory / "go").write_text(f"#!/bin/sh\ntouch {mark}\n")
    (directory / "go").chmod(0o755)
    ran = Ran(directory, world, "sh", "-c", "echo ran")
    assert (ran.status, ran.out) == (0, b"ran\n")
    assert not mark.exists()  # a `go` that lies in the directory isn't run in place of the real one


@pytest.mark.parametrize("private", ["none", "*"])
def test_what_doctor_prints_to_mend_it_can_be_pasted(tmp_path: Path, private: str) -> None:
    """Each line is run by a shell that finds one command only, the one that go.mod names."""
    need(gotool.can_run_go())
    project, tools = tmp_path / "project", tmp_path / "tools"
    for folder in (project, tools):
        folder.mkdir()
    (tools / "evil").write_text(f"#!/bin/sh\necho was here > {tmp_path}/evil-ran\n")
    (tools / "evil").chmod(0o755)
    words = (
        "b.example/$(evil)/m",
        "$(evil)/m",
        "`evil`.example/m",
        "c.example/m;evil",
        "d.example/m|evil;#",
        "e.example/m'$(evil)'",
    )
    lines = "".join(
        f'require "{word}" v1.0.0\nreplace "{word}" v1.1.0 => "../$(evil);evil"\n' for word in words
    )
    (project / "go.mod").write_text(f"module a.example/x\n\ngo 1.21\n\n{lines}")
    (project / "go.sum").write_text("a.example/m v1.0.0 h1:x=\na.example/m v1.0.0/go.mod h1:x=\n")
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "GOPROXY": "http://127.0.0.1:1",
           "GOPRIVATE": private, "GOTOOLCHAIN": "local"}  # fmt: skip
    ran = subprocess.run(
        [*GOTUNNEL, "doctor", "--json"], cwd=project, env=env, capture_output=True, timeout=60, check=False
    )
    found = json.loads(ran.stdout)["findings"]
    assert {"replace.local"} < {item["id"] for item in found}
    for line in (line for item in found for line in item["fix"]):
        subprocess.run(["/bin/bash", "-c", line], cwd=project, env={"PATH": str(tools), "HOME": str(tmp_path)},
                       capture_output=True, stdin=subprocess.DEVNULL, timeout=10, check=False)  # fmt: skip
        assert not (tmp_path / "evil-ran").exists(), line
