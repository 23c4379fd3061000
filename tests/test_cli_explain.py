"""`gotunnel explain` as people and scripts use it: FILE, pipe, status, text, JSON, size."""

from __future__ import annotations

import json
import os
import pty
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data" / "outputs"
REFUSED = DATA / "tcp.refused--tidy.go1.26.txt"
EXPLAIN = [sys.executable, "-m", "gotunnel", "explain"]
KEYS = {"id", "severity", "stage", "subject", "via", "summary", "evidence", "fix", "retryable"}


def explain(*args: str, given: bytes = b"", **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*EXPLAIN, *args], input=given, capture_output=True, check=False, env={**os.environ, **env}
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_json_is_the_contracts_object() -> None:
    done = explain("--json", str(REFUSED))
    answer = json.loads(done.stdout)
    assert set(answer) == {"ok", "root_cause", "findings"}
    assert (done.returncode, answer["ok"], answer["root_cause"]) == (0, False, "tcp.refused")
    (found,) = answer["findings"]
    assert set(found) == KEYS
    assert (found["stage"], found["subject"]) == ("download", "dead.lab.example:443")
    assert found["fix"][0] == "gotunnel probe https://dead.lab.example"


def test_the_timeline_is_evidence() -> None:
    (found,) = json.loads(explain("--json", str(DATA / "dns.not-found--x.go1.26.txt")).stdout)["findings"]
    assert found["evidence"]["timeline"]["failed"] == 1


@pytest.mark.parametrize("args", [(), ("-",)])
def test_standard_input(args: tuple[str, ...]) -> None:
    done = explain(*args, given=REFUSED.read_bytes())
    assert done.returncode == 0
    assert done.stdout.startswith(
        "tcp.refused: nothing listens there, or a firewall refuses\nstage      download"
    )
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


def test_powershell_writes_utf_16() -> None:
    text = REFUSED.read_text().replace("\n", "\r\n")
    for codec in ("utf-16-le", "utf-16-be"):
        given = ("\ufeff" + text).encode(codec)
        assert json.loads(explain("--json", given=given).stdout)["root_cause"] == "tcp.refused"


def test_nothing_recognised_is_1() -> None:
    for given in (b"", b"ok\n", b"error: the moon is full\n"):
        done = explain(given=given)
        assert (done.returncode, done.stderr) == (1, "")
        assert "no failure that gotunnel knows" in done.stdout
        assert explain("--json", given=given).returncode == 1
    assert "the moon is full" in explain(given=b"error: the moon is full\n").stdout


@pytest.mark.parametrize("name", ["/nowhere/log", "/"])
def test_a_file_that_cant_be_read(name: str) -> None:
    done = explain(name)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"gotunnel: explain: {name}: ")
    assert done.stderr.count("\n") == 1


def on_terminal(*args: str, **env: str) -> tuple[int, str]:
    """Status and output with a terminal as standard input and output."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*EXPLAIN, *args], stdin=slave, stdout=slave, stderr=slave, env={**os.environ, "NO_COLOR": "", **env}
    )
    os.close(slave)
    said = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:  # EIO: the other end is closed
            break
        if not piece:
            break
        said += piece
    os.close(master)
    return process.wait(), said.decode()


def test_a_terminal_is_no_log() -> None:
    status, said = on_terminal()
    assert status == 2
    assert "gotunnel explain [--json] [FILE|-]" in said
    assert said.count("\n") == 1


def test_colour_only_on_a_terminal() -> None:
    assert "\x1b[1;31mtcp.refused\x1b[0m: nothing" in on_terminal(str(REFUSED))[1]
    assert "\x1b" not in on_terminal(str(REFUSED), NO_COLOR="1")[1]


def test_the_text_of_every_output_fits_80_columns() -> None:
    from gotunnel.cli.explain import lines
    from gotunnel.findings.story import Story

    for file in sorted(DATA.glob("*.txt")):
        story = Story()
        story.feed(file.read_bytes().partition(b"\n")[2])
        told = story.finish()
        fixes = {fix for found in told.answer["findings"] for fix in found["fix"]}
        for line in lines(told):
            # commands to paste and words without a space stay whole
            assert len(line) <= 80 or line[11:] in fixes or " " not in line[11:], (file.name, line)
        if file.name.startswith("build.failed"):
            assert "network    is not at fault" in list(lines(told))


def grown(size: int) -> tuple[int, float]:
    """Peak memory in kB and processor seconds of explaining a `go build -x` log of `size` bytes in a pipe."""
    block = ("\n".join(
        f"mkdir -p $WORK/b{n:03}/\necho '# import config' > $WORK/b{n:03}/importcfg # internal\n"
        f'/usr/local/go/pkg/tool/linux_amd64/compile -o $WORK/b{n:03}/_pkg_.a -trimpath "$WORK/b{n:03}=>" -p '
        f"example.com/x{n} -lang=go1.26 -complete -buildid {'Zdw57' * 8} -pack ./a.go ./b.go ./c.go\n"
        f"packagefile internal/cpu=/tmp/go-build1/b{n:03}/_pkg_.a\n"
        f"# get https://p.example/m{n}.example/m/@v/v1.0.{n}.zip\n"
        f"# get https://p.example/m{n}.example/m/@v/v1.0.{n}.zip: 200 OK (0.{n:03}s)"
        for n in range(600)
    ) + "\n").encode()  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen([*EXPLAIN, "--json"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    sent = 0
    peak = 0
    while sent < size:
        process.stdin.write(block)
        sent += len(block)
        peak = max(peak, resident(process.pid))
    process.stdin.write(REFUSED.read_bytes())
    process.stdin.close()
    answer = json.loads(process.stdout.read())
    process.stdout.close()
    assert process.wait() == 0
    assert answer["root_cause"] == "tcp.refused"
    assert answer["findings"][0]["evidence"]["timeline"]["requests"] == sent // len(block) * 600
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return peak, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def resident(pid: int) -> int:
    """kB of memory of a process; 0 where there is no /proc."""
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)


def test_a_long_log_streams() -> None:
    """Memory stays; processor time grows no faster than the log (twice as fast is the noise of a machine)."""
    size = 100_000_000 if os.environ.get("GOTUNNEL_SOAK") else 16_000_000
    started = time.monotonic()
    small, short = grown(size // 4)
    large, long = grown(size)
    print(f"{size} bytes: {large} kB, {long:.1f} s of processor, {time.monotonic() - started:.1f} s in all")
    assert large < small + 8_000
    assert long < 4 * 2 * short + 2
