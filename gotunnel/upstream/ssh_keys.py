"""The keys that are offered to a jump host, in order, and why one could not be used.

Rules:
- Order: identities that were named, then the agent's, then the default files; with IdentitiesOnly the agent
  gives only what is named.  Each offer costs one of the server's MaxAuthTries.
- An agent that doesn't answer (a forwarded one whose connection died) is passed over after AGENT_TIMEOUT.
- An encrypted key is used by the agent if it holds it; otherwise `ask` is called for its passphrase, once;
  where nobody can be asked the key is unusable and remembered as the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gotunnel.address import one_line
from gotunnel.upstream.ssh_plan import SshPlan

if TYPE_CHECKING:
    import asyncssh

Ask = Callable[[str], str | None]

AGENT_TIMEOUT = 3.0


@dataclass(slots=True)
class Keys:
    """Key pairs to offer; `unusable` says in words which files could not be; close after the handshake."""

    pairs: list[Any] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    agent: asyncssh.SSHAgentClient | None = None
    asked: bool = False  # somebody was asked for a passphrase

    def close(self) -> None:
        """Let go of the agent."""
        if self.agent is not None:
            self.agent.close()


async def gather(plan: SshPlan, ask: Ask | None = None) -> Keys:
    """The keys for one handshake; never raises for a key that can't be used."""
    import asyncssh

    keys = Keys()
    if plan.key_text:
        try:
            keys.pairs += asyncssh.load_keypairs([asyncssh.import_private_key(plan.key_text)])
        except ValueError as error:  # KeyImportError and KeyEncryptionError are
            keys.unusable.append(f"GOTUNNEL_SSH_KEY: {one_line(str(error), 100)}")
        return keys
    agent_pairs = await _agent(plan, keys)
    from_files: list[Any] = []
    for path in plan.identities:
        from_files += _file(path, plan, keys, agent_pairs, ask)
    if plan.identities_only or plan.explicit_identities:
        held = {pair.public_data for pair in agent_pairs}
        named = {_public(path) for path in plan.identities}
        first = [pair for pair in agent_pairs if pair.public_data in named]
        rest = [] if plan.identities_only else [p for p in agent_pairs if p.public_data not in named]
        keys.pairs += first + [p for p in from_files if p.public_data not in held] + rest
    else:
        keys.pairs += agent_pairs + from_files
    return keys


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


def _file(path: str, plan: SshPlan, keys: Keys, held: list[Any], ask: Ask | None) -> list[Any]:
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
    passphrase = ask(f"Passphrase for {path}: ") if ask is not None else None
    keys.asked = keys.asked or passphrase is not None
    if passphrase is None:
        keys.unusable.append(
            f"{path}: wants a passphrase and there is no terminal to ask on; unlock it with: ssh-add {path}"
        )
        return []
    try:
        return _load(path, passphrase, plan)
    except ValueError:
        keys.unusable.append(f"{path}: wrong passphrase")
        return []


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
