"""Client keys and an agent, by ssh-keygen, ssh-agent and ssh-add."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.lab import proc
from tests.lab.proc import LabError


@dataclass(frozen=True, slots=True)
class Key:
    """A key pair in files; `public` is the text of FILE.pub, without its newline."""

    private: Path
    public: str
    passphrase: str = ""


def new_key(path: Path, *, kind: str = "ed25519", passphrase: str = "") -> Key:
    """Make a key pair at `path` and `path`.pub, in place of one that is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    public = Path(f"{path}.pub")
    for old in (path, public):
        old.unlink(missing_ok=True)
    size = ["-b", "2048"] if kind == "rsa" else []
    proc.run([proc.need_tool("ssh-keygen"), "-q", "-t", kind, *size, "-N", passphrase,
              "-C", "gotunnel-lab", "-f", str(path)])  # fmt: skip
    return Key(path, public.read_text().strip(), passphrase)


class Agent(proc.Service):
    """A real ssh-agent; `env` leads clients to it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        # a Unix socket's path has at most 107 bytes, which a test's own directory may exceed
        self._socket_directory = Path(tempfile.mkdtemp(prefix="gt-agent-"))
        self.socket = self._socket_directory / "agent"

    @property
    def env(self) -> dict[str, str]:
        """SSH_AUTH_SOCK."""
        return {"SSH_AUTH_SOCK": str(self.socket)}

    def _argv(self) -> list[str]:
        return [proc.need_tool("ssh-agent"), "-D", "-a", str(self.socket)]

    def _await_ready(self, process: proc.Process) -> None:
        process.wait_ready("ssh-agent", self.socket.is_socket)

    def add(self, key: Key) -> None:
        """Hand it a key, decrypted where that has a passphrase."""
        ask = self.directory / "askpass"
        ask.write_text('#!/bin/sh\nprintf "%s\\n" "$GT_LAB_PASSPHRASE"\n')
        ask.chmod(0o700)
        environment = {"PATH": "/usr/bin:/bin", "GT_LAB_PASSPHRASE": key.passphrase} | self.env
        environment |= {"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":"}
        proc.run([proc.need_tool("ssh-add"), "-q", str(key.private)], env=environment)

    def stop(self) -> None:
        """End it and remove its socket."""
        super().stop()
        shutil.rmtree(self._socket_directory, ignore_errors=True)

    def restart(self) -> None:
        """An agent forgets its keys: not supported."""
        raise LabError("start a new agent instead")
