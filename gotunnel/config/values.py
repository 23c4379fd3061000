"""Kinds of values: how TOML and text become a value, and how a value is shown.

Rules:
- `Kind.parse` takes what TOML gives (str, int, float, bool, list, dict) and returns the value, or
  raises ValueError with one line that says what is wrong and what is wanted; the caller adds where.
- `Kind.text` turns the text of a variable into what TOML would have given; lists are comma-separated,
  or written as in TOML.
- `Kind.show` gives plain data for people: durations and sizes as they are written, secrets as `***`.
- No error repeats a secret: what it quotes goes through `quote`.
- Durations are float seconds, sizes are bytes: KB is 1000 and KiB (or K) is 1024, as in GNU tools.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Generic, TypeVar

from gotunnel.address import HostPort, one_line, redact
from gotunnel.dataclass import dataclass

T = TypeVar("T")

# patterns are compiled by `re` when first used: most runs need few of them
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = r"(?:\d{1,12}(?:\.\d{1,9})?(?:ms|s|m|h|d))+"
_DURATION_PART = r"(\d+(?:\.\d+)?)(ms|s|m|h|d)"
_SIZE = r"(\d{1,15})\s*([KMGT]?)(i?B?)"
_URL = r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>[^\s\"'<>]*)"
_USERINFO = r"://(\S*)@"
_QUERY = r"([?&][^=&]*(?:secret|password|token|key|sig|credential)[^=&]*=)[^&\s]*"


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """How a value is read and shown; see the rules of this file."""

    parse: Callable[[object], T]
    text: Callable[[str], object]
    show: Callable[[T], object]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address to listen on; port 0 means a free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """True for localhost and loopback literals; names are never resolved for it."""
        return HostPort(self.host, self.port).is_loopback

    def __str__(self) -> str:
        return str(HostPort(self.host, self.port))


@dataclass(frozen=True, slots=True)
class Span:
    """Two durations in seconds, 0 < first <= last."""

    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Auth:
    """How the listener knows its users: "auto" (a secret of each run's own), "off" or "user"."""

    mode: str
    user: str = ""
    password_file: str = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """A glob of module paths that are denied or allowed; `versions`: `>=v1.2.0 <v1.3.0`, "" for all."""

    module: str
    action: str
    versions: str = ""

    def as_table(self) -> dict[str, str]:
        """As it stands in TOML."""
        table = {"module": self.module, "action": self.action, "versions": self.versions}
        return {key: value for key, value in table.items() if value}


def quote(value: object) -> str:
    """A value for an error text: quoted, short, on one line, without anything that may be a password."""
    if isinstance(value, str):
        plain = "".join(c if c.isprintable() else "?" for c in re.sub(r"\S*@", "***@", value))
        return '"' + one_line(mask_url(plain), 80).replace('"', "'") + '"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) > 10**18:
        return "a huge number"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list | tuple):
        return "a list"
    return "a table" if isinstance(value, dict) else "a date or time"


def mask_url(text: str) -> str:
    """A URL without the password (or token) before its host and without secrets in its query."""
    masked = re.sub(_USERINFO, _mask_userinfo, redact(text))
    return re.sub(_QUERY, r"\1***", masked, flags=re.IGNORECASE)


def _mask_userinfo(match: re.Match[str]) -> str:
    user, colon, _ = match[1].partition(":")
    return f"://{user}:***@" if colon and "/" not in match[1] else "://***@"


def duration(seconds: float) -> str:
    """Seconds as they are written in the configuration: "500ms", "5s", "1h"."""
    milliseconds = round(seconds * 1000)
    if milliseconds % 1000:
        return f"{milliseconds}ms"
    whole = milliseconds // 1000
    return f"{whole}s" if whole % 3600 or not whole else f"{whole // 3600}h"


def size(count: int) -> str:
    """Bytes as they are written in the configuration, exactly: "64KB", "20GB"."""
    for step, suffix in ((1000, "B"), (1024, "iB")):
        for power, letter in ((4, "T"), (3, "G"), (2, "M"), (1, "K")):
            if count and count % step**power == 0:
                return f"{count // step**power}{letter}{suffix}"
    return f"{count}B"


def _string(value: object, want: str = "a string in quotes") -> str:
    if not isinstance(value, str):
        raise ValueError(f"{quote(value)} is no string; want {want}")
    if not all(c.isprintable() for c in value):
        raise ValueError(f"{quote(value)} holds control characters; want {want}")
    return value


def choice(*known: str) -> Kind[str]:
    """One of a few words."""
    want = ", ".join(f'"{word}"' for word in known)

    def parse(value: object) -> str:
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"{quote(value)} is not one of {want}")
        return value

    return Kind(parse, str.strip, lambda value: value)


def _seconds(value: object, least: float, most: float) -> float:
    want = f'want a duration from "{duration(least)}" to "{duration(most)}", such as "500ms" or "1m30s"'
    if not isinstance(value, str) or not re.fullmatch(_DURATION, value, re.ASCII):
        raise ValueError(f"{quote(value)} is no duration; {want}")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(_DURATION_PART, value))
    if not least <= seconds <= most:
        raise ValueError(f"{quote(value)} is out of range; {want}")
    return round(seconds, 3)


def seconds(least: float, most: float) -> Kind[float]:
    """A duration within bounds, both in seconds."""
    return Kind(lambda value: _seconds(value, least, most), str.strip, duration)


def hedge(least: float, most: float) -> Kind[float | str]:
    """ "auto", "off" or a duration within bounds in seconds."""

    def parse(value: object) -> float | str:
        if value in ("auto", "off"):
            return str(value)
        try:
            return _seconds(value, least, most)
        except ValueError as error:
            raise ValueError(f'{error}, or "auto" or "off"') from None

    return Kind(parse, str.strip, lambda value: value if isinstance(value, str) else duration(value))


def span(least: float, most: float) -> Kind[Span]:
    """FIRST..LAST, two durations within bounds in seconds."""

    def parse(value: object) -> Span:
        first, dots, last = _string(value, '"500ms..10s"').partition("..")
        if not dots:
            raise ValueError(f'{quote(value)} is no range of durations; want one such as "500ms..10s"')
        both = Span(_seconds(first.strip(), least, most), _seconds(last.strip(), least, most))
        if both.first > both.last:
            raise ValueError(f"{quote(value)} runs backwards; want the shorter duration first")
        return both

    return Kind(parse, str.strip, lambda value: f"{duration(value.first)}..{duration(value.last)}")


def count(least: int, most: int) -> Kind[int]:
    """A whole number within bounds."""

    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{quote(value)} is wrong; want a whole number from {least} to {most}")
        return value

    def text(given: str) -> object:
        digits = given.strip()
        return int(digits) if re.fullmatch(r"-?[0-9]{1,18}", digits) else given

    return Kind(parse, text, lambda value: value)


def number(least: float, most: float) -> Kind[float]:
    """A number within bounds."""

    def parse(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ValueError(f"{quote(value)} is wrong; want a number from {least:g} to {most:g}")
        return float(value)

    def text(given: str) -> object:
        return float(given) if re.fullmatch(r"\s*[0-9]{1,9}(\.[0-9]{1,9})?\s*", given, re.ASCII) else given

    return Kind(parse, text, lambda value: value)


def switch() -> Kind[bool]:
    """true or false; a variable may also say 1, 0, yes, no, on, off."""
    words = {"true": True, "1": True, "yes": True, "on": True}
    words |= {"false": False, "0": False, "no": False, "off": False}

    def parse(value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"{quote(value)} is wrong; want true or false")
        return value

    return Kind(parse, lambda given: words.get(given.strip().lower(), given), lambda value: value)


def bytes_size(least: int, most: int) -> Kind[int]:
    """A size in bytes within bounds; "64KB", "1MiB", or a whole number of bytes."""

    def parse(value: object) -> int:
        want = f'want a size from "{size(least)}" to "{size(most)}", such as "64KB" or "1MiB"'
        total: int | None = None
        if isinstance(value, int) and not isinstance(value, bool):
            total = value
        elif isinstance(value, str) and (
            match := re.fullmatch(_SIZE, value.strip(), re.ASCII | re.IGNORECASE)
        ):
            letter, unit = match[2].upper(), match[3].lower()
            if letter or unit in ("", "b"):
                step = 1000 if unit == "b" else 1024
                total = int(match[1]) * (step ** " KMGT".index(letter) if letter else 1)
        if total is None:
            raise ValueError(f"{quote(value)} is no size; {want}")
        if not least <= total <= most:
            raise ValueError(f"{quote(value)} is out of range; {want}")
        return total

    return Kind(parse, str.strip, size)


def words(what: str, check: Callable[[str], str]) -> Kind[tuple[str, ...]]:
    """A list of strings, each passed through `check`, which raises ValueError; one string is a list too."""

    def parse(value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list | tuple):
            raise ValueError(f"{quote(value)} is wrong; want a list of {what}")
        return tuple(check(_string(item, what)) for item in value)

    def text(given: str) -> object:
        if isinstance(listed := inline(given), list):
            return listed
        return [item for part in given.split(",") if (item := part.strip())]

    return Kind(parse, text, lambda value: [mask_url(item) for item in value])


def endpoint() -> Kind[Endpoint]:
    """HOST:PORT to listen on; port 0 means a free one."""

    def parse(value: object) -> Endpoint:
        text = _string(value, '"127.0.0.1:0"')
        zero = re.fullmatch(r"(.*):0", text, re.DOTALL)
        try:
            # a target's port is never 0, so a stand-in port lets HostPort judge the host alone
            address = HostPort.parse(f"{zero[1]}:1" if zero else text)
        except ValueError:
            address = HostPort("*", 1)
        if "*" in address.host:
            raise ValueError(
                f'{quote(text)} is no address to listen on; want HOST:PORT, such as "127.0.0.1:0" '
                '(0: a free port), "0.0.0.0:3128" or "[::]:3128" (every address)'
            )
        return Endpoint(address.host, 0 if zero else address.port)

    return Kind(parse, str.strip, str)


def _path(value: object) -> str:
    text = _string(value, "a path in quotes")
    if text and not text.startswith(("/", "~")):
        raise ValueError(f'{quote(text)} is a relative path; want one that starts with "/" or "~/"')
    return os.path.expanduser(text)


def path() -> Kind[str]:
    """An absolute path, or one from `~`; "" for none."""
    return Kind(_path, str.strip, lambda value: value)


def url(*schemes: str, bare: tuple[str, ...] = ()) -> Callable[[str], str]:
    """A check for a URL of one of `schemes`, or one of the words `bare`; "" passes where `bare` has it."""

    def check(text: str) -> str:
        match = re.fullmatch(_URL, text, re.IGNORECASE)
        fits = match and match["scheme"].lower() in schemes and match["rest"].strip("/")
        if text not in bare and not fits:
            forms = [f"{scheme}://…" for scheme in schemes] + [f'"{word}"' for word in bare if word]
            raise ValueError(f"{quote(text)} is no URL that fits here; want {', '.join(forms)}")
        return text

    return check


def one_url(*schemes: str, hide_path: bool = False) -> Kind[str]:
    """A URL or ""; `hide_path` where the path itself is the secret, as in webhooks."""
    check = url(*schemes, bare=("",))

    def parse(value: object) -> str:
        text = _string(value, "a URL in quotes")
        try:
            return check(text)
        except ValueError:
            if not hide_path:
                raise
            raise ValueError(f"no URL that fits here; want {schemes[0]}://…") from None

    def show(value: str) -> object:
        return re.sub(r"(?<=[^:/])/.+", "/***", mask_url(value)) if hide_path else mask_url(value)

    return Kind(parse, str.strip, show)


def _only(table: dict[str, object], known: tuple[str, ...]) -> None:
    for name in table:
        if name not in known:
            raise ValueError(f"unknown key {quote(name)}; want {' and '.join(known)}")
    for name in known:
        if name not in table:
            raise ValueError(f"{name} is missing; want {' and '.join(known)}")


def inline(given: str) -> object:
    """The text of a variable that may hold an inline TOML value (`{…}` or `[…]`)."""
    if not given.strip().startswith(("{", "[")):
        return given.strip()
    import tomllib

    try:
        return tomllib.loads(f"value = {given.strip()}").get("value")
    except (ValueError, RecursionError):
        return given.strip()


def auth() -> Kind[Auth]:
    """ "auto", "off" or a table of user and password_file."""

    def parse(value: object) -> Auth:
        if value in ("auto", "off"):
            return Auth(str(value))
        if not isinstance(value, dict):
            raise ValueError(
                f'{quote(value)} is wrong; want "auto", "off" or {{ user = …, password_file = … }}'
            )
        _only(value, ("user", "password_file"))
        user = _string(value["user"], "a name")
        file = _path(value["password_file"])
        if not user or ":" in user or not file:
            raise ValueError("want a user (no colon in it) and a password_file")
        return Auth("user", user, file)

    def show(value: Auth) -> object:
        if value.mode != "user":
            return value.mode
        return {"user": value.user, "password_file": value.password_file}

    return Kind(parse, inline, show)


def filters() -> Kind[tuple[Filter, ...]]:
    """A list of tables, each of a module glob and an action."""

    def parse(value: object) -> tuple[Filter, ...]:
        want = 'want [{ module = "example.com/bad/*", action = "deny" }]'
        if not isinstance(value, list | tuple) or not all(isinstance(item, dict) for item in value):
            raise ValueError(f"{quote(value)} is wrong; {want}")
        found = []
        for item in value:
            versions = _string(item.get("versions", ""), "versions such as >=v1.2.0 <v1.3.0")
            _only({k: v for k, v in item.items() if k != "versions"}, ("module", "action"))
            module, action = _string(item["module"], "a glob of module paths"), item["action"]
            if not module or action not in ("deny", "allow"):
                raise ValueError(f'{want}; the action is "deny" or "allow"')
            found.append(Filter(module, action, versions))
        return tuple(found)

    return Kind(parse, inline, lambda value: [f.as_table() for f in value])
