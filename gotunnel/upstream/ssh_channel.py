"""asyncssh's TCP channel, mended where it would break a Stream's promises, and with a quicker way to send.

Rules:
- EOF before a close is told, also while reading is paused: asyncssh forgets it then, and a whole transfer
  would look like a loss.  (2.24.1: `_process_close` overwrites the state `eof_pending`.)
- Writing to a channel that is closed is dropped, as by asyncio's transports.  asyncssh raises, into whoever's
  callback brought the bytes, and that one's transport would be closed for it.
- This is the only file that reaches into asyncssh's channels; `tests/test_upstream_ssh.py` holds what it
  relies on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from gotunnel.upstream.dialer import Stream

if TYPE_CHECKING:
    import asyncssh


async def open_channel(
    connection: asyncssh.SSHClientConnection,
    host: str,
    port: int,
    *,
    window: int,
    max_packet: int,
    stream: Callable[[], Stream] = Stream,
) -> Stream:
    """A channel to host:port (direct-tcpip, RFC 4254 §7.2) as a Stream.

    `window` bytes may be under way to us, in packets of `max_packet`.  Raises asyncssh.ChannelOpenError,
    and what asyncssh makes of a connection that breaks meanwhile.
    """
    connection._update_recv_pktlen(max_packet)
    channel = _channel_class()(connection, connection._loop, None, "strict", window, max_packet)
    return cast(Stream, await channel.connect(stream, host, port, "", 0))


_Channel: Any = None


def _channel_class() -> Any:
    """Made when it is first needed: asyncssh is imported only where it is used."""
    global _Channel
    if _Channel is not None:
        return _Channel
    from asyncssh.channel import SSHTCPChannel
    from asyncssh.constants import MSG_CHANNEL_CLOSE

    class Channel(SSHTCPChannel[bytes]):
        def write(self, data: bytes, datatype: int | None = None) -> None:
            if self._send_state == "open":
                super().write(data, datatype)

        def _flush_send_buf(self) -> None:
            send_data = getattr(self._conn, "send_data", None)  # of `ssh_send`
            while send_data and self._send_buf and self._send_window and self._send_chan is not None:
                held, kind = self._send_buf[0]
                count = min(len(held), self._send_window)
                with memoryview(held) as whole, whole[:count] as part:
                    if kind is not None or not send_data(self._send_chan, part, self._send_pktsize):
                        break
                del held[:count]
                if not held:
                    del self._send_buf[0]
                self._send_buf_len -= count
                self._send_window -= count
            super()._flush_send_buf()

        def _close_after_eof(self, kind: int, number: int, packet: Any) -> None:
            if self._recv_state == "eof_pending":
                # reading is paused: once it goes on, the data and the EOF come first, then the close again
                packet.check_end()
                self._close_send()
                self._closed_by_peer = True
            else:
                self._process_close(kind, number, packet)

        def _flush_recv_buf(self, exc: Exception | None = None) -> None:
            super()._flush_recv_buf(exc)
            if self._closed_by_peer and self._recv_state == "eof":
                self._recv_state = "close_pending"
                super()._flush_recv_buf(exc)

        def _discard_recv(self) -> None:
            if self._closed_by_peer and self._recv_state in ("eof_pending", "eof"):
                self._recv_state = "close_pending"
            super()._discard_recv()

        _closed_by_peer = False
        _packet_handlers = {  # noqa: RUF012 - asyncssh's own table is one
            **SSHTCPChannel._packet_handlers,
            MSG_CHANNEL_CLOSE: _close_after_eof,
        }

    _Channel = Channel
    return Channel
