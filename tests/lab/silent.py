"""Servers that misbehave: `python -m tests.lab.silent ADDRESS PORT MODE`.

    silent    accepts and never says a word
    refuse    is not there: the port is taken but answers with a reset
    close     accepts and closes at once
    reset     accepts and resets at once
    garbage   accepts, sends 4 KiB of noise without a line end, closes
    banner    greets as an SSH server does and then says nothing

Rules:
- Each connection accepted is a line `accepted ADDRESS PORT` of the log.
- What a client sends is never read.
"""

from __future__ import annotations

import argparse
import random
import socket
import struct
import time
from pathlib import Path

from tests.lab import proc
from tests.lab.proc import Place

MODES = ("silent", "refuse", "close", "reset", "garbage", "banner")


class Silent(proc.PythonService):
    """Such a server, in a namespace or on loopback."""

    module = "silent"

    def __init__(
        self,
        directory: Path,
        mode: str,
        *,
        place: Place | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
        listen: str | None = None,
    ) -> None:
        super().__init__(directory, place=place, address=address, port=port, listen=listen)
        self.mode = mode

    def _arguments(self) -> list[str]:
        return [self.mode]

    def accepted(self) -> int:
        """How many connections it has accepted."""
        return self.log_text().count("accepted ")


def _misbehave(mode: str, peer: socket.socket) -> bool:
    """Treat one connection; True if it is to stay open."""
    if mode == "reset":
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif mode == "garbage":
        noise = random.Random(7).randbytes(8192).replace(b"\n", b"").replace(b"\r", b"")
        peer.sendall(noise[:4096])
    elif mode == "banner":
        peer.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")
    return mode in ("silent", "banner")


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("mode", choices=MODES)
    args = parser.parse_args()
    family = socket.AF_INET6 if ":" in args.address else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((args.address, args.port))
    if args.mode != "refuse":
        listener.listen(128)
    print("ready", flush=True)
    if args.mode == "refuse":
        while True:
            # the port stays ours, so that nobody else comes to listen on it
            time.sleep(3600)
    kept: list[socket.socket] = []
    while True:
        peer, address = listener.accept()
        print("accepted", address[0], address[1], flush=True)
        try:
            if _misbehave(args.mode, peer):
                kept.append(peer)
            else:
                peer.close()
        except OSError:
            peer.close()


if __name__ == "__main__":
    main()
