"""A real squid: CONNECT to any port, with basic, digest or ntlm logins, in clear or inside TLS.

Rules:
- It runs in the foreground as the invoking user, or if that is root, whom squid refuses, as Debian's `proxy`;
  its files are in a directory below /tmp for that user, since tests' own are closed to others.
- Nothing is cached.
- https_port wants Debian's package squid-openssl; `can_serve_tls` tells.
- The passwords are the lab's own and no secrets.  Its ntlm helper admits any user with any password: what it
  shows is the handshake.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.lab import proc
from tests.lab.pki import Certificate
from tests.lab.proc import Place

_HELPERS = Path("/usr/lib/squid")
_USER = "proxy"
_REALM = "lab, Ltd"  # a comma, to be read right (squid can't do quotes)


def can_run_squid() -> tuple[bool, str]:
    """Whether squid and its login helpers are installed; else why not, in one line."""
    missing = [] if proc.tool("squid") else ["squid"]
    names = ("basic_ncsa_auth", "digest_file_auth", "ntlm_fake_auth")
    missing += [name for name in names if not (_HELPERS / name).exists()]
    return not missing, f"not installed: {', '.join(missing)} (squid-openssl)" * bool(missing)


def can_serve_tls() -> tuple[bool, str]:
    """Whether this squid has OpenSSL, without which it serves no https_port to our liking."""
    able, reason = can_run_squid()
    if not able:
        return able, reason
    able = "--with-openssl" in proc.run([proc.need_tool("squid"), "-v"]).stdout
    return able, "" if able else "squid has no OpenSSL (install squid-openssl)"


class Squid(proc.Service):
    """A squid.  `schemes` of basic, digest, ntlm are offered in this order; none: open to all.

    With `certificate` it is an https proxy, which with `client_ca` admits only certificates of that CA.
    """

    def __init__(
        self,
        directory: Path,
        *,
        place: Place | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
        listen: str | None = None,
        schemes: Sequence[str] = (),
        user: str = "dev",
        password: str = "lab,secret",
        certificate: Certificate | None = None,
        client_ca: Path | None = None,
        nonce_uses: int = 50,
    ) -> None:
        super().__init__(directory, place=place, address=address, port=port, listen=listen)
        self.schemes, self.user, self.password = tuple(schemes), user, password
        self.certificate, self.client_ca = certificate, client_ca
        self.nonce_uses = nonce_uses
        self._home = Path(tempfile.mkdtemp(prefix="gt-squid-"))
        self._access = self._home / "access.log"
        self._service = f"gt{os.urandom(6).hex()}"  # names its shared memory, which two may not share

    def _argv(self) -> list[str]:
        config = self._home / "squid.conf"
        config.write_text("\n".join([*self._listener(), *self._logins(), *self._settings()]) + "\n")
        if os.geteuid() == 0:
            for path in (self._home, *self._home.iterdir()):
                shutil.chown(path, _USER)
        return [proc.need_tool("squid"), "-N", "-d", "1", "-n", self._service, "-f", str(config)]

    def stop(self) -> None:
        """Kill it: in good order it takes two seconds even without clients, and it has nothing to keep."""
        self.kill()

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._home, ignore_errors=True)
        for segment in Path("/dev/shm").glob(f"{self._service}-*"):  # what a killed one leaves
            segment.unlink(missing_ok=True)

    def _listener(self) -> list[str]:
        host = f"[{self.listen}]" if ":" in self.listen else self.listen
        if self.certificate is None:
            return [f"http_port {host}:{self.port}"]
        words = [f"https_port {host}:{self.port}"]
        files = {"tls-cert": self.certificate.cert, "tls-key": self.certificate.key}
        if self.client_ca is not None:
            files["clientca"] = self.client_ca
        for option, path in files.items():
            words.append(f"{option}={shutil.copy(path, self._home)}")
        return [" ".join(words)]

    def _logins(self) -> list[str]:
        if not self.schemes:
            return ["http_access allow all"]
        secrets = self._home / "basic.txt"
        hashed = hashlib.md5(self.password.encode()).hexdigest()
        secrets.write_text(f"{self.user}:{hashed}\n")
        plain = self._home / "digest.txt"
        plain.write_text(f"{self.user}:{self.password}\n")
        offers = {
            "basic": [f"program {_HELPERS}/basic_ncsa_auth {secrets}", f"realm {_REALM}"],
            "digest": [
                f"program {_HELPERS}/digest_file_auth {plain}",
                f"realm {_REALM}",
                f"nonce_max_count {self.nonce_uses}",
            ],
            "ntlm": [f"program {_HELPERS}/ntlm_fake_auth", "keep_alive on"],
        }
        lines = [f"auth_param {scheme} {line}" for scheme in self.schemes for line in offers[scheme]]
        lines += [f"auth_param {scheme} children 2 startup=1 idle=1" for scheme in self.schemes]
        return [*lines, "acl known proxy_auth REQUIRED", "http_access allow known", "http_access deny all"]

    def _settings(self) -> list[str]:
        settings = [
            "pid_filename none",
            f"access_log stdio:{self._access}",
            f"cache_log {self._home}/cache.log",
            "logfile_rotate 0",
            "buffered_logs off",
            "cache deny all",
            "cache_mem 8 MB",
            "max_filedescriptors 4096",
            "pinger_enable off",
            "netdb_filename none",
            "shutdown_lifetime 0 seconds",
            "visible_hostname lab",
            f"udp_incoming_address {self.listen}",  # else its resolver's sockets are on every address
            f"coredump_dir {self._home}",
        ]
        if os.geteuid() == 0:
            settings.append(f"cache_effective_user {_USER}")
        return settings

    def access_log(self) -> list[str]:
        """A line for each request that has ended."""
        return self._access.read_text().splitlines() if self._access.exists() else []
