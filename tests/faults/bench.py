"""Makes a fault, asks doctor, does what it says, and looks whether go works then."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gotunnel.cli.doctor import lines_of
from tests.faults.case import Case, Scene
from tests.faults.world import World
from tests.lab import proc

_GO_AT_MOST = 20.0  # seconds after doctor's end; go's own patience is longer, and no matter here


@dataclass
class Outcome:
    """What came of a case; `problems` is empty when all was as it must be."""

    case: Case
    report: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    fix: str = ""
    problems: list[str] = field(default_factory=list)

    @property
    def finding(self) -> dict[str, Any]:
        """The finding that the case is about."""
        found = [f for f in self.report.get("findings", ()) if f["id"] == self.case.id]
        return dict(found[0]) if found else {}


def doctor(scene: Scene, env: str = "") -> tuple[int, dict[str, Any], float]:
    """Status, report and seconds of `gotunnel doctor --json`, in a shell that has run the line `env`."""
    ways = " ".join(f"--via '{way}'" for way in scene.via)
    begun = time.monotonic()
    done = scene.sh(f"{env}\ngotunnel doctor --json {ways}", check=False)
    seconds = time.monotonic() - begun
    if not done.stdout.startswith("{"):
        return done.returncode, {"findings": [], "said": done.stdout + done.stderr}, seconds
    return done.returncode, json.loads(done.stdout), seconds


def play(world: World, case: Case) -> Outcome:
    """The whole case."""
    outcome = Outcome(case)
    with world.scene(private=case.private, sums=case.sums) as scene:
        try:
            _play(scene, outcome)
        except proc.LabError as error:
            outcome.problems.append(str(error))
    return outcome


def _play(scene: Scene, outcome: Outcome) -> None:
    case = outcome.case
    case.make(scene)
    before = _start_go(scene, case)
    try:
        status, outcome.report, outcome.seconds = doctor(scene)
        _judge(outcome, status)
        _see_go(outcome, before)
    finally:
        proc.kill_tree(before.pid)
        before.communicate()
    if not outcome.problems:
        _mend(scene, outcome)


def _start_go(scene: Scene, case: Case) -> subprocess.Popen[str]:
    """go with the fault, while doctor looks; with a cache of its own, so that nothing is left of it."""
    env = scene.env if "GOMODCACHE" in scene.env else scene.env | {"GOMODCACHE": str(scene.home / "before")}
    return scene.world.client.popen(
        scene.shell(_proxied(scene, case)), env=env, cwd=scene.project,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def _proxied(scene: Scene, case: Case) -> str:
    """The command; by the ways out that doctor was given."""
    if not scene.via:
        return case.command
    ways = " ".join(f"--via '{way}'" for way in scene.via)
    return f"gotunnel run --retries 0 {ways} -- {case.command}"


def _judge(outcome: Outcome, status: int) -> None:
    case, report = outcome.case, outcome.report
    wanted = case.id if case.severity == "error" else None
    shown = [(f["id"], f["severity"], f["subject"], f["summary"]) for f in report["findings"]]
    if report.get("root_cause") != wanted:
        said = report.get("said", "")
        outcome.problems.append(f"root cause {report.get('root_cause')}, want {wanted}: {shown} {said}")
    if status != (1 if wanted else 0):
        outcome.problems.append(f"status {status}")
    outcome.problems += [f"too wide: {line}" for item in report["findings"] for line in _too_wide(item)]
    found = outcome.finding
    if not found:
        outcome.problems.append(f"no {case.id}: {shown}")
        return
    if found["severity"] != case.severity:
        outcome.problems.append(f"{case.id} is a {found['severity']}")
    text = json.dumps(found, ensure_ascii=False)
    outcome.problems += [f"{word!r} is not in {text}" for word in case.evidence if word not in text]
    outcome.fix = next((line for line in found["fix"] if case.fix in line), "")
    if not outcome.fix:
        outcome.problems.append(f"no fix with {case.fix!r}: {found['fix']}")


def _too_wide(item: dict[str, Any]) -> list[str]:
    """What a terminal of 80 columns would break: anything but a command, or a word of its own."""
    lines = lines_of(item, root=True)
    free = (line for line in lines if line.strip().partition(": ")[0] not in ("mend", "or"))
    return [line for line in free if "\x1b" in line or (len(line) > 80 and " " in line.strip())]


def _see_go(outcome: Outcome, before: subprocess.Popen[str]) -> None:
    works = outcome.case.go == "works"
    try:
        out, _ = before.communicate(timeout=_GO_AT_MOST if works else 1.0)
    except subprocess.TimeoutExpired:
        if works:
            outcome.problems.append("go hangs")
        return  # it waits for what never comes
    if works != (before.returncode == 0):
        outcome.problems.append(f"with the fault go ends with status {before.returncode}: {out}")


def _mend(scene: Scene, outcome: Outcome) -> None:
    case = outcome.case
    if case.undone:
        return
    typed = case.hand.replace("FIX", outcome.fix) if case.hand else outcome.fix
    if case.person:
        case.person(scene)
        typed = ""
    typed = scene.world.fill(scene, typed, case.command)
    script = typed if "gotunnel run" in typed else f"{typed}\n{_proxied(scene, case)}"
    done = scene.sh(script, check=False)
    if done.returncode:
        outcome.problems.append(f"after `{typed}` go fails: {done.stdout}{done.stderr}")
    elif case.severity == "warning" and case.id in (left := _ids(doctor(scene, typed)[1])):
        outcome.problems.append(f"after `{typed}` doctor still says {left}")
    elif not _downloaded(scene) and case.command == "go mod download":
        outcome.problems.append(f"after `{typed}` nothing was downloaded: {done.stdout}{done.stderr}")


def _ids(report: dict[str, Any]) -> list[str]:
    return [str(found["id"]) for found in report["findings"]]


def _downloaded(scene: Scene) -> bool:
    """Is a module of the corpus in some cache of the user's?"""
    places = [scene.home, *(Path(scene.env[n]) for n in ("GOMODCACHE",) if n in scene.env)]
    files = (f for place in places for f in place.rglob("golang.org/x/m000/@v/*.zip"))
    return any("before" not in file.parts for file in files)
