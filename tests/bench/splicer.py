"""What the kernel can do: a relay by splice(2) and nothing else, a thread for each direction (Linux).

    python -m tests.bench.splicer ADDRESS PORT [HOST:PORT]

With HOST:PORT every connection goes there: that is the bound no relay between two sockets can beat.  Without
it is an upstream proxy that costs next to nothing, HTTP CONNECT and SOCKS5 on one port, for literal IPv4
addresses and names.  Says `ready`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sys
import threading

_PIPE = 1 << 20


def pump(source: socket.socket, sink: socket.socket) -> None:
    """All that comes, then the EOF."""
    read, write = os.pipe()
    try:
        size = fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PIPE)
        with contextlib.suppress(OSError):
            while got := os.splice(source.fileno(), write, size, flags=os.SPLICE_F_MOVE):
                while got:
                    got -= os.splice(read, sink.fileno(), got, flags=os.SPLICE_F_MOVE)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
    finally:
        os.close(read)
        os.close(write)


def asked(peer: socket.socket) -> tuple[tuple[str, int], bytes]:
    """Where a client wants to go, and what it is told once that is reached."""
    if peer.recv(1, socket.MSG_PEEK) == b"\x05":
        peer.recv(2 + peer.recv(2, socket.MSG_PEEK)[1])
        peer.sendall(b"\x05\x00")
        kind = peer.recv(4, socket.MSG_WAITALL)[3]
        length = 4 if kind == 1 else peer.recv(1)[0]
        name = peer.recv(length, socket.MSG_WAITALL)
        host = socket.inet_ntoa(name) if kind == 1 else name.decode()
        port = int.from_bytes(peer.recv(2, socket.MSG_WAITALL))
        return (host, port), b"\x05\x00\x00\x01\0\0\0\0\0\0"
    head = b""
    while b"\r\n\r\n" not in head:  # a client that speaks first waits for the answer
        piece = peer.recv(65536)
        if not piece:
            raise ConnectionError
        head += piece
    host, _, port_text = head.split()[1].decode().rpartition(":")
    return (host, int(port_text)), b"HTTP/1.1 200 OK\r\n\r\n"


def serve(peer: socket.socket, target: tuple[str, int] | None) -> None:
    """One connection."""
    with peer, contextlib.suppress(OSError, IndexError, ValueError):
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        words = b""
        if target is None:
            target, words = asked(peer)
        with socket.create_connection(target) as far:
            far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.sendall(words)
            up = threading.Thread(target=pump, args=(peer, far), daemon=True)
            up.start()
            pump(far, peer)
            up.join()


def main() -> None:
    """Serve until killed."""
    target = None
    if len(sys.argv) > 3:
        host, _, port = sys.argv[3].rpartition(":")
        target = host, int(port)
    listener = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=1024)
    print("ready", flush=True)
    while True:
        peer, _ = listener.accept()
        threading.Thread(target=serve, args=(peer, target), daemon=True).start()


if __name__ == "__main__":
    main()
