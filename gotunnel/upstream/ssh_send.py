"""How channel data leaves an SSH connection under AES-GCM: several packets built and sealed in one buffer.

Rules:
- What is sent is what asyncssh would send, to the byte but for the padding.  Whatever it has to decide about
  (a key exchange that is due or under way, compression, another cipher, a connection not yet logged in) is
  left to it, as is everything in a version whose insides aren't known (`ssh_feed`).
- The SSH_MSG_IGNORE that asyncssh puts before each packet, a defence that CBC ciphers want (RFC 4251 §9.3.1),
  is left out under AES-GCM: it doubled the work of sending.
- No view of the channel's buffer outlives its use: a socket that breaks keeps the frames of who wrote to it,
  and a buffer that is still looked at can't be shortened.
- One cipher object for all packets of a key.  asyncssh's own way copies each byte eight times and makes a
  system call for each packet.
"""

from __future__ import annotations

import os
import struct
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_IGNORE = 2  # RFC 4253 §11.2
CHANNEL_DATA = 94  # RFC 4254 §5.2
_HEAD = struct.Struct(
    ">IBBII"
)  # lengths of packet and padding (RFC 4253 §6), kind, channel, length of the data
_BEFORE = 9  # bytes of a payload before its data: kind, channel, length
TAG = 16  # bytes of AES-GCM's authentication tag
_PIECE = 192 * 1024  # bytes of data sealed for one write


class Sender:
    """Sends for one connection of asyncssh, in whose place it puts itself."""

    def __init__(self, connection: Any, gcm: type[Any]) -> None:
        self._connection, self._gcm = connection, gcm
        self._send = connection.send_packet
        self._known: object = None  # the encryption that `_cipher` is for
        self._cipher: AESGCM | None = None
        connection.send_packet = self.send_packet
        connection.send_data = self.send_data  # for our channels
        self.fast = 0  # packets that took the short way

    def send_packet(self, kind: int, *args: bytes, **options: Any) -> None:
        """Anything but channel data, and that when `send_data` won't."""
        encryption = self._connection._send_encryption
        if isinstance(encryption, self._gcm):
            if kind == _IGNORE:
                return
            if encryption is not self._known:
                self._keep(encryption)
        self._send(kind, *args, **options)

    def send_data(self, channel: int, data: memoryview, largest: int) -> bool:
        """Send `data` for the peer's `channel` in packets of at most `largest` bytes of it.

        False, with nothing done, where asyncssh has to do it.
        """
        connection = self._connection
        encryption: Any = connection._send_encryption
        if (
            not isinstance(encryption, self._gcm)
            or not connection._auth_complete
            or not connection._kex_complete
            or connection._compressor
            or connection._transport is None
            or connection._rekey_bytes_sent + 2 * len(data) >= connection._rekey_bytes
            or (connection._rekey_seconds and time.monotonic() >= connection._rekey_time)
        ):
            return False
        if encryption is not self._known:
            self._keep(encryption)
        if not hasattr(self._cipher, "encrypt_into"):  # cryptography before 47
            return False
        batch = max(_PIECE // largest, 1) * largest
        for at in range(0, len(data), batch):
            with data[at : at + batch] as part:
                self._write(encryption._cipher, channel, part, largest)
        return True

    def _write(self, keys: Any, channel: int, data: memoryview, largest: int) -> None:
        connection, cipher = self._connection, self._cipher
        assert cipher is not None
        block = connection._send_blocksize
        packets = -(-len(data) // largest)
        sealed = bytearray(len(data) + packets * (_HEAD.size + 4 + block + TAG))
        with memoryview(sealed) as room:
            end = 0
            for at in range(0, len(data), largest):
                size = min(largest, len(data) - at)
                payload = _BEFORE + size
                padding = 4 + -(connection._send_enchdrlen + payload + 4) % block
                head = _HEAD.pack(1 + payload + padding, padding, CHANNEL_DATA, channel, size)
                with data[at : at + size] as piece:
                    clear, packet = head[:4], b"".join((head[4:], piece, os.urandom(padding)))
                room[end : end + 4] = clear
                end += 4
                with room[end : end + len(packet) + TAG] as place:
                    cipher.encrypt_into(keys._iv, packet, clear, place)
                end += len(packet) + TAG
                keys._update_iv()
                connection._rekey_bytes_sent += len(packet)
        del sealed[end:]
        connection._send_seq = (connection._send_seq + packets) & 0xFFFFFFFF
        self.fast += packets
        connection._send(sealed)

    def _keep(self, encryption: Any) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        keys = encryption._cipher
        cipher = AESGCM(keys._key)

        def encrypt_packet(number: int, header: bytes, packet: bytes) -> tuple[bytes, bytes]:
            sealed = header + cipher.encrypt(keys._iv, packet, header)
            keys._update_iv()
            return sealed, b""  # the tag is its end already

        encryption.encrypt_packet = encrypt_packet
        self._known, self._cipher = encryption, cipher
