"""`gotunnel connect HOST PORT`: an ssh ProxyCommand, and git's (as `gotunnel-connect HOST PORT`).

Rules:
- Inside a run (GOTUNNEL_PROXY is set and no option names ways out) it asks that run's endpoint: one socket
  and two threads, nothing heavy is imported.
- Otherwise it opens the ways out itself.
- Standard output carries the target's bytes only.
"""

from __future__ import annotations

import argparse
import os
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
    if proxy and not args.via and args.config is None:
        return by_endpoint(target, proxy)
    from gotunnel.cli.connect_direct import run

    return run(args, target)


def git_proxy_main() -> NoReturn:
    """The one word that GIT_PROXY_COMMAND wants: called with HOST and PORT."""
    from gotunnel.cli.main import main as gotunnel

    sys.exit(gotunnel(["connect", *sys.argv[1:]]))


def _target(host: str, port: str) -> HostPort:
    try:
        return HostPort.parse(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except ValueError as error:
        raise UsageError(f"connect {error}") from None


class EndpointError(GotunnelError):
    """The endpoint said no, or isn't there."""

    status = NO_WAY_OUT


def by_endpoint(target: HostPort, proxy: str) -> int:
    """Through the endpoint of the run that we are in.  Raises EndpointError."""
    from base64 import b64encode

    userinfo, _, where = proxy.removeprefix("http://").rstrip("/").rpartition("@")
    try:
        endpoint = HostPort.parse(where)
        sock = socket.create_connection((endpoint.host, endpoint.port))
    except (ValueError, OSError) as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise EndpointError(
            f"the endpoint in GOTUNNEL_PROXY ({where}) can't be reached: {words}; is its run over?"
        ) from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    credential = b64encode(userinfo.encode()).decode()
    request = (
        f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic {credential}\r\n\r\n"
    )
    sock.sendall(request.encode())
    head = b""
    while b"\r\n\r\n" not in head:
        piece = sock.recv(4096)
        if not piece or len(head) > 65536:
            raise EndpointError(f"the endpoint in GOTUNNEL_PROXY ({where}) gave no answer to CONNECT")
        head += piece
    head, _, first = head.partition(b"\r\n\r\n")
    status, _, reason = head.partition(b"\r\n")[0].partition(b" ")[2].partition(b" ")
    if status != b"200":
        words = reason.decode("latin-1").removeprefix("gotunnel: ")
        raise EndpointError(one_line(words or f"status {status.decode('latin-1')}"))
    write_all(first)
    threading.Thread(target=_upload, args=(sock,), daemon=True).start()
    while data := _receive(sock):
        write_all(data)
    return 0


def _receive(sock: socket.socket) -> bytes:
    try:
        return sock.recv(_PIECE)
    except ConnectionError as error:
        raise EndpointError(f"the connection broke: {error.strerror}") from error


def _upload(sock: socket.socket) -> None:
    try:
        while data := os.read(0, _PIECE):
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        return


def write_all(data: bytes) -> None:
    """All of it to standard output; blocks."""
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]
