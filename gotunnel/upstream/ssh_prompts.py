"""What one jump host may ask a person: passphrases, passwords, second factors, trust in a new host key.

Rules:
- Nobody is asked in the background: after the first login, or when somebody would not answer or was refused,
  there are no more questions (`finished`).  Passphrases that were right are kept, passwords never.
- TRIES for each passphrase and each method, as in ssh.  No answer (Ctrl-C, Ctrl-D) ends all questions.
- What a server wants to be shown is told to be the server's: it stands after (user@host).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from gotunnel.address import one_line
from gotunnel.upstream.asking import NOBODY, Asking
from gotunnel.upstream.host_keys import HostKeyCheck
from gotunnel.upstream.ssh_plan import SshPlan

TRIES = 3
_LINES = 20  # of a server's instructions
T = TypeVar("T")


class Prompts:
    """The questions of one jump host, over all its connections."""

    def __init__(self, plan: SshPlan, asking: Asking = NOBODY) -> None:
        self.asking = asking
        self.finished = plan.batch or not asking.possible
        self.accepted = ""  # the fingerprint of a host key that was said yes to
        self._plan = plan
        self._passphrases: dict[str, str] = {}

    async def passphrase(self, path: str, unlock: Callable[[str], T]) -> T | None:
        """What `unlock` makes of the passphrase for a key file; None: nobody (any more) can be asked.

        Raises the ValueError of `unlock` where all that was typed was wrong.
        """
        if (known := self._passphrases.get(path)) is not None:
            return unlock(known)
        wrong: ValueError | None = None
        for _ in range(TRIES):
            if not (typed := await self._ask(f"Passphrase for {path}: ")):
                break  # as in ssh: an empty one passes the key over
            try:
                unlocked = unlock(typed)
            except ValueError as error:
                wrong = error
                continue
            self._passphrases[path] = typed
            return unlocked
        if wrong is not None:
            raise wrong
        return None

    async def trust(self, check: HostKeyCheck) -> bool:
        """Does a person accept the new host key that `check` has seen?  If so it is kept."""
        if self.finished or not check.may_be_asked:
            return False
        prompt = (
            f"The host key of {check.entry} is not known: {check.kind} {check.fingerprint}\n"
            "Do you trust it (yes, no, or the fingerprint)? "
        )
        for _ in range(TRIES):
            answer = await self._ask(prompt, echo=True)
            if answer is None or answer.strip().lower() == "no":
                return False
            if answer.strip().lower() == "yes" or answer.strip() == check.fingerprint:
                check.accept()
                self.accepted = check.accepted
                return True
            prompt = "Please type yes, no or the fingerprint: "
        return False

    async def password(self) -> str | None:
        """The user's password."""
        return await self._ask(f"{self._plan.user}@{self._plan.host}'s password: ")

    async def challenge(self, notes: Sequence[str], prompts: Sequence[tuple[str, bool]]) -> list[str] | None:
        """The answers to a server's prompts (words, whether to echo), after its notes were shown."""
        host = f"({self._plan.user}@{self._plan.host})"
        lines = [f"{host} {line}" for note in notes for line in note.splitlines() if line.strip()]
        answers = []
        for words, echo in prompts:
            *before, last = words.rstrip().splitlines() or [""]
            shown = [*lines, *(f"{host} {line}" for line in before)][:_LINES]
            answer = await self._ask("\n".join([*shown, f"{host} {one_line(last)} "]), echo=echo)
            if answer is None:
                return None
            answers.append(answer)
            lines = []
        return answers

    async def _ask(self, prompt: str, *, echo: bool = False) -> str | None:
        if self.finished:
            return None
        answer = await self.asking(prompt, echo=echo)
        if answer is None:
            self.finished = True
        return answer
