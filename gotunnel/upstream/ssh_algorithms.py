"""Lists of algorithms as ssh_config writes them, cut down to what is known here.

asyncssh refuses a whole list for one name that it doesn't know (OpenSSH's sntrup761x25519, which hardened
configurations start with); ssh of another version would do no more with such a name than pass it over.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase


def usable(option: str, text: str, known: Sequence[bytes]) -> str:
    """`text` (with `+`, `-` or `^` before it, `*` and `?` in it) without the names that are not `known`.

    "" stands for the default.  Raises ValueError where a whole list of one's own is unknown.
    """
    prefix = text[:1] if text[:1] in ("+", "-", "^") else ""
    names = [name.strip() for name in text[len(prefix) :].split(",")]
    kept = [name for name in names if any(fnmatchcase(each.decode("ascii"), name) for each in known)]
    if kept:
        return prefix + ",".join(kept)
    if text and not prefix:
        raise ValueError(f"{option} {text} of ssh_config: none of these is known here")
    return ""
