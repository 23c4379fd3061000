"""Signed notes: a text, and below it lines that say who signed it.

    text, ends in a newline
    <blank line>
    — NAME BASE64(4 bytes of key hash, signature)

Rules:
- Everything here is pure; whatever isn't exactly right is a NoteError of one line.
- A note counts if the one key we know has signed it rightly; signatures of others are passed over, a
  wrong one of our key is an error.
- Keys are `NAME+HASH+BASE64(1, Ed25519 public key)`, as in GOSUMDB.

Source: golang.org/x/mod/sumdb/note.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from gotunnel.dataclass import dataclass

MAX_NOTE = 64 << 10  # bytes
_MAX_SIGNATURES = 100
_ED25519 = b"\x01"
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_PREFIX = "— "


class NoteError(ValueError):
    """A note or a key that is malformed, or whose signature is wrong; the text is one line."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """The public key of a signer: `name`, four bytes that tell the key, 32 bytes of Ed25519."""

    name: str
    hash: bytes
    public: bytes

    @classmethod
    def parse(cls, text: str) -> Verifier:
        """Read `NAME+HASH+KEY`.  Raises NoteError."""
        name, _, rest = text.partition("+")
        hash16, _, key64 = rest.partition("+")
        key = decode64(key64)
        if not _valid_name(name) or not re.fullmatch("[0-9a-fA-F]{8}", hash16) or not key:
            raise NoteError("malformed key; want NAME+HASH+KEY")
        if bytes.fromhex(hash16) != key_hash(name, key):
            raise NoteError(f"the key of {name!r} doesn't fit its hash {hash16}: a typing error?")
        if key[:1] != _ED25519:
            raise NoteError(f"the key of {name!r} is of a kind not known here; want Ed25519")
        if len(key) != 33:
            raise NoteError("malformed key; Ed25519 has 32 bytes")
        return cls(name, bytes.fromhex(hash16), key[1:])

    def verify(self, text: bytes, signature: bytes) -> bool:
        """Whether `signature` (without the key hash) is this key's for `text`."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text)
        except (InvalidSignature, ValueError):
            return False
        return True


def key_hash(name: str, key: bytes) -> bytes:
    """The four bytes that tell a key; `key` starts with the byte of its kind."""
    return hashlib.sha256(name.encode() + b"\n" + key).digest()[:4]


def decode64(text: str) -> bytes:
    """Base64 with its padding and nothing else; b"" for anything that isn't."""
    try:
        # b64decode alone takes more padding than there should be
        return base64.b64decode(text, validate=True) if len(text) % 4 == 0 else b""
    except (binascii.Error, ValueError):
        return b""


def open_note(data: bytes, verifier: Verifier) -> str:
    """The text of a note that `verifier`'s key has signed.  Raises NoteError."""
    if len(data) > MAX_NOTE:
        raise NoteError(f"a note of more than {MAX_NOTE >> 10} KiB")
    try:
        message = data.decode("utf-8")
    except UnicodeDecodeError:
        raise NoteError("malformed note: not UTF-8") from None
    text, blank, lines = message.rpartition("\n\n")
    if _CONTROL.search(message) or not blank or not lines.endswith("\n"):
        raise NoteError("malformed note: want a text, a blank line and signatures")
    text += "\n"
    signatures = [_signature(line) for line in lines[:-1].split("\n")]
    if len(signatures) > _MAX_SIGNATURES:
        raise NoteError(f"malformed note: more than {_MAX_SIGNATURES} signatures")
    ours = [raw for name, raw in signatures if name == verifier.name and raw[:4] == verifier.hash]
    if not ours:
        raise NoteError(f"the note isn't signed by {verifier.name}+{verifier.hash.hex()}")
    if not verifier.verify(text.encode(), ours[0][4:]):
        raise NoteError(f"the signature of {verifier.name}+{verifier.hash.hex()} is wrong")
    return text


def _signature(line: str) -> tuple[str, bytes]:
    name, _, text = line.removeprefix(_PREFIX).partition(" ")
    raw = decode64(text)
    if not line.startswith(_PREFIX) or not _valid_name(name) or len(raw) < 5:
        raise NoteError("malformed note: want signature lines `— NAME BASE64`")
    return name, raw


def _valid_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(c.isspace() for c in name)
