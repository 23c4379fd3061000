"""Host keys: known_hosts files looked up, and what an untrusted key means.

Rules:
- OpenSSH's semantics (sshd(8) "SSH_KNOWN_HOSTS FILE FORMAT"): the name as typed, or HostKeyAlias, decides;
  `[name]:port` for another port than 22; an address entry never vouches for a name (asyncssh's own matching
  would let it, so that is not used).  Hashed names, `@cert-authority` and `@revoked` are honoured.
- A line that can't be read is passed over, as OpenSSH does; it never opens the door.
- A key of another type than the known ones is a changed key, as in OpenSSH: else whoever sits between could
  offer a type that we don't know.
- `accept-new` appends the key in one write; `no` is the only mode that accepts a changed key.
- `ask` is `yes` here: whoever may ask a person does so afterwards (`may_be_asked`, `accept`).
"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gotunnel.address import HostPort
from gotunnel.dataclass import dataclass

if TYPE_CHECKING:
    import asyncssh

_log = logging.getLogger("gotunnel.ssh")

Lookup = tuple[Any, Any, Any, Any, Any, Any, Any]


@dataclass(slots=True)
class HostKeyCheck:
    """One server's key check; `offered`, `known` and `authorities` are filled in by a handshake.

    `name` is HostKeyAlias (then `port` is 22: OpenSSH looks an alias up without a port) or the host name.
    `files` are the user's files (the first is the one that `accept-new` appends to), then the system's;
    `text` is known_hosts text given instead (GOTUNNEL_SSH_KNOWN_HOSTS).
    """

    name: str
    port: int
    mode: str  # yes, ask, accept-new, no
    files: Sequence[str] = ()
    text: str = ""
    accepted: str = ""  # the fingerprint that a person has said yes to
    offered: asyncssh.SSHKey | None = field(default=None, init=False)
    known: list[asyncssh.SSHKey] = field(default_factory=list, init=False)
    elsewhere: list[asyncssh.SSHKey] = field(default_factory=list, init=False)  # known for port 22
    authorities: list[asyncssh.SSHKey] = field(default_factory=list, init=False)

    def lookup(self) -> Lookup:
        """What the files say of this host, in the seven parts that asyncssh wants.

        An entry of the bare name counts for another port only where that port has none of its own; a key
        revoked under either is revoked (asyncssh's own fall-back would forget the first).
        """
        import asyncssh

        hosts = asyncssh.SSHKnownHosts()
        for text in [self.text] if self.text else [_read(path) for path in self.files]:
            for line in text.splitlines():
                try:
                    hosts.load(_readable(line))
                except (ValueError, asyncssh.Error):
                    continue
        keys, authorities, revoked = hosts.match(self.entry.lower(), "", None)[:3]
        self.known, self.elsewhere = list(keys), []
        if self.port != 22:
            bare = hosts.match(self.name.lower(), "", None)
            revoked = [*revoked, *bare[2]]
            if not keys and not authorities:
                authorities = bare[1]
                self.elsewhere = list(bare[0])
        self.authorities = list(authorities)
        return [*self.known, *self.elsewhere], self.authorities, list(revoked), [], [], [], []

    def algorithms(self) -> list[str]:
        """Host key algorithms in order of preference: of the keys we know first, as OpenSSH does.

        Without that a server with several keys offers one that we don't know.  Certificates are asked for
        only where an authority is known: a server that has one would show it in place of a key we know.
        """
        from asyncssh.public_key import get_default_certificate_algs, get_default_public_key_algs

        certified = get_default_certificate_algs() if self.authorities else []
        known = [alg for key in (*self.known, *self.elsewhere) for alg in key.sig_algorithms]
        every = [*certified, *known, *get_default_public_key_algs()]
        return list(dict.fromkeys(alg.decode("ascii") for alg in every))

    def judge(self, key: asyncssh.SSHKey) -> bool:
        """Is a key that no file vouches for accepted all the same?"""
        self.offered = key
        if self.mode == "no" or (not self.known and key.get_fingerprint() == self.accepted):
            return True
        if self.mode == "accept-new" and not self.known:
            self._remember(key)
            return True
        return False

    @property
    def may_be_asked(self) -> bool:
        """Was a key refused that a person may decide on: one that is merely new?"""
        return self.mode == "ask" and self.offered is not None and not self.known and not self.text

    @property
    def fingerprint(self) -> str:
        """Of the key that the server showed; "" before it has."""
        return "" if self.offered is None else self.offered.get_fingerprint()

    @property
    def kind(self) -> str:
        """Of the key that the server showed, as ssh names it: ED25519."""
        return "" if self.offered is None else _kind(self.offered)

    def accept(self) -> None:
        """A person has said yes to the key that was refused: it is kept."""
        assert self.offered is not None
        self.accepted = self.fingerprint
        self._remember(self.offered)

    @property
    def entry(self) -> str:
        """The host as known_hosts writes it."""
        return self.name if self.port == 22 else f"[{self.name}]:{self.port}"

    def _remember(self, key: asyncssh.SSHKey) -> None:
        if self.text or not self.files:
            return
        line = f"{self.entry} {key.export_public_key().decode('ascii').split(' #')[0].strip()}\n"
        path = Path(self.files[0])
        before = _read(self.files[0])
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as file:
                file.write(line if not before or before.endswith("\n") else "\n" + line)
        except OSError as error:  # a read-only home: accepted all the same, as by ssh
            _log.debug("%s: the new host key could not be kept in %s: %s", self.entry, path, error.strerror)

    def refusal(self, address: HostPort) -> tuple[str, str]:
        """(finding, one line) for the server at `address`, whose host key was refused."""
        path = self.files[0] if self.files else os.path.expanduser("~/.ssh/known_hosts")
        key = self.offered
        if key is None:
            return "ssh.host-key-unknown", f"the host key of {self.entry} can't be verified"
        print_ = f"{_kind(key)} {key.get_fingerprint()}"
        if self.known:
            return (
                "ssh.host-key-changed",
                f"the host key of {self.entry} has CHANGED (now {print_}): someone may be listening in, or "
                "the server was reinstalled; ask its administrator, then: "
                f"ssh-keygen -R {shlex.quote(self.entry)}"
                + (f" -f {shlex.quote(path)}" if self.files else ""),
            )
        scan = f"ssh-keyscan {f'-p {address.port} ' if address.port != 22 else ''}{shlex.quote(address.host)}"
        if self.entry.lower() != HostKeyCheck(address.host, address.port, "").entry.lower():  # HostKeyAlias
            scan += " | sed " + shlex.quote(f"s/^[^ #]*/{self.entry}/")
        return (
            "ssh.host-key-unknown",
            f"the host key of {self.entry} ({print_}) is not known; compare it, then: "
            f"{scan} >> {shlex.quote(path)}",
        )


def _readable(line: str) -> str:
    """A line with its names in lower case, as OpenSSH compares them; "" where an empty name is among them.

    asyncssh would take an empty name for one that matches every host.
    """
    words = line.split(None, 2)
    place = 1 if line.lstrip().startswith("@") else 0
    if len(words) <= place or words[place].startswith("|"):
        return line
    names = words[place].lower()
    if "" in names.split(","):
        return ""
    return line.replace(words[place], names, 1)


def _kind(key: asyncssh.SSHKey) -> str:
    return key.algorithm.decode("ascii").removeprefix("ssh-").split("-")[0].upper()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
