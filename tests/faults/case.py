"""What a case is: a fault, the finding that it must have, and how its fix is done."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.world import World


@dataclass(slots=True)
class Scene:
    """One user at one moment: his environment, his project, and what was broken for him.

    `undo` mends what the case broke outside of his home; `via` are doctor's ways out.
    """

    world: World
    env: dict[str, str]
    home: Path
    project: Path
    undo: contextlib.ExitStack
    via: list[str] = field(default_factory=list)

    def shell(self, script: str) -> list[str]:
        """The command line of a script that the user runs; his home is passwd(5)'s too, as ssh wants it."""
        return ["/bin/bash", "-ec", f"/usr/bin/mount --bind {self.home}/passwd /etc/passwd\n{script}"]

    def sh(self, script: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a script as the user."""
        command = self.shell(script)
        return self.world.client.run(command, env=self.env, cwd=self.project, check=check, timeout=30.0)

    def goenv(self, *settings: str) -> None:
        """`go env -w`."""
        self.world.client.run(["go", "env", "-w", *settings], env=self.env, cwd=self.project)

    def names(self, **changes: str | list[str]) -> None:
        """What the client's resolver says instead; `_` stands for a dot, `__` for a dash."""
        self.world.lie({name.replace("__", "-").replace("_", "."): said for name, said in changes.items()})

    def gomod(self, *edits: str) -> None:
        """`go mod edit`."""
        env = self.env | {"GOTOOLCHAIN": "local", "GOFLAGS": ""}
        self.world.client.run(["go", "mod", "edit", *edits], env=env, cwd=self.project)


@dataclass(frozen=True, slots=True)
class Case:
    """A fault.

    `id` is the root cause (for a `warning`, a finding with root_cause null); `label` tells cases of one id
    apart.  `fix` is a part of the line of the fix that is done.  Where that line is no command, `hand` is the
    shell text of one who follows it (FIX in it: the line itself), or `person` is what he does outside of a
    shell; `undone` is why nothing was done.  `evidence`: words that the finding must hold.  `go` is what go
    does with the fault: fails, or works (warnings).  `private`: the project needs a module of the company's
    git server.
    """

    id: str
    label: str
    what: str
    make: Callable[[Scene], None]
    fix: str = "run --via"
    hand: str = ""
    person: Callable[[Scene], None] | None = None
    undone: str = ""
    severity: str = "error"
    evidence: tuple[str, ...] = ()
    go: str = "fails"
    private: bool = False
    sums: bool = True
    command: str = "go mod download"

    @property
    def name(self) -> str:
        """For pytest and the table."""
        return f"{self.id}-{self.label}" if self.label else self.id

    @property
    def mended(self) -> str:
        """How its fix is done: yes (the printed command), by a person who follows advice, or not at all."""
        if self.undone:
            return f"not done: {self.undone}"
        return "yes, by hand" if self.person or (self.hand and "FIX" not in self.hand) else "yes"
