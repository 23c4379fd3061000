"""Real modules from a real source, through a local sshd: what the tool is for.

Marked `internet`: where `go env GOPROXY` reaches no source it is skipped and says so.
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import need
from tests.gotunnel_in_lab import GOTUNNEL
from tests.lab import gotool
from tests.lab.keys import Key
from tests.lab.sshd import Sshd

# a web framework, a cloud SDK, a database driver; with what they need 31 modules are compiled
PROGRAM = """package main

import (
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/gin-gonic/gin"
	"github.com/jackc/pgx/v5"
)

func main() {
	fmt.Println(gin.Version != "", aws.String("x") != nil, config.WithRegion, pgx.ErrNoRows)
}
"""
REQUIRES = """module example.com/real

go 1.24

require (
	github.com/aws/aws-sdk-go-v2 v1.36.3
	github.com/aws/aws-sdk-go-v2/config v1.29.14
	github.com/gin-gonic/gin v1.10.0
	github.com/jackc/pgx/v5 v5.7.4
)
"""


def source() -> str | None:
    """The first GOPROXY source that answers from here, or None."""
    go = gotool.find_go()
    if go is None:
        return None
    told = subprocess.run([go, "env", "GOPROXY"], capture_output=True, text=True, check=True).stdout.strip()
    for url in told.replace("|", ",").split(","):
        if url.startswith("https://"):
            try:
                with urllib.request.urlopen(f"{url}/golang.org/x/mod/@v/list", timeout=5):
                    return url
            except OSError:
                continue
    return None


@pytest.mark.internet
@pytest.mark.timeout(600)
def test_thirty_real_modules_tidy_and_build(
    sshd: Callable[..., Sshd], client_key: Key, tmp_path: Path
) -> None:
    need(gotool.can_run_go())
    first = source()
    if first is None:
        pytest.skip("no source of `go env GOPROXY` can be reached from this machine")
    server = sshd()
    project = tmp_path / "real"
    project.mkdir()
    (project / "go.mod").write_text(REQUIRES)
    (project / "main.go").write_text(PROGRAM)
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    env |= {"GOPATH": str(tmp_path / "go"), "GOMODCACHE": str(tmp_path / "go" / "mod"), "GOTELEMETRY": "off"}
    env |= {"GOFLAGS": "-modcacherw", "GOTOOLCHAIN": "local", "GOCACHE": str(gotool.build_cache())}
    env["PATH"] = f"{Path(gotool.find_go() or '').parent}{os.pathsep}{env['PATH']}"
    events = tmp_path / "events.jsonl"
    way = ["-J", f"{server.user}@{server.address}:{server.port}", "-i", str(client_key.private)]
    way += ["--known-hosts", str(tmp_path / "known_hosts"), "--events", str(events)]
    for argv in (["go", "mod", "tidy"], ["go", "build", "-o", "prog", "."]):
        ran = subprocess.run(
            [*GOTUNNEL, "run", *way, "--", *argv], cwd=project, env=env, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
    listed = subprocess.run(
        ["go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "."],
        cwd=project, env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert len(set(listed.stdout.split()) - {"example.com/real"}) >= 30
    log = [json.loads(line) for line in events.read_text().splitlines()]
    dialled = {event["target"] for event in log if event["event"] == "dial" and event["ok"]}
    assert f"{urlsplit(first).hostname}:{urlsplit(first).port or 443}" in dialled
    assert "Accepted publickey" in server.log_text()
