"""What lies between a socket (or a stream) and the SSH connection that reads it: speed, nothing else.

Rules:
- asyncssh reads a stream of bytes; it may be cut anywhere.  So this file can't break a connection by how it
  cuts, and hands over whatever it doesn't understand, untouched.
- Where packets' lengths are in clear (AES-GCM) it cuts at packets, which spares asyncssh four copies of each.
- Whole CHANNEL_DATA packets of an open channel are decrypted in the buffer they were read into, and what one
  read brought is given to the channel in few pieces.  That wants to know asyncssh's insides: it is done only
  for versions of which they are known (`_KNOWN`), and only in the state in which asyncssh would do the same.
- Sending has a way of its own too (`ssh_send`).
- The kernel's own count of segments (`tcp_info`) tells of life and of loss before their bytes can be read.
- What a server sends in small pieces is acknowledged at once: sshd leaves Nagle's algorithm on, so that
  otherwise each second small piece waits 40 ms for our delayed ACK (tcp(7) TCP_QUICKACK).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any, cast

from gotunnel.upstream.ssh_growth import Traffic
from gotunnel.upstream.ssh_send import CHANNEL_DATA, TAG, Sender
from gotunnel.upstream.tcp_info import counted

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_KNOWN = ("2.24.",)  # versions of asyncssh whose insides were read and tested
_ROOM = 512 * 1024  # bytes read at once; holds the largest packet that we let a server send
_PIECE = 192 * 1024  # bytes written at once; more than a socket takes would have to be copied
_SMALL = 16 * 1024  # bytes; a read of less may be one that the server waits for an ACK of
_WORTH = 1024  # a packet of fewer bytes gains nothing
_SEGMENT = 1448  # bytes; about as many are in one


def insides_known() -> bool:
    """Is this asyncssh one whose insides may be relied on?"""
    import asyncssh

    return asyncssh.__version__.startswith(_KNOWN)


class Feed(asyncio.BufferedProtocol):
    """Reads for one SSH connection; a protocol of a socket, or a receiver of a stream."""

    def __init__(self, connection: asyncio.Protocol) -> None:
        from asyncssh.encryption import GCMEncryption
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._aesgcm, self._invalid = AESGCM, InvalidTag
        self._connection: Any = connection
        self._gcm = GCMEncryption if insides_known() else None
        self._buffer = bytearray(_ROOM)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._socket: Any = None
        self._key = b""
        self._cipher: AESGCM | None = None
        self._channel: Any = None  # whose data is held
        self._held: list[memoryview] = []
        self._held_size = 0
        self.sender: Sender | None = None
        if self._gcm is not None:
            self.sender = Sender(self._connection, self._gcm)
        self.fast = 0  # packets that took the short way
        self.received = 0  # bytes, of whatever kind: a sign of life

    @property
    def traffic(self) -> Traffic:
        """What the kernel has counted since the connection was made; where it doesn't say, what was read."""
        told = counted(self._socket) if self._socket is not None else None
        return told or Traffic(arrived=self.received // _SEGMENT)

    # --- passed on -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport) and hasattr(socket, "TCP_QUICKACK"):
            sock = transport.get_extra_info("socket")
            if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
                self._socket = sock
        self._connection.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._socket = None
        self._connection.connection_lost(exc)

    def eof_received(self) -> bool | None:
        if self._start < self._end:  # half a packet: asyncssh is to judge
            self._give(self._end)
        return cast("bool | None", self._connection.eof_received())

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    # --- reading ---------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._start == self._end:
            self._start = self._end = 0
        elif len(self._buffer) - self._end < _ROOM // 2 and self._start:
            held = self._end - self._start
            self._buffer[:held] = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, held
        return self._view[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        self._end += nbytes
        self.received += nbytes
        if self._gcm is None:
            self._give(self._end)
        else:
            self._cut()
            self._flush()
        if nbytes < _SMALL and self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def data_received(self, data: bytes) -> None:
        """As a receiver of a stream: the hop before gives whole pieces."""
        at = 0
        while at < len(data):
            room = self.get_buffer(-1)
            count = min(len(room), len(data) - at)
            room[:count] = data[at : at + count]
            at += count
            self.buffer_updated(count)

    def _give(self, end: int) -> None:
        """All bytes before `end` to asyncssh."""
        self._flush()
        data = bytes(self._view[self._start : end])
        self._start = end
        self._connection.data_received(data)

    def _cut(self) -> None:
        """Packet by packet, as far as they are whole."""
        connection, view, gcm = self._connection, self._view, cast(type, self._gcm)
        from_bytes = int.from_bytes
        while self._start < self._end:
            if not isinstance(connection._recv_encryption, gcm):
                self._give(self._end)
                return
            pending = len(connection._inpbuf)
            if connection._recv_handler == connection._recv_packet:  # it holds a part: the rest of that alone
                rest = 4 + connection._pktlen + TAG - connection._recv_blocksize - pending
                self._give(min(self._end, self._start + rest) if rest > 0 else self._end)
                continue
            if pending or connection._recv_handler != connection._recv_pkthdr:
                self._give(self._end)
                continue
            delivered = True
            while delivered:  # which leaves asyncssh as it was: between two packets
                start = self._start
                if self._end - start < 4:
                    return
                size = 4 + from_bytes(view[start : start + 4], "big") + TAG
                if size > _ROOM // 2:
                    self._give(self._end)  # no packet that we allowed: asyncssh will say so
                    return
                end = start + size
                if end > self._end:
                    return
                delivered = size >= _WORTH and self._deliver(start, end)
            self._give(end)

    def _deliver(self, start: int, end: int) -> bool:
        """Hold channel data for its channel; False, and nothing done, for any other packet."""
        connection = self._connection
        if not connection._auth_complete or connection._decompressor or connection._transport is None:
            return False
        keys = connection._recv_encryption._cipher
        if self._cipher is None or keys._key != self._key:
            self._key, self._cipher = keys._key, self._aesgcm(keys._key)
        view = self._view
        try:
            plain = self._cipher.decrypt(keys._iv, view[start + 4 : end], view[start : start + 4])
        except self._invalid:
            return False  # asyncssh will find the same, and end the connection
        if plain[1] != CHANNEL_DATA:
            return False
        channel = connection._channels.get(int.from_bytes(plain[2:6], "big"))
        size = int.from_bytes(plain[6:10], "big")
        if channel is not self._channel or self._held_size + size > _PIECE:
            self._flush()
        if (
            channel is None
            or 10 + size + plain[0] != len(plain)
            or channel._recv_state != "open"
            or self._held_size + size > channel._recv_window
        ):
            return False
        keys._update_iv()
        connection._finish_recv_packet(CHANNEL_DATA, connection._recv_seq)
        self._start = end
        self._channel = channel
        self._held.append(memoryview(plain)[10 : 10 + size])
        self._held_size += size
        self.fast += 1
        return True

    def _flush(self) -> None:
        """What is held to its channel."""
        if not self._held:
            return
        data = b"".join(self._held)
        channel, self._channel = self._channel, None
        self._held.clear()
        self._held_size = 0
        try:
            self._connection._reset_keepalive_timer()
            channel._accept_data(data)
        except Exception:
            self._connection.internal_error()
