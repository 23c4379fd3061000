"""SOCKS on the endpoint's port: the dialogue of `wire/socks5` over a client's stream.

Rules:
- The first byte tells: 5 is SOCKS5, 4 is SOCKS4, whatever else is HTTP.
- SOCKS4 is refused: it knows no passwords, so that nobody could be told from anybody else.
"""

from __future__ import annotations

from gotunnel.address import HostPort
from gotunnel.upstream.dialer import Stream
from gotunnel.wire.socks5 import Check, Refusal, Request, Send, Socks5Server

SOCKS5, SOCKS4 = b"\x05", b"\x04"
REFUSAL4 = b"\x00\x5b" + bytes(6)  # "request rejected or failed"
WORDS4 = "SOCKS4 is not served, as it knows no passwords; use socks5h:// or http://"


async def handshake(client: Stream, check: Check | None) -> HostPort | str | None:
    """The target that the client asks for, or why it was refused; None where it went away.

    What came after the request is put back for the tunnel.  The caller bounds the time.  Raises StreamLost.
    """
    machine = Socks5Server(check)
    while data := await client.read():
        for event in machine.feed(data):
            match event:
                case Send(answer):
                    client.write(answer)
                case Refusal(answer, words):
                    client.write(answer)
                    return words
                case Request(target):
                    client.unread(machine.trailing)
                    return target
    return None
