"""Reads OpenSSH's client configuration files for one host and keeps what was found first.

Rules (readconf.c):
- The first value found for a keyword wins; IdentityFile and CertificateFile add up.  Of ProxyJump and
  ProxyCommand the first one found wins, except that `ProxyJump none` doesn't stop a later ProxyCommand.
- Every line is checked, also where its block doesn't apply.  Host and Match in an included file end with it.
- ~/.ssh/config and every included file must not be writable by others; a file named by the user isn't asked.
- Each file is read once and kept for the second pass.
"""

from __future__ import annotations

import glob
import grp
import hashlib
import os
import pwd
import re
import socket
import stat
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from gotunnel.address import one_line
from gotunnel.dataclass import dataclass
from gotunnel.errors import ConfigError
from gotunnel.upstream.ssh_match import Fit, Subject, evaluate, in_list
from gotunnel.upstream.ssh_tokens import KEYWORDS, WHITESPACE, Hop, expand, lower, next_word, split_words

SYSTEM_FILE = "/etc/ssh/ssh_config"
_MAX_DEPTH = 16  # of Include
_MAX_FILES = 100  # IdentityFile and CertificateFile each
_MAX_BYTES = 4 << 20  # ours: ssh reads anything


@dataclass(frozen=True, slots=True)
class Value:
    """A keyword's value and where it stands ("FILE:LINE: ", "" for the command line)."""

    items: tuple[str, ...]
    where: str
    system: bool = False

    def expanded(self, tokens: Mapping[str, str], environ: Mapping[str, str] | None = None) -> str:
        """The single item with its tokens filled; ConfigError names the line where that can't be."""
        try:
            return expand(self.items[0], tokens, environ)
        except ValueError as error:
            raise ConfigError(one_line(f"{self.where}{error}")) from None


@dataclass(frozen=True, slots=True)
class Account:
    """The local user: login, number, home directory."""

    name: str
    uid: int
    home: str


def account_of(environ: Mapping[str, str]) -> Account:
    """The user as the system knows it: ssh takes the home directory from there and not from $HOME."""
    uid = os.getuid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:  # a container started with a bare uid; ssh gives up there
        return Account(environ.get("USER") or str(uid), uid, environ.get("HOME") or "/")
    return Account(entry.pw_name, uid, entry.pw_dir)


@dataclass(frozen=True, slots=True)
class _Source:
    """How one file is read: is it the user's, does a block around its Include rule it out, how deep is it."""

    path: str
    user: bool = True
    check: bool = False
    never: bool = False
    depth: int = 0


class Reader:
    """Reads files in order and keeps what was found first."""

    def __init__(self, host: str, account: Account, environ: Mapping[str, str]) -> None:
        self.original = self.host = host
        self.account, self.environ = account, environ
        self.final = self.wants_final = self.named = False
        self.values: dict[str, Value] = {}
        self.identities: list[Value] = []
        self.certificates: list[Value] = []
        self.untold: list[str] = []
        self._active = True
        self._contents: dict[tuple[str, bool], list[str]] = {}

    def text(self, name: str, default: str) -> str:
        """The single value of a keyword."""
        found = self.values.get(name)
        return found.items[0] if found else default

    def read_all(self, files: Sequence[str] | None) -> None:
        """One pass over the files."""
        if files is None:
            self._read(_Source(f"{self.account.home}/.ssh/config", check=True), optional=True)
            self._read(_Source(SYSTEM_FILE, user=False), optional=True)
        for path in files or ():
            if lower(path) != "none":
                self._read(_Source(path))

    def _read(self, source: _Source, *, optional: bool = False) -> None:
        if source.depth > _MAX_DEPTH:
            raise ValueError(f"Include goes deeper than {_MAX_DEPTH} files; does a file include itself?")
        if source.depth == 0:
            self._active = True
        try:
            lines = self._lines(source)
        except OSError as error:
            if optional:
                return
            raise ConfigError(
                one_line(
                    f"{source.path}: can't read it: {error.strerror or error}; check path and permissions"
                )
            ) from None
        for number, line in enumerate(lines, 1):
            where = f"{source.path}:{number}: "
            try:
                self._line(line, where, source)
            except ValueError as error:
                raise ConfigError(one_line(where + str(error))) from None

    def _lines(self, source: _Source) -> list[str]:
        key = (source.path, source.check)
        if key not in self._contents:  # a pipe (`-F <(…)`) can be read only once
            try:
                with open(source.path, "rb") as file:
                    if source.check and not _safe(os.fstat(file.fileno()), self.account):
                        raise ConfigError(
                            one_line(f"{source.path}: others can write it; chown it to you and chmod go-w it")
                        )
                    data = file.read(_MAX_BYTES + 1)
            except IsADirectoryError:
                data = b""  # as ssh: a glob may well catch one
            if len(data) > _MAX_BYTES:
                raise ConfigError(
                    one_line(f"{source.path}: over {_MAX_BYTES >> 20} MiB; is it an ssh config?")
                )
            self._contents[key] = data.decode("utf-8", "surrogateescape").split("\n")
        return self._contents[key]

    def _line(self, line: str, where: str, source: _Source) -> None:
        # a lone form feed is a keyword to ssh, and a wrong one
        keyword, rest = next_word(line[:1] + line[1:].rstrip(WHITESPACE + "\f"))
        if keyword == "":
            keyword, rest = next_word(rest)
        if not keyword or keyword.startswith("#"):
            return
        if "\0" in line:
            raise ValueError("a NUL byte; is it an ssh config?")
        rest = (rest or "").lstrip(WHITESPACE)
        if not rest:
            raise ValueError(f"{keyword} has no value; add one or remove the line")
        words = split_words(rest)
        known = KEYWORDS.get(lower(keyword))
        if known is None:
            if not in_list(lower(keyword), lower(self.text("IgnoreUnknown", ""))).matched:
                raise ValueError(_unknown(keyword))
        elif known.name == "Host":
            self._host(words, source)
        elif known.name == "Match":
            self._match(rest, source)
        elif known.name == "Include":
            self._include(words, source)
        elif known.name:
            try:
                items = known.parse(words, rest)
                if known.name in ("IdentityAgent", "ForwardAgent"):
                    self._check_agent(items[0])
            except ValueError as error:
                raise ValueError(f"{known.name}: {error}") from None
            if items and self._active:
                self._store(known.name, Value(items, where, not source.user), source)

    def _check_agent(self, path: str) -> None:
        expand(path.replace("%", "%%"), {}, self.environ)
        if path.startswith("$") and not re.fullmatch(r"\$(\w+|\{.*)", path, re.ASCII):
            raise ValueError(f"{path!r} is no variable; write $NAME or a path")

    def _store(self, name: str, value: Value, source: _Source) -> None:
        if name in ("IdentityFile", "CertificateFile"):
            found = self.identities if name == "IdentityFile" else self.certificates
            if all((value.items, value.system) != (other.items, other.system) for other in found):
                found.append(value)
            if len(found) > _MAX_FILES:
                raise ValueError(f"more than {_MAX_FILES} of {name}; name fewer")
        elif name == "RefuseConnection":
            raise ValueError(f"this host is refused: {value.items[0]}; remove RefuseConnection to go on")
        elif (name == "ProxyJump" and "ProxyCommand" in self.values) or (
            name == "ProxyCommand" and self.text("ProxyJump", "none") != "none"
        ):
            return  # the first of the two wins; but `ProxyJump none` leaves a later command in force
        else:
            self.values.setdefault(name, value)

    def _host(self, words: list[str], source: _Source) -> None:
        if "" in words:
            raise ValueError("Host has an empty pattern; remove it")
        fit = Fit.among(self.host, words)
        self._active = fit.matched and not source.never
        self.named = self.named or (self._active and fit.literal and not self.final)

    def _match(self, condition: str, source: _Source) -> None:
        host = self.target()
        tokens = self.tokens(host, host, self.text("Port", "22"), self.text("User", self.account.name))
        verdict = evaluate(
            condition,
            Subject(
                host=host,
                original=self.original,
                user=tokens["r"],
                local_user=self.account.name,
                tag=self.text("Tag", ""),
                final=self.final,
                expand=partial(expand, tokens=tokens),
                environ=self.environ,
                may_run=not source.never,
            ),
        )
        self.wants_final = self.wants_final or verdict.wants_final
        self.untold += verdict.untold
        self._active = verdict.matched and not source.never
        self.named = self.named or (self._active and verdict.named and not self.final)

    def _include(self, words: list[str], source: _Source) -> None:
        active = self._active
        for word in words:
            if not word or (word.startswith("~") and not source.user):
                raise ValueError(f"Include {word!r}: no such path here; write an absolute one")
            pattern = expand(word.replace("%", "%%"), {}, self.environ) if "${" in word else word
            if not pattern.startswith(("/", "~")):
                pattern = f"~/.ssh/{pattern}" if source.user else f"/etc/ssh/{pattern}"
            # glob(3) takes ~ from $HOME, unlike all else
            home = self.environ.get("HOME") or self.account.home
            try:
                paths = sorted(glob.glob(tilde(pattern, replace(self.account, home=home))), key=os.fsencode)
            except (OSError, RecursionError):
                raise ValueError(f"Include {word!r}: can't search it; write a simpler path") from None
            for path in paths:
                deeper = _Source(path, source.user, True, source.never or not active, source.depth + 1)
                self._read(deeper)
                self._active = active  # a Host in the included file doesn't outlive it

    def target(self) -> str:
        """The host name as far as is known now: HostName with its %h, else the host of this pass."""
        found = self.values.get("HostName")
        return self.host if found is None or self.final else found.expanded({"h": self.host})

    def tokens(self, host: str, key: str, port: str, user: str) -> dict[str, str]:
        """What stands for each %-token; `key` is for %k where there is no HostKeyAlias."""
        local = socket.gethostname()
        jump = self.jump_host()
        what = "".join((local, host, port, user, jump)).encode("utf-8", "surrogateescape")
        digest = hashlib.sha1(what, usedforsecurity=False)  # that is what %C is
        return {
            "C": digest.hexdigest(),
            "L": local.partition(".")[0],
            "d": self.account.home,
            "h": host,
            "i": str(self.account.uid),
            "j": jump,
            "k": self.text("HostKeyAlias", key),
            "l": local,
            "n": self.original,
            "p": port,
            "r": user,
            "u": self.account.name,
        }

    def jump_host(self) -> str:
        """The host of ProxyJump's last hop, "" without one."""
        last = self.text("ProxyJump", "none").rpartition(",")[2]
        return "" if last == "none" else Hop.parse(last).host


def tilde(path: str, account: Account) -> str:
    """`~` and `~NAME` at the start replaced by a home directory; ValueError where NAME is nobody."""
    if not path.startswith("~"):
        return path
    name, _, rest = path[1:].partition("/")
    try:
        home = pwd.getpwnam(name).pw_dir if name else account.home
    except (KeyError, UnicodeError):
        raise ValueError(f"{path!r}: there is no user {name!r}; write the path out") from None
    return f"{home.rstrip('/')}/{rest.lstrip('/')}"


def _safe(status: os.stat_result, account: Account) -> bool:
    """Owned by root or us, and writable by nobody else (a group of ours alone is no one else)."""
    if status.st_uid not in (0, account.uid) or status.st_mode & stat.S_IWOTH:
        return False
    if not status.st_mode & stat.S_IWGRP:
        return True
    try:
        members = set(grp.getgrgid(status.st_gid).gr_mem)
        owner = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        return False
    primary = {entry.pw_name for entry in pwd.getpwall() if entry.pw_gid == status.st_gid}
    return bool(members | primary) and members <= {owner} and primary <= {account.name}


def _unknown(keyword: str) -> str:
    import difflib

    names = {known.name for known in KEYWORDS.values() if known.name}
    near = difflib.get_close_matches(lower(keyword), [lower(name) for name in names], 1, 0.75)
    hint = (
        f"did you mean {KEYWORDS[near[0]].name}?"
        if near
        else f"remove it, or put IgnoreUnknown {keyword} above"
    )
    return f"unknown option {keyword!r}; {hint}"
