"""Makes the outputs beside this package with the real go, git and ssh, in a network namespace of its own.

    unshare --net --mount python -m tests.data.outputs.make_outputs /usr/local/go/bin/go [WORD…]

Needs root, Linux, ip, nft, sshd and the test environment.  WORDs choose the cases whose name holds one.
Each case is written to `FINDING--WHAT.go1.26.txt`, unless another version printed the same: a first line
`# argv: …  exit: N  go: V  retry: yes|no|once`, then standard error as it came.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.data.outputs.make_outputs import world
from tests.data.outputs.make_outputs.cases import CASES, GO_MOD, MAIN, Case

HERE = Path(__file__).parent.parent


def prepare(work: Path) -> None:
    """Addresses, resolver, servers, a real sshd, a file system that is full and one that is read only."""

    def do(command: str) -> None:
        subprocess.run(command, shell=True, check=True)

    do("ip link set lo up")
    for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 21):
        do(f"ip addr add 198.51.100.{n}/32 dev lo")
    do(f"ip route add unreachable {world.NO_HOST}")
    do("nft add table ip t; nft 'add chain ip t o { type filter hook output priority 0; }'")
    do(f"nft add rule ip t o ip daddr {world.BLACK} drop")
    resolv = work / "resolv.conf"
    resolv.write_text("nameserver 127.0.0.1\noptions timeout:2 attempts:1\n")
    do(f"mount --bind {resolv} /etc/resolv.conf")
    for name, options in (("full", "size=4k,nr_inodes=5"), ("ro", "ro")):
        (work / name).mkdir()
        do(f"mount -t tmpfs -o {options} tmpfs {work / name}")
    world.build(work)
    do(f"ssh-keygen -q -t ed25519 -N '' -f {work}/host; ssh-keygen -q -t ed25519 -N '' -f {work}/other")
    other = (work / "other.pub").read_text().split()
    (work / "changed").write_text(f"sshd.lab.example {other[0]} {other[1]}\n")
    plain = "-o PasswordAuthentication=no -o KbdInteractiveAuthentication=no -o UsePAM=no"
    do(f"mkdir -p /run/sshd; /usr/sbin/sshd -f none -h {work}/host -o ListenAddress={world.SSHD} "
       f"-o PidFile={work}/sshd.pid -o AuthorizedKeysFile=none {plain}")  # fmt: skip
    plain += f" -o AuthorizedKeysFile={work}/other.pub -o StrictModes=no -o AllowTcpForwarding=no"
    do(f"/usr/sbin/sshd -f none -h {work}/host -o ListenAddress={world.JUMP} "
       f"-o PidFile={work}/jump.pid {plain}")  # fmt: skip
    (work / "ssh_config").write_text(
        f"BatchMode yes\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nIdentityAgent none\n"
        f"IdentityFile {work}/other\nHost sshd.lab.example\nProxyJump root@jump.lab.example\n"
    )


def make(case: Case, go: str, version: str, work: Path) -> None:
    """Run one case and write its file."""
    project, cache = work / "app", work / "modcache"
    for folder in (project, cache):
        if folder.exists():
            subprocess.run(["chmod", "-R", "u+w", folder], check=True)
            shutil.rmtree(folder)
    project.mkdir()
    for name, text in {"go.mod": GO_MOD, "main.go": MAIN, **case.files}.items():
        if text is not None:
            (project / name).parent.mkdir(exist_ok=True)
            (project / name).write_text(text.replace('"GO"', f'"{go}"'))
    ca = str(work / "ca.pem")
    env = {
        "PATH": f"{os.path.dirname(go)}:/usr/bin:/bin", "HOME": str(work / "home"),
        "GOCACHE": str(work / "gocache"), "GOPATH": str(work / "gopath"), "GOMODCACHE": str(cache),
        "GOTOOLCHAIN": "local", "GOSUMDB": "off",
        "SSL_CERT_FILE": ca, "GIT_SSL_CAINFO": ca, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C",
    } | {k: v.replace("$WORK", str(work)) for k, v in case.env.items()}  # fmt: skip
    argv = case.argv.split()
    command = [go if argv[0] == "go" else argv[0], *argv[1:]]
    done = subprocess.run(
        command, cwd=project, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
    )
    text = scrubbed(done.stderr.decode("utf-8", "replace"), go, work)
    head = f"# argv: {case.argv}  exit: {done.returncode}  go: {version}  retry: {case.retry}\n"
    stem, minor = f"{case.finding}--{case.what}", ".".join(version.split(".")[:2])
    others = {
        file.read_text().partition("\n")[2]
        for file in HERE.glob(f"{stem}.go*.txt")
        if f".go{minor}." not in file.name
    }
    mine = HERE / f"{stem}.go{minor}.txt"
    if text.replace("\r\n", "\n") in others:  # as read_text gives them; ssh writes both
        mine.unlink(missing_ok=True)
    else:
        mine.write_text(head + text)
    print(
        f"{stem} exit {done.returncode}, {len(text)} bytes{', as another version' * (text in others)}",
        flush=True,
    )


def scrubbed(text: str, go: str, work: Path) -> str:
    """`text` without what differs from machine to machine and from run to run."""
    text = text.replace(os.path.dirname(os.path.dirname(go)), "/usr/local/go").replace(str(work), "/home/dev")
    for pattern, fixed in (
        (r"(\d+\.\d+\.\d+\.\d+):\d{5}->", r"\1:50000->"),
        (r"current time \S+ is after \S+", "current time 2026-06-09T12:00:00Z is after 2026-06-06T12:00:00Z"),
        (r"after \d{1,2} ms", "after 0 ms"),
        (
            r"current time \S+ is before \S+",
            "current time 2026-06-09T12:00:00Z is before 2026-06-12T12:00:00Z",
        ),
        (r"\b0\.\d{3}s", "0.001s"),
        (r"SHA256:\S{43}", "SHA256:" + "A" * 43),
    ):
        text = re.sub(pattern, fixed, text)
    return text


def main() -> None:
    go, words = sys.argv[1], sys.argv[2:]
    told = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True)
    version = told.stdout.strip().removeprefix("go")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(work)
        try:
            for case in CASES:
                name = f"{case.finding}--{case.what}"
                if not words or any(word in name for word in words):
                    make(case, go, version, work)
        finally:
            for name in ("sshd", "jump"):
                subprocess.run(["kill", (work / f"{name}.pid").read_text().strip()], check=False)
            for name in ("full", "ro"):
                subprocess.run(["umount", work / name], check=False)
            subprocess.run(["umount", "/etc/resolv.conf"], check=False)
            subprocess.run(["chmod", "-R", "u+w", work], check=False)


if __name__ == "__main__":
    main()
