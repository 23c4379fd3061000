"""Real OpenSSH servers of the current user, in the foreground, each with its own host key and files.

Rules:
- As root it is a jump host as they are; without root it runs on loopback and admits this user alone.
- Public keys only: `authorize` a key before connecting.
- Options given win over ours: sshd takes the first value it reads.
"""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.lab import proc
from tests.lab.keys import Key, new_key
from tests.lab.proc import Place


def can_run_sshd() -> tuple[bool, str]:
    """Whether OpenSSH's server and client are installed; else why not, in one line."""
    missing = [name for name in ("sshd", "ssh", "ssh-keygen") if proc.tool(name) is None]
    return (
        not missing,
        f"not installed: {', '.join(missing)} (openssh-server, openssh-client)" * bool(missing),
    )


def version() -> tuple[int, int]:
    """The version of OpenSSH, such as (9, 2)."""
    found = re.search(r"OpenSSH_(\d+)\.(\d+)", proc.run([proc.need_tool("ssh"), "-V"]).stderr)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _needs_pam() -> bool:
    """Whether sshd must leave the account to PAM, or else it takes it for locked and admits nobody.

    It does where the password field starts with `!`, and where /etc/shadow can't be read (OpenSSH 9.2
    of Debian, run without root).
    """
    try:
        lines = Path("/etc/shadow").read_text().splitlines()
    except PermissionError:
        return True
    except OSError:
        return False
    return any(line.startswith(f"{getpass.getuser()}:!") for line in lines)


class Sshd(proc.Service):
    """An sshd.  `options` are lines of sshd_config(5), e.g. {"AllowTcpForwarding": "no"}."""

    def __init__(
        self,
        directory: Path,
        *,
        place: Place | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
        listen: str | None = None,
        options: Mapping[str, str] | None = None,
        authorized: Iterable[Key] = (),
    ) -> None:
        super().__init__(directory, place=place, address=address, port=port, listen=listen)
        self.user = getpass.getuser()
        self.options = dict(options or {})
        self.host_key = new_key(directory / "host_key")
        self._authorized = directory / "authorized_keys"
        self._authorized.write_text("")
        for key in authorized:
            self.authorize(key)

    def authorize(self, key: Key, restrictions: str = "") -> None:
        """Admit a key from now on; `restrictions` as in sshd(8), e.g. `permitopen="host:443"`."""
        with self._authorized.open("a") as file:
            file.write(f"{restrictions} {key.public}\n".lstrip())

    def forget_keys(self) -> None:
        """Admit nobody from now on."""
        self._authorized.write_text("")

    def set_options(self, **options: str) -> None:
        """Use these options alone, and restart."""
        self.options = options
        self.restart()

    def _argv(self) -> list[str]:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # its privilege separation wants it
        host = f"[{self.listen}]" if ":" in self.listen else self.listen
        settings = {
            "ListenAddress": f"{host}:{self.port}",
            "HostKey": str(self.host_key.private),
            "AuthorizedKeysFile": str(self._authorized),
            "PermitRootLogin": "prohibit-password",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "UsePAM": "yes" if _needs_pam() else "no",
            "StrictModes": "no",
            "PidFile": "none",
            "LogLevel": "VERBOSE",
            "PrintMotd": "no",
        }  # fmt: skip
        if version() >= (9, 8):
            settings.setdefault("PerSourcePenalties", "no")  # tests fail to log in on purpose
        settings |= self.options
        config = self.directory / "sshd_config"
        config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        return [proc.need_tool("sshd"), "-D", "-e", "-f", str(config)]

    def known_hosts_line(self, *names: str) -> str:
        """The line of known_hosts for its address and `names`, for the host key that it has now."""
        hosts = [name if self.port == 22 else f"[{name}]:{self.port}" for name in (self.address, *names)]
        return f"{','.join(hosts)} {' '.join(self.host_key.public.split()[:2])}\n"

    def write_known_hosts(self, path: Path, *names: str) -> Path:
        """Append that line to a file; gives the file's path."""
        with path.open("a") as file:
            file.write(self.known_hosts_line(*names))
        return path

    def new_host_key(self) -> None:
        """Change the host key, and restart if it runs."""
        self.replace_host_key(new_key(self.directory / f"host_key_{os.urandom(4).hex()}"))

    def replace_host_key(self, key: Key) -> None:
        """Use another host key (or an earlier one again), and restart if it runs."""
        self.host_key = key
        if self.running:
            self.restart()

    def client_options(self, key: Key, known_hosts: Path) -> list[str]:
        """ssh(1) and its options to log in here with `key`, reading no configuration of the user's."""
        settings = [f"UserKnownHostsFile={known_hosts}", "GlobalKnownHostsFile=/dev/null", "BatchMode=yes",
                    "IdentitiesOnly=yes", "ConnectTimeout=10"]  # fmt: skip
        options = [word for setting in settings for word in ("-o", setting)]
        return [proc.need_tool("ssh"), "-F", "none", *options, "-i", str(key.private), "-p", str(self.port)]

    def client_argv(self, key: Key, known_hosts: Path, *options: str, command: str = "") -> list[str]:
        """A whole command line of ssh(1) to here, with more options and a command to run."""
        argv = [*self.client_options(key, known_hosts), *options, f"{self.user}@{self.address}"]
        return [*argv, command] if command else argv
