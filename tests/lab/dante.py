"""A real dante (danted): SOCKS 4 (not 4a's names) and 5 on one port, open to all."""

from __future__ import annotations

import os

from tests.lab import proc
from tests.lab.proxies import SocksProxy


class Dante(SocksProxy):
    """A danted without logins; it reaches what its own `address` can reach."""

    program = "danted"

    def _argv(self) -> list[str]:
        lines = [
            "logoutput: stderr",
            f"internal: {self.listen} port = {self.port}",
            f"external: {self.address}",
            "clientmethod: none",
            "socksmethod: none",
        ]
        if os.geteuid() == 0:
            lines += ["user.privileged: root", "user.unprivileged: nobody"]
        for rule in ("client pass", "socks pass"):
            lines.append(f"{rule} {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}")
        config = self.directory / "danted.conf"
        config.write_text("\n".join(lines) + "\n")
        return [proc.need_tool(self.program), "-f", str(config), "-p", str(self.directory / "pid")]
