"""The snippets of tests/data/ci in jobs as bare as agents make them, with a real sshd and a real go.

Each job has: no terminal, no HOME, no user known to the system, no capability, a root file system that can't
be written, a pid namespace without an init.  Writable is its workspace alone.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cell import PROGRAM
from tests.conftest import need
from tests.lab import keys, netns, proc
from tests.lab.corpus import Corpus
from tests.lab.gotool import can_run_go, find_go
from tests.lab.keys import Key
from tests.lab.origin import Origin
from tests.lab.sshd import Sshd, can_run_sshd

SNIPPETS = proc.ROOT / "tests" / "data" / "ci"
UID = "54321"
JOB = "/mnt/job"
# makes the job's surroundings; then `env -i` and the job itself, as pid 1
_CELL = """
set -e
workspace=$1 python=$2 site=$3 source=$4 go=$5; shift 5
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/bin /mnt/job /mnt/python /mnt/site /mnt/go /mnt/source /mnt/source/gotunnel
cat > /mnt/bin/gotunnel; chmod 755 /mnt/bin/gotunnel
mount --bind "$workspace" /mnt/job
mount --bind "$python" /mnt/python
mount --bind "$site" /mnt/site
mount --bind "$source" /mnt/source/gotunnel
mount --bind "$go" /mnt/go
for place in / /mnt /mnt/python /mnt/site /mnt/source/gotunnel /mnt/go; do
  mount -o remount,bind,ro "$place"
done
cd /mnt/job
exec setpriv --reuid=54321 --regid=54321 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all \\
  env -i "$@"
"""


@dataclass
class Job:
    """One project's checkout, a jump host, and an origin that stands for the module mirror."""

    workspace: Path
    jump: Sshd
    origin: Origin
    key: Key
    count: int

    def run(self, env: Mapping[str, str], *argv: str) -> subprocess.CompletedProcess[str]:
        """The job's command to its end."""
        go = Path(find_go() or "").resolve().parent.parent
        given = {
            "PATH": "/mnt/bin:/mnt/go/bin:/usr/bin:/bin",
            "LD_LIBRARY_PATH": "/mnt/python/lib",
            "CI": "true",
            "GOPROXY": self.origin.url,
            "GOSUMDB": "off",
            "GOTOOLCHAIN": "local",
            "GOFLAGS": "-modcacherw",
            "GOMODCACHE": f"{JOB}/.go/mod",
            "GOCACHE": f"{JOB}/.go/build",
            **env,
        }
        cell = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=KILL",
                "--mount-proc", "sh", "-c", _CELL, "cell", str(self.workspace), sys.base_prefix,
                sysconfig.get_path("purelib"), str(proc.ROOT / "gotunnel"), str(go)]  # fmt: skip
        pairs = [f"{name}={value}" for name, value in given.items()]
        return proc.run([*cell, *pairs, *argv], stdin=PROGRAM, check=False, cwd=Path("/"))

    def modules(self) -> int:
        """How many modules the job has now."""
        return len(list((self.workspace / ".go" / "mod" / "cache" / "download").rglob("*.zip")))

    @property
    def via(self) -> str:
        """The jump host as a CHAIN."""
        return f"ssh://{self.jump.user}@127.0.0.1:{self.jump.port}"


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    need(netns.can_make_namespaces(), can_run_sshd(), can_run_go())
    corpus = Corpus(tmp_path / "corpus", count=6, levels=2)
    project = corpus.write_project(tmp_path / "job")
    key = keys.new_key(tmp_path / "id_ci")
    with (
        Sshd(tmp_path / "sshd", authorized=[key]) as jump,
        Origin(tmp_path / "origin", corpus.directory) as origin,
    ):
        made = Job(project, jump, origin, key, len(corpus.modules))
        for name, text in (("key", key.private.read_text()), ("known", jump.known_hosts_line())):
            (project / name).write_text(text)
            (project / name).chmod(0o600)
        for path in (project, *project.rglob("*")):
            shutil.chown(path, int(UID), int(UID))
        yield made


def line_of(snippet: str) -> str:
    """The one shell line of a snippet that runs gotunnel."""
    found = re.findall(r"gotunnel run .*?(?='?$)", (SNIPPETS / snippet).read_text(), re.M)
    assert len(found) == 1, snippet
    return str(found[0])


def secrets(job: Job) -> dict[str, str]:
    """The key and known_hosts as masked variables hold them: without the newline at the end."""
    return {
        "GOTUNNEL_SSH_KEY": job.key.private.read_text().strip(),
        "GOTUNNEL_SSH_KNOWN_HOSTS": job.jump.known_hosts_line().strip(),
    }


AGENTS = {
    "github.yml": {
        "GITHUB_ACTIONS": "true",
        "GITHUB_WORKSPACE": JOB,
        "GOTUNNEL_CACHE_URL": f"file://{JOB}/.gotunnel",
    },
    "gitlab.yml": {
        "GITLAB_CI": "true",
        "CI_PROJECT_DIR": JOB,
        "GOTUNNEL_CACHE_URL": f"file://{JOB}/.gotunnel",
    },
    "Jenkinsfile": {"JENKINS_URL": "http://jenkins.example/", "KEY": f"{JOB}/key", "KNOWN": f"{JOB}/known"},
}


@pytest.mark.parametrize("snippet", AGENTS)
def test_the_snippet_downloads_by_the_jump_host(job: Job, snippet: str) -> None:
    env = {"GOTUNNEL_VIA": job.via, **AGENTS[snippet]}
    if snippet != "Jenkinsfile":
        env |= secrets(job)
    ran = job.run(env, "sh", "-ec", line_of(snippet))
    assert ran.returncode == 0, ran.stderr
    assert job.modules() == job.count, ran.stderr
    assert "Accepted publickey" in job.jump.log_text()
    clients = {record["client"] for record in job.origin.begun(r"\.zip$")}
    assert clients == {"127.0.0.1"}
    assert "PRIVATE KEY" not in ran.stderr + ran.stdout
    if "GOTUNNEL_CACHE_URL" in env:  # what the agent keeps serves the next job without the origin
        job.origin.clear_log()
        shutil.rmtree(job.workspace / ".go" / "mod")
        again = job.run(env, "sh", "-ec", line_of(snippet))
        assert again.returncode == 0, again.stderr
        assert job.modules() == job.count
        assert job.origin.begun(r"\.zip$") == []


def test_a_container_runs_it_as_its_first_process(job: Job) -> None:
    # an orphan of CMD comes to us as pid 1, and the container ends when CMD has ended
    script = '(sleep 300 & exec true); test -z "$HOME"; ! touch /x 2>/dev/null; go mod download'
    env = {"GOTUNNEL_VIA": job.via, **secrets(job)}
    ran = job.run(env, "gotunnel", "run", "--", "sh", "-ec", script)
    assert ran.returncode == 0, ran.stderr
    assert job.modules() == job.count


def test_a_job_without_its_secrets_is_told_so(job: Job) -> None:
    nothing = {"GOTUNNEL_VIA": job.via, "GOTUNNEL_SSH_KEY": "", "GOTUNNEL_SSH_KNOWN_HOSTS": ""}
    ran = job.run({**nothing, "GITHUB_ACTIONS": "true"}, "gotunnel", "run", "--", "go", "mod", "download")
    assert ran.returncode == 69, ran.stderr
    assert "ssh.host-key-unknown" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert job.origin.begun() == []
