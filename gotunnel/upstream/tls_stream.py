"""A stream inside TLS over a stream: OpenSSL works in memory (ssl.MemoryBIO), for clients and servers alike.

Rules:
- Half-close: our EOF is a close_notify, after which we go on reading.  The peer's close_notify is an EOF; an
  end without one is a loss, since anybody on the way can forge the end of a TCP connection.
- Back-pressure passes through both ways; what was decrypted for a reader that paused is held, at most
  what one delivery of the stream below brought.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any

from gotunnel.address import one_line
from gotunnel.errors import StreamLost
from gotunnel.upstream.dialer import Stream

_RECORD = 16 * 1024  # the most that one TLS record holds (RFC 8446 §5.1)
_FLUSH = 256 * 1024
_CUT = "the connection was cut without TLS's close_notify"


class NoTls(Exception):
    """The first bytes are none of a TLS server's; the text shows them."""


async def handshake(
    stream: Stream, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
) -> None:
    first = True
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            done = False
        except ssl.SSLError:
            with contextlib.suppress(StreamLost):
                stream.write(outgoing.read())  # the alert that tells the peer why
            raise
        else:
            done = True
        if outgoing.pending:
            stream.write(outgoing.read())
        if done:
            return
        data = await stream.read()
        if not data:
            raise StreamLost("it closed the connection")
        if first and data[0] not in (0x15, 0x16):  # alert, handshake
            raise NoTls(repr(one_line(data[:40].decode("ascii", "replace"), 40)))
        first = False
        incoming.write(data)


class TlsTransport:
    """What a TLS stream writes to, and at the same time who the stream below pushes to."""

    def __init__(
        self,
        tls: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        below: Stream,
        above: Stream,
    ) -> None:
        self._tls = tls
        self._incoming, self._outgoing = incoming, outgoing
        self._below, self._above = below, above
        self._paused = False
        self._held = bytearray()
        self._ended = False  # the peer's close_notify came
        self._eof_due = False  # … and those above don't know yet
        self._said_bye = False
        self._closing = False
        self._gone = False
        self._error: Exception | None = None

    def begin(self) -> None:
        """Take over what the handshake left, and the stream below."""
        if self._below.write_paused:
            self._above.pause_writing()
        self._pump()
        self._below.hand_over(self)

    # --- called by the stream below ----------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if not self._ended and not self._closing and self._error is None:
            self._incoming.write(data)
            self._pump()

    def eof_received(self) -> bool:
        if not self._ended and not self._closing:
            self._fail(ConnectionResetError(_CUT))
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if self._gone:
            return
        # nobody can resume us any more: what came before the end is handed on even to one who paused
        self._paused = False
        self._release()
        self._gone = True
        if not (self._ended or self._closing):
            exc = self._error or exc or ConnectionResetError(_CUT)
        self._above.connection_lost(exc)

    def pause_writing(self) -> None:
        self._above.pause_writing()

    def resume_writing(self) -> None:
        self._above.resume_writing()

    def _pump(self) -> None:
        parts: list[bytes] = []
        failure: ssl.SSLError | None = None
        ended = False
        try:
            while part := self._tls.read(_RECORD):
                parts.append(part)
            ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # the same, after our own close_notify
            ended = True
        except ssl.SSLError as error:
            failure = error
        self._flush()  # answers of TLS itself, such as a key update
        if parts and not self._held and not self._paused:
            self._above.data_received(b"".join(parts))
        elif parts:
            self._held += b"".join(parts)
        if ended:
            self._ended = self._eof_due = True
        self._release()
        if failure is not None:
            self._fail(failure)

    def _release(self) -> None:
        """Hand on what may be handed on."""
        if self._held and not self._paused and not self._gone:
            data = bytes(self._held)
            self._held.clear()
            self._above.data_received(data)
        if self._eof_due and not self._held and not self._paused and not self._gone:
            self._eof_due = False
            if not self._above.eof_received():
                self.close()

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
            self._below.abort()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._below.write(self._outgoing.read())

    # --- called by the stream above ----------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._said_bye or self._gone or self._error is not None:
            return
        rest = memoryview(data)
        try:
            while rest:
                sent = self._tls.write(rest[:_FLUSH])
                rest = rest[sent:]
                self._flush()
        except ssl.SSLError as error:
            self._fail(error)

    def write_eof(self) -> None:
        if self._said_bye or self._gone or self._error is not None:
            return
        self._said_bye = True
        # OpenSSL then looks for the peer's own close_notify, which needn't be there yet
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()

    def is_closing(self) -> bool:
        return self._closing or self._gone

    def close(self) -> None:
        self.write_eof()
        self._closing = True
        self._below.close()

    def abort(self) -> None:
        self._closing = True
        self._below.abort()

    def pause_reading(self) -> None:
        self._paused = True
        if not self._below.is_lost:
            self._below.transport.pause_reading()

    def resume_reading(self) -> None:
        self._paused = False
        if self._held or self._eof_due:  # later, since whoever calls us may be in the middle of a read
            asyncio.get_running_loop().call_soon(self._release)
        if not self._below.is_lost:
            self._below.transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self._tls
        if name == "socket":  # whoever asks would bypass TLS
            return default
        return self._below.transport.get_extra_info(name, default)
