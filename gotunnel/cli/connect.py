"""`gotunnel connect HOST PORT`: an ssh ProxyCommand, and git's (as `gotunnel-connect HOST PORT`).

Rules:
- Inside a run (GOTUNNEL_PROXY is set and no option names ways out) it asks that run's endpoint, else that of
  a running serve: one socket and two threads, nothing heavy is imported.
- Otherwise it opens the ways out itself.
- Standard output carries the target's bytes only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import socket
import sys
import threading
from typing import NoReturn

from gotunnel.address import HostPort, one_line
from gotunnel.cli.options import add_ways
from gotunnel.errors import GotunnelError, UsageError

NO_WAY_OUT = 69
_PIECE = 256 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """HOST PORT and the ways out."""
    add_ways(parser)
    parser.add_argument("host", metavar="HOST")
    parser.add_argument("port", metavar="PORT")


def main(args: argparse.Namespace) -> int:
    """Join standard input and output to the target."""
    target = _target(args.host, args.port)
    proxy = os.environ.get("GOTUNNEL_PROXY", "")
    named = args.via or args.identity or args.ssh_config or args.known_hosts or args.config is not None
    if not named:
        proxy = proxy or _service()
        if proxy:
            return by_endpoint(target, proxy)
    from gotunnel.cli.connect_direct import run

    return run(args, target)


def _service() -> str:
    """The endpoint of a running serve of ours, "" where there is none or the environment names ways out."""
    if os.environ.get("GOTUNNEL_VIA"):
        return ""
    from gotunnel.cli.remote import find

    server = find(os.environ)
    if server is None:
        return ""
    if server.running is not None:
        return server.running.proxy
    return server.seen_from_here(str(server.ask("GET", "/api/environment")["proxy"]))


def git_proxy_main() -> NoReturn:
    """The one word that GIT_PROXY_COMMAND wants: called with HOST and PORT."""
    from gotunnel.cli.main import entry

    sys.exit(entry(["connect", *sys.argv[1:]]))


def _target(host: str, port: str) -> HostPort:
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        return HostPort.parse(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except ValueError as error:
        raise UsageError(f"connect {error}") from None


class EndpointError(GotunnelError):
    """The endpoint said no, or isn't there."""

    status = NO_WAY_OUT


def by_endpoint(target: HostPort, proxy: str) -> int:
    """Through the endpoint of the run that we are in.  Raises EndpointError."""
    userinfo, _, where = proxy.removeprefix("http://").rstrip("/").rpartition("@")
    try:
        endpoint = HostPort.parse(where)
        sock = socket.create_connection((endpoint.host, endpoint.port))
    except (ValueError, OSError) as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise EndpointError(
            f"the endpoint in GOTUNNEL_PROXY ({where}) can't be reached: {words}; is its run over?"
        ) from error
    with sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        write_all(_ask(sock, target, userinfo))
        threading.Thread(target=_upload, args=(sock,), daemon=True).start()
        while data := _receive(sock):
            write_all(data)
    return 0


def _ask(sock: socket.socket, target: HostPort, userinfo: str) -> bytes:
    """CONNECT; the first bytes of the target."""
    from base64 import b64encode
    from urllib.parse import unquote_to_bytes

    credential = b64encode(unquote_to_bytes(userinfo)).decode()
    request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
    request += f"Proxy-Authorization: Basic {credential}\r\n" if userinfo else ""
    with contextlib.suppress(OSError):  # then the answer, or its lack, says it
        sock.sendall(f"{request}\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        piece = _receive(sock)
        if not piece or len(head) > 65536:
            raise EndpointError("what listens at GOTUNNEL_PROXY gave no answer to CONNECT; is its run over?")
        head += piece
    head, _, first = head.partition(b"\r\n\r\n")
    status, _, reason = head.partition(b"\r\n")[0].partition(b" ")[2].partition(b" ")
    if status != b"200":
        words = reason.decode("latin-1").removeprefix("gotunnel: ")
        raise EndpointError(one_line(words or f"status {status.decode('latin-1')}"))
    return first


def _receive(sock: socket.socket) -> bytes:
    try:
        return sock.recv(_PIECE)
    except OSError as error:
        raise EndpointError(f"the connection broke: {error.strerror or error}") from error


def _upload(sock: socket.socket) -> None:
    try:
        while data := read_some(_PIECE):
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        return


def read_some(most: int) -> bytes:
    """From standard input; blocks.  b"" at its end, and where it is closed or broken."""
    while True:
        try:
            return os.read(0, most)
        except BlockingIOError:  # whoever gave it to us reads it without blocking
            select.select([0], [], [])
        except OSError:
            return b""


def write_all(data: bytes) -> None:
    """All of it to standard output; blocks.  Raises OSError."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(1, view) :]
        except BlockingIOError:
            select.select([], [1], [])
