"""The far end of every tunnel: `python -m tests.bench.load ADDRESS PORT GREETING_PORT HOLD_PORT`, says
`ready`.

Rules:
- GREETING_PORT speaks first: one line, then it closes its side.  HOLD_PORT never says anything.  Both take
  thousands of connections.
- PORT is HTTP: `GET /N` gives N bytes of one random block over and over; `PUT` counts what it got and
  answers with the number.
- It copies as little as it can, so that the tunnel is what limits.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import threading
from collections.abc import Callable

GREETING = b"hello\n"
_BLOCK = os.urandom(1 << 20)


def crowd(listener: socket.socket, words: bytes) -> None:
    """Say `words` to everybody, if there are any, and wait for their end."""
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    listener.setblocking(False)
    peers: dict[int, socket.socket] = {}
    while True:
        for number, _ in poll.poll():
            with contextlib.suppress(OSError):
                if number == listener.fileno():
                    while True:
                        peer, _ = listener.accept()
                        poll.register(peer, select.EPOLLIN)
                        peers[peer.fileno()] = peer
                        if words:
                            peer.send(words)
                            peer.shutdown(socket.SHUT_WR)
                    continue
            try:
                over = not peers[number].recv(4096) if number in peers else False
            except BlockingIOError:
                over = False
            except OSError:
                over = True
            if over:
                peers.pop(number).close()


def stream(peer: socket.socket) -> None:
    """One request of a kind that curl makes."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = peer.recv(65536)
        if not piece:
            return
        head += piece
    head, _, body = head.partition(b"\r\n\r\n")
    method, path = head.split(b" ")[:2]
    if method == b"GET":
        left = int(path.strip(b"/"))
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % left)
        while left:
            left -= peer.send(_BLOCK if left >= len(_BLOCK) else _BLOCK[:left])
        return
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    if b"expect" in fields:
        peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    got, wanted = len(body), int(fields[b"content-length"])
    buffer = bytearray(1 << 20)
    while got < wanted and (count := peer.recv_into(buffer)):
        got += count
    text = b"%d" % got
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(text) + text)


def _serve(listener: socket.socket, handle: Callable[[socket.socket], None]) -> None:
    def one(peer: socket.socket) -> None:
        try:
            with peer:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                handle(peer)
        except OSError:
            return

    while True:
        peer, _ = listener.accept()
        threading.Thread(target=one, args=(peer,), daemon=True).start()


def main() -> None:
    """Serve until killed."""
    address, port, greeting_port, hold_port = sys.argv[1], *map(int, sys.argv[2:5])
    for number, words in ((greeting_port, GREETING), (hold_port, b"")):
        listener = socket.create_server((address, number), backlog=4096)
        threading.Thread(target=crowd, args=(listener, words), daemon=True).start()
    streamer = socket.create_server((address, port), backlog=256)
    print("ready", flush=True)
    _serve(streamer, stream)


if __name__ == "__main__":
    main()
