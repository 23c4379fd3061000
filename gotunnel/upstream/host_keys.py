"""Host keys: known_hosts files looked up, and what an untrusted key means.

Rules:
- OpenSSH's semantics (sshd(8) "SSH_KNOWN_HOSTS FILE FORMAT"): the name as typed, or HostKeyAlias, decides;
  `[name]:port` for another port than 22; an address entry never vouches for a name (asyncssh's own matching
  would let it, so that is not used).  Hashed names, `@cert-authority` and `@revoked` are honoured.
- A line that can't be read is passed over, as OpenSSH does; it never opens the door.
- `accept-new` appends the key in one write; `no` is the only mode that accepts a changed key.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncssh

Lookup = tuple[Any, Any, Any, Any, Any, Any, Any]


@dataclass(slots=True)
class HostKeyCheck:
    """One server's key check; `offered` and `known` are filled in by a handshake.

    `files` are the user's files (the first is the one that `accept-new` appends to), then the system's;
    `text` is known_hosts text given instead (GOTUNNEL_SSH_KNOWN_HOSTS).
    """

    name: str
    port: int
    mode: str  # yes, accept-new, no
    files: Sequence[str] = ()
    text: str = ""
    offered: asyncssh.SSHKey | None = field(default=None, init=False)
    known: list[asyncssh.SSHKey] = field(default_factory=list, init=False)
    revoked: bool = field(default=False, init=False)

    def lookup(self) -> Lookup:
        """What the files say of this host, in the seven parts that asyncssh wants."""
        import asyncssh

        hosts = asyncssh.SSHKnownHosts()
        for text in [self.text] if self.text else [_read(path) for path in self.files]:
            for line in text.splitlines():
                try:
                    hosts.load(line)
                except (ValueError, asyncssh.Error):
                    continue
        found = hosts.match(self.name, "", None if self.port == 22 else self.port)
        self.known = list(found[0])
        self._revoked_keys = list(found[2])
        return found

    _revoked_keys: list[Any] = field(default_factory=list, init=False)

    def algorithms(self) -> list[str]:
        """Host key algorithms in order of preference: of the keys we know first, as OpenSSH does.

        Without that a server with several keys offers one that we don't know.
        """
        from asyncssh.public_key import get_default_certificate_algs, get_default_public_key_algs

        known = [alg for key in self.known for alg in key.sig_algorithms]
        every = [*get_default_certificate_algs(), *known, *get_default_public_key_algs()]
        return list(dict.fromkeys(alg.decode("ascii") for alg in every))

    def judge(self, key: asyncssh.SSHKey) -> bool:
        """Is a key that no file vouches for accepted all the same?"""
        self.offered = key
        if self.mode == "no":
            return True
        if self.mode == "accept-new" and not self._changed(key):
            self._remember(key)
            return True
        return False

    def _changed(self, key: asyncssh.SSHKey) -> bool:
        return any(known.algorithm == key.algorithm for known in self.known)

    @property
    def entry(self) -> str:
        """The host as known_hosts writes it."""
        return self.name if self.port == 22 else f"[{self.name}]:{self.port}"

    def _remember(self, key: asyncssh.SSHKey) -> None:
        if not self.files:
            return
        line = f"{self.entry} {key.export_public_key().decode('ascii').split(' #')[0].strip()}\n"
        path = Path(self.files[0])
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        before = _read(self.files[0])
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as file:
            file.write(line if not before or before.endswith("\n") else "\n" + line)
        self.known.append(key)

    def refusal(self, address: str) -> tuple[str, str]:
        """(finding, one line) for a handshake that was refused for its host key."""
        path = self.files[0] if self.files else "~/.ssh/known_hosts"
        key = self.offered
        if key is None:
            return "ssh.host-key-unknown", f"the host key of {self.entry} can't be verified"
        print_ = f"{_kind(key)} {key.get_fingerprint()}"
        if self._changed(key):
            return (
                "ssh.host-key-changed",
                f"the host key of {self.entry} has CHANGED (now {print_}): someone may be listening in, or "
                "the server was reinstalled; ask its administrator, then: "
                f"ssh-keygen -R {shlex.quote(self.entry)}"
                + (f" -f {shlex.quote(path)}" if self.files else ""),
            )
        scan = f"ssh-keyscan {f'-p {self.port} ' if self.port != 22 else ''}{address}"
        return (
            "ssh.host-key-unknown",
            f"the host key of {self.entry} ({print_}) is not known; compare it, then: {scan} >> {path}",
        )


def _kind(key: asyncssh.SSHKey) -> str:
    return key.algorithm.decode("ascii").removeprefix("ssh-").split("-")[0].upper()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
