"""The keys that are offered to a jump host, in order, and why one could not be used.

Rules:
- Order: identities that were named, then the agent's, then the default files; with IdentitiesOnly the agent
  gives only what is named.  Each offer costs one of the server's MaxAuthTries.
- An agent that doesn't answer (a forwarded one whose connection died) is passed over after AGENT_TIMEOUT.
- An encrypted key is used by the agent if it holds it; otherwise somebody is asked for its passphrase, once:
  at once for one that was named, for a default file only after all other keys were refused (`more`).  Where
  nobody can be asked the key is unusable and remembered as the reason.
"""

from __future__ import annotations

import asyncio
import binascii
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gotunnel.address import one_line
from gotunnel.dataclass import dataclass
from gotunnel.upstream.ssh_plan import SshPlan
from gotunnel.upstream.ssh_prompts import Prompts

if TYPE_CHECKING:
    import asyncssh

AGENT_TIMEOUT = 3.0
_UNLOCKED = b"openssh-key-v1\0\0\0\0\4none"


@dataclass(slots=True)
class Keys:
    """Key pairs to offer; `unusable` says in words which files could not be; close after the handshake."""

    pairs: list[Any] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    agent: asyncssh.SSHAgentClient | None = None
    locked: list[str] = field(default_factory=list)  # encrypted files that nobody was asked for yet
    asked: bool = False  # somebody typed a passphrase, now or for an earlier connection

    async def more(self, plan: SshPlan, prompts: Prompts) -> list[Any]:
        """The pairs of the next encrypted file that can be unlocked; [] if there is none."""
        while self.locked:
            if pairs := await _unlock(self.locked.pop(0), plan, self, prompts):
                self.pairs += pairs
                return pairs
        return []

    def close(self) -> None:
        """Let go of the agent."""
        if self.agent is not None:
            self.agent.close()


def may_ask(plan: SshPlan, prompts: Prompts) -> bool:
    """Might `gather` ask somebody?  Only for a named file that isn't plainly unlocked."""
    if prompts.finished or plan.key_text or not plan.explicit_identities or "publickey" not in plan.methods:
        return False
    return not all(path.endswith(".pub") or _plainly_unlocked(path) for path in plan.identities)


def _plainly_unlocked(path: str) -> bool:
    """Read without asyncssh: OpenSSH's own form, with the cipher `none` (its PROTOCOL.key)."""
    try:
        with open(path, "rb") as file:
            first, _, rest = file.read(200).partition(b"\n")
        head = binascii.a2b_base64(rest[:64])
    except (OSError, ValueError):
        return False
    return first.strip() == b"-----BEGIN OPENSSH PRIVATE KEY-----" and head.startswith(_UNLOCKED)


async def gather(plan: SshPlan, prompts: Prompts | None = None) -> Keys:
    """The keys for one handshake; never raises for a key that can't be used."""
    keys = Keys()
    try:
        if "publickey" in plan.methods:
            await _gather(plan, prompts or Prompts(plan), keys)
    except BaseException:  # cancelled while somebody was asked
        keys.close()
        raise
    return keys


async def _gather(plan: SshPlan, prompts: Prompts, keys: Keys) -> None:
    import asyncssh

    if plan.key_text:
        try:
            keys.pairs += asyncssh.load_keypairs([asyncssh.import_private_key(plan.key_text)])
        except ValueError as error:  # KeyImportError and KeyEncryptionError are
            keys.unusable.append(f"GOTUNNEL_SSH_KEY: {one_line(str(error), 100)}")
        return
    agent_pairs = await _agent(plan, keys)
    from_files: list[Any] = []
    for path in plan.identities:
        pairs = _file(path, plan, keys, agent_pairs)
        if pairs is not None:
            from_files += pairs
        elif plan.explicit_identities:
            from_files += await _unlock(path, plan, keys, prompts)
        else:
            keys.locked.append(path)
    if plan.identities_only or plan.explicit_identities:
        held = {pair.public_data for pair in agent_pairs}
        named = {_public(path) for path in plan.identities}
        first = [pair for pair in agent_pairs if pair.public_data in named]
        rest = [] if plan.identities_only else [p for p in agent_pairs if p.public_data not in named]
        keys.pairs += first + [p for p in from_files if p.public_data not in held] + rest
    else:
        keys.pairs += agent_pairs + from_files


async def _agent(plan: SshPlan, keys: Keys) -> list[Any]:
    import asyncssh

    if not plan.identity_agent:
        return []
    try:
        async with asyncio.timeout(AGENT_TIMEOUT):
            keys.agent = await asyncssh.connect_agent(plan.identity_agent)
            return list(await keys.agent.get_keys())
    except (OSError, asyncssh.Error, ValueError):  # TimeoutError is an OSError
        return []  # an agent that isn't there is no error, as in ssh


def _file(path: str, plan: SshPlan, keys: Keys, held: list[Any]) -> list[Any] | None:
    """The pairs of an identity, [] for none, None where it wants a passphrase."""
    import asyncssh

    if path.endswith(".pub"):
        return []  # names a key of the agent
    if not Path(path).is_file():
        if plan.explicit_identities:
            keys.unusable.append(f"{path}: no such file")
        return []
    if (public := _public(path)) and any(pair.public_data == public for pair in held):
        return []  # the agent has it, perhaps unlocked where the file is not
    try:
        return _load(path, None, plan)
    except asyncssh.KeyImportError as error:
        if "passphrase" not in str(error).lower() and "encrypt" not in str(error).lower():
            keys.unusable.append(f"{path}: {one_line(str(error), 100)}")
            return []
    except (OSError, ValueError) as error:
        keys.unusable.append(f"{path}: {getattr(error, 'strerror', None) or one_line(str(error), 100)}")
        return []
    return None


async def _unlock(path: str, plan: SshPlan, keys: Keys, prompts: Prompts) -> list[Any]:
    try:
        pairs = await prompts.passphrase(path, lambda typed: _load(path, typed, plan))
    except ValueError:
        keys.unusable.append(f"{path}: wrong passphrase")
        return []
    except OSError as error:  # it went meanwhile
        keys.unusable.append(f"{path}: {error.strerror}")
        return []
    if pairs is None:
        why = "nobody gave it" if prompts.asking.possible else "there is no terminal to ask on"
        keys.unusable.append(f"{path}: wants a passphrase and {why}; unlock it with: ssh-add {path}")
        return []
    keys.asked = True
    return pairs


def _load(path: str, passphrase: str | None, plan: SshPlan) -> list[Any]:
    import asyncssh

    certificates = [c for c in plan.certificates if Path(c).is_file()]
    return list(asyncssh.load_keypairs([path], passphrase, certificates, ignore_encrypted=False))


def _public(path: str) -> bytes:
    """The public part of an identity, by its .pub file; b"" where there is none."""
    import asyncssh

    try:
        return asyncssh.read_public_key(path if path.endswith(".pub") else path + ".pub").public_data
    except (OSError, asyncssh.Error, ValueError):
        return b""
