"""The Containerfile and its examples, as far as they can be tried without an engine: what they name exists in
the program, and the image's command runs as a cluster runs it (from the Kubernetes example, over a real S3
and a real sshd).

The cell has no engine's layers: Python and gotunnel are bound into it.  All else is as the image and the
example say: user, environment, read-only root, no capability, no init, secrets of the group's, and a state
volume that is root's.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from gotunnel.cli.main import build_parser
from gotunnel.config.sources import read_environment
from gotunnel.daemon.units import PORTS
from tests.cell import PROGRAM, PYTHON
from tests.conftest import need
from tests.examples import FOLDER, configuration, image, variables
from tests.lab import keys, netns, proc
from tests.lab.corpus import Corpus
from tests.lab.gotool import can_run_go
from tests.lab.netns import Namespace
from tests.lab.origin import Origin
from tests.lab.s3 import VersityGw
from tests.lab.sshd import Sshd, can_run_sshd

SECRETS = "/run/secrets/gotunnel"
# what the engine and the cluster do; then the image's command as pid 1
_CELL = """
set -e
given=$1 python=$2 site=$3 source=$4; shift 4
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/bin /mnt/python /mnt/site /mnt/source /mnt/source/gotunnel
cp "$given/gotunnel" /mnt/bin; cp -a "$given/etc" /mnt/etc
mount --bind "$python" /mnt/python
mount --bind "$site" /mnt/site
mount --bind "$source" /mnt/source/gotunnel
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/gotunnel /run/secrets
cp -a "$given/secrets" /run/secrets/gotunnel
mkdir /mnt/etc/ssl; [ ! -d /etc/ssl ] || mount --bind /etc/ssl /mnt/etc/ssl
mount --rbind /mnt/etc /etc
mount -t tmpfs -o mode=2777,gid=65534 tmpfs /run/gotunnel
mount -t tmpfs -o mode=2777,gid=65534 tmpfs /tmp
for place in / /run /mnt /mnt/python /mnt/site /mnt/source/gotunnel /etc; do
  mount -o remount,bind,ro "$place"
done
cd /
exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all \\
  env -i "$@"
"""


def test_what_the_image_names_exists() -> None:
    told = variables()
    layer = read_environment(told)
    assert not layer.problems
    ports = {f"listen.{name}": port for name, port in PORTS.items()}
    assert {name: value.port for name, value in layer.values.items()} == ports  # type: ignore[attr-defined]
    assert image()["EXPOSE"] == [" ".join(map(str, PORTS.values()))]
    assert json.loads(image()["ENTRYPOINT"][0]) == ["gotunnel"]
    build_parser("serve").parse_args(json.loads(image()["CMD"][0]))
    state = {told["STATE_DIRECTORY"], told["RUNTIME_DIRECTORY"]}
    assert all(path.startswith("/run/gotunnel/") for path in state), "a volume's root isn't ours"


def test_the_examples_fit_the_image() -> None:
    cluster, compose = ((FOLDER / name).read_text() for name in ("kubernetes.yaml", "compose.yaml"))
    named = {name: int(port) for name, port in re.findall(r"name: (\w+), containerPort: (\d+)", cluster)}
    assert named == PORTS
    for name, port in re.findall(r"name: (\w+), port: (\d+), targetPort: \1", cluster):
        assert PORTS[name] == int(port)
    assert set(re.findall(r"path: (/\w+), port: (\w+)", cluster)) == {
        ("/readyz", "admin"),
        ("/healthz", "admin"),
    }
    assert set(re.findall(r"replica \d+ gotunnel:(\d+)", compose)) == {"4480", "4481"}
    assert f"check port {PORTS['admin']} " in compose
    for example, key in ((cluster, "mountPath: "), (compose, "tmpfs: ")):
        assert re.search(rf"{key}.*/run/gotunnel\b", example), "the state's place can't be written"
        assert re.search(rf"{key}.*/tmp\b", example), "the spool's place can't be written"
    used = set(re.findall(r"/run/secrets/([\w/]+)", configuration("compose.yaml")))
    assert used == set(re.findall(r"^  (\w+): \{ file:", compose, re.M))
    used = set(re.findall(rf"{SECRETS}/(\w+)", configuration("kubernetes.yaml")))
    assert used == set(re.findall(r"key: (\w+), path: \1", cluster))


class Pod:
    """One replica in a cell, in the namespace of what it needs."""

    def __init__(self, directory: Path, network: Namespace, env: dict[str, str]) -> None:
        cell = {
            "PATH": "/mnt/bin:/usr/bin:/bin",
            "LD_LIBRARY_PATH": "/mnt/python/lib",
            "HOME": "/nonexistent",
        }
        self.network, self.env = network, cell | env
        argv = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=KILL",
                "--mount-proc", "sh", "-c", _CELL, "cell", str(directory), sys.base_prefix,
                sysconfig.get_path("purelib"), str(proc.ROOT / "gotunnel")]  # fmt: skip
        command = [*json.loads(image()["ENTRYPOINT"][0]), *json.loads(image()["CMD"][0])]
        pairs = [f"{name}={value}" for name, value in self.env.items()]
        self.process = proc.Process([*argv, *pairs, *command], log=directory / "log", place=network)

    @property
    def first(self) -> int:
        """Its pid 1, as the machine numbers it."""
        return proc.family(self.process.pid)[-1]

    def exec(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """As `kubectl exec` does it."""
        into = [
            "nsenter",
            "--target",
            str(self.first),
            "--mount",
            "--pid",
            "--net",
            "--setuid=65534",
            "--setgid=65534",
        ]
        return proc.run([*into, "env", "-i", *(f"{n}={v}" for n, v in self.env.items()), *argv], check=False)


@pytest.fixture
def network() -> Iterator[Namespace]:
    need(netns.can_make_namespaces(), can_run_sshd(), can_run_go(), VersityGw.available())
    with Namespace("pod") as made:
        yield made


def test_it_serves_as_a_cluster_runs_it(network: Namespace, tmp_path: Path) -> None:
    given = tmp_path / "given"
    for place in ("etc/gotunnel", "secrets"):
        (given / place).mkdir(parents=True)
    for name in ("passwd", "group", "hosts", "nsswitch.conf"):
        if Path("/etc", name).exists():
            shutil.copy(Path("/etc", name), given / "etc")
    (given / "gotunnel").write_text(PROGRAM)
    (given / "gotunnel").chmod(0o755)
    corpus = Corpus(tmp_path / "corpus", count=6, levels=2)
    project = corpus.write_project(tmp_path / "project")
    key = keys.new_key(tmp_path / "key")
    with contextlib.ExitStack() as stack:
        jump = stack.enter_context(Sshd(tmp_path / "sshd", place=network, authorized=[key]))
        origin = stack.enter_context(Origin(tmp_path / "origin", corpus.directory, place=network))
        bucket = stack.enter_context(VersityGw(tmp_path / "s3", place=network))
        texts = {
            "password": "s3cret words\n",
            "ssh_key": key.private.read_text(),
            "known_hosts": jump.known_hosts_line(),
        }
        for name, text in texts.items():
            file = given / "secrets" / name
            file.write_text(text)
            shutil.chown(file, 0, 65534)
            file.chmod(0o440)
        config = configuration("kubernetes.yaml")
        for old, new in (
            ("dev@jump.example", f"{jump.user}@{jump.address}:{jump.port}"),
            ("s3://go-modules/team?region=eu-central-1", bucket.store_url("team")),
        ):
            assert config.count(old) == 1
            config = config.replace(old, new)
        (given / "etc/gotunnel/config.toml").write_text(config)
        env = {**variables(), **bucket.variables, "GOPROXY": origin.url, "GOSUMDB": "off"}
        pod = Pod(given, network, env)
        stack.callback(pod.process.stop)
        pod.process.wait_ready("ready", lambda: "a way out works" in pod.process.output(), 30.0)

        assert pod.exec("id", "-u").stdout == "65534\n"
        assert pod.exec("touch", "/run/x", "/etc/gotunnel/x").returncode == 1
        check = json.loads(image()["HEALTHCHECK"][0].partition(" CMD ")[2])
        assert check[0] == "python"
        assert pod.exec(PYTHON, *check[1:]).returncode == 0
        shell = json.loads(pod.exec("gotunnel", "env", "--shell", "json").stdout)
        assert re.fullmatch(r"http://127\.0\.0\.1:4481/[\w-]{32}", shell["GOPROXY"])
        go = {
            "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "GOPROXY": shell["GOPROXY"], "GOSUMDB": "off",
            "GOTOOLCHAIN": "local", "GOFLAGS": "-modcacherw",
        }  # fmt: skip
        ran = proc.run([proc.need_tool("go"), "-C", str(project), "mod", "download"], place=network, env=go)
        assert ran.returncode == 0
        assert len(list(bucket.bucket.rglob("*.zip"))) == len(corpus.modules)
        assert "Accepted publickey" in jump.log_text()

        said = pod.process.output()
        assert all(json.loads(line)["log.level"] for line in said.splitlines())
        assert not any(secret in said for secret in ("s3cret", shell["GOPROXY"], "PRIVATE KEY"))
        proc.send([pod.first], signal.SIGTERM)  # as the engine stops it
        proc.wait_until("it ends", lambda: not pod.process.running, 20.0)
