"""The cast: which servers of strange.py there are in the world of the faults, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.faults.places import (
    BLOCK_PAGE,
    COMPANY,
    DOH,
    HONEST,
    HOPS,
    LIAR,
    OTHER,
    PLACES,
    PRIVATE,
    STRANGE,
)
from tests.lab.pki import Authority

Server = dict[str, Any]
_SAID = "HTTP/1.1 {}\r\n{}Content-Length: 5\r\n\r\nsorry"
_HTML = "<!DOCTYPE html><html><head><title>Hotspot</title></head><body>Log in, please.</body></html>"
_PAGE = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(_HTML)}\r\n\r\n{_HTML}"


def of_world(
    ours: Authority, theirs: Authority, *, root: Path, table: Path, honest: Path, questions: Path
) -> list[Server]:
    """Those that the client takes for the world; `questions` gets what public resolvers are asked."""

    def tls(name: str, authority: Authority, *sans: str, days: tuple[int, int] = (-1, 30)) -> Server:
        made = authority.issue(*(sans or ("proxy.golang.org",)), days=days)
        address = STRANGE.get(name, name)
        return {"address": address, "port": 443, "cert": str(made.cert), "key": str(made.key)}

    many = tuple(f"host{number}.some-long-name.example.net" for number in range(120))
    files = {"mode": "files", "root": str(root)}
    servers: list[Server] = [
        {"mode": "names", "address": LIAR, "port": 53, "table": str(table)},
        {"mode": "names", "address": HONEST, "port": 53, "table": str(honest)},
        tls("intercepted", theirs) | files,
        tls("expired", ours, days=(-30, -2)) | files,
        tls("wrong-name", ours, "www.example.net") | files,
        tls("clock", ours, days=(8, 30)) | files | {"days": 10},
        tls("clock-ahead", ours, days=(-60, -20)) | files | {"days": -40},
        tls("fat", ours, "proxy.golang.org", *many) | files,
        tls("cdn", ours) | files,
        tls("hang", ours) | {"mode": "silent"},
        tls(OTHER, ours, "www.example.net") | files,
        tls(PRIVATE, ours, *COMPANY) | files,
        {"address": PRIVATE, "port": 8081} | files,
        tls(BLOCK_PAGE, theirs, "block.isp.example") | files,
        tls("login", ours) | _login("proxy.golang.org", ours),
        tls(PLACES["code.corp.example"], ours, "code.corp.example")
        | _login("git.corp.example", ours) | {"port": 8443},
        {"mode": "silent", "address": STRANGE["silent"], "port": 443},
        {"mode": "sni", "address": STRANGE["sni"], "port": 443, "name": "proxy.golang.org"},
        {"mode": "say", "address": STRANGE["plain"], "port": 443,
         "answer": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"},
        {"mode": "say", "address": STRANGE["hotspot"], "port": 80,
         "answer": _PAGE},
    ]  # fmt: skip
    for name, address in DOH.items():
        about = {"mode": "doh", "table": str(honest), "questions": str(questions)}
        servers.append(tls(address, ours, name) | about)
    return servers


def _login(name: str, authority: Authority) -> Server:
    """Asks for a user and a password before it passes on to `name`."""
    return {"mode": "login", "to": PLACES[name], "name": name, "ca": str(authority.cert)}


def of_hops() -> list[Server]:
    """Way stations that go wrong, by port."""
    negotiate = _SAID.format("407 Proxy Authentication Required", "Proxy-Authenticate: Negotiate\r\n")
    servers: list[Server] = [
        {"port": 3001, "mode": "say", "answer": negotiate},
        {"port": 3002, "mode": "say", "answer": _SAID.format("403 Forbidden", "")},
        {"port": 3003, "mode": "say", "answer": _SAID.format("404 Not Found", "Server: nginx\r\n")},
        {"port": 3004, "mode": "silent"},
        {"port": 3005, "mode": "socks"},
        {"port": 3006, "mode": "say", "answer": _SAID.format("502 Bad Gateway", "")},
        {"port": 3007, "mode": "say", "answer": ""},
    ]
    return [{"address": HOPS} | server for server in servers]
