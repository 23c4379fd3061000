"""Real proxies: tinyproxy (HTTP, CONNECT to any port) and microsocks (SOCKS5), open or with a password.

Rules:
- Names are resolved by the proxy, with the resolver of the namespace it runs in.
- The passwords are the lab's own and no secrets.
"""

from __future__ import annotations

from pathlib import Path

from tests.lab import proc
from tests.lab.proc import Place


class _Proxy(proc.Service):
    scheme = ""
    program = ""

    def __init__(
        self,
        directory: Path,
        *,
        place: Place | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
        listen: str | None = None,
        user: str = "",
        password: str = "",
    ) -> None:
        super().__init__(directory, place=place, address=address, port=port, listen=listen)
        self.user, self.password = user, password

    @property
    def url(self) -> str:
        """Its URL, with user and password where it wants these."""
        login = f"{self.user}:{self.password}@" if self.user else ""
        return f"{self.scheme}://{login}{self.address}:{self.port}"

    @classmethod
    def available(cls) -> tuple[bool, str]:
        """Whether the program is installed; else why not, in one line."""
        found = proc.tool(cls.program) is not None
        return found, "" if found else f"not installed: {cls.program}"


class HttpProxy(_Proxy):
    """A tinyproxy."""

    scheme = "http"
    program = "tinyproxy"

    def _argv(self) -> list[str]:
        lines = [
            f"Listen {self.listen}",
            f"Port {self.port}",
            "Timeout 600",
            "MaxClients 512",
            "LogLevel Connect",
        ]
        if self.user:
            lines.append(f"BasicAuth {self.user} {self.password}")
        config = self.directory / "tinyproxy.conf"
        config.write_text("\n".join(lines) + "\n")
        return [proc.need_tool(self.program), "-d", "-c", str(config)]


class SocksProxy(_Proxy):
    """A microsocks; it resolves at its end whatever the client calls the scheme."""

    scheme = "socks5h"
    program = "microsocks"

    def _argv(self) -> list[str]:
        login = ["-u", self.user, "-P", self.password] if self.user else []
        return [proc.need_tool(self.program), "-i", self.listen, "-p", str(self.port), *login]
