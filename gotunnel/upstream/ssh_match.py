"""Patterns and conditions of OpenSSH's client configuration: `Host` lists and `Match` lines.

Rules (ssh_config(5) PATTERNS and Match):
- `*` is any run of characters, `?` exactly one; a list fails if one of its negated patterns matches, and a
  negated match alone is never a positive one.
- `Host` is compared as typed, `Match host` and `originalhost` in lower case.
- Criteria are taken from left to right; `exec` runs only while all before it matched.  `final` and
  `canonical` hold only in the second pass, and `final` asks for it.
- Deciding is pure but for `exec` (a shell, no standard input or output) and `localnetwork` (reads /proc).
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field

from gotunnel.dataclass import dataclass
from gotunnel.upstream.ssh_tokens import lower, next_word

EXEC_TIMEOUT = 30.0  # seconds; ssh waits for ever


def matches(text: str, pattern: str) -> bool:
    """True if the whole of `text` fits `pattern`; linear in their product, whatever the stars."""
    at = here = 0
    star, resume = -1, 0
    while at < len(text):
        if here < len(pattern) and pattern[here] == "*":
            star, resume = here, at
            here += 1
        elif here < len(pattern) and pattern[here] in ("?", text[at]):
            at += 1
            here += 1
        elif star >= 0:
            resume += 1
            at, here = resume, star + 1
        else:
            return False
    return pattern[here:].strip("*") == ""


@dataclass(frozen=True, slots=True)
class Fit:
    """How a list of patterns took a text: did it match, and by a pattern without wildcards?"""

    matched: bool
    literal: bool = False

    @classmethod
    def among(cls, text: str, patterns: Sequence[str]) -> Fit:
        """One negated match fails the list, whatever stands beside it."""
        literal = matched = False
        for pattern in patterns:
            if not matches(text, pattern.removeprefix("!")):
                continue
            if pattern.startswith("!"):
                return cls(False)
            matched = True
            literal = literal or not set(pattern) & {"*", "?"}
        return cls(matched, literal)


def in_list(text: str, patterns: str) -> Fit:
    """`patterns` separated by commas, in their own case."""
    return Fit.among(text, patterns.split(","))


@dataclass(frozen=True, slots=True)
class Subject:
    """What a Match line is held against: values as resolved so far, and what running a command needs.

    `expand` fills a command's tokens; `may_run` is False where the block can't apply anyway.
    """

    host: str
    original: str
    user: str
    local_user: str
    tag: str
    final: bool
    expand: Callable[[str], str]
    environ: Mapping[str, str]
    may_run: bool = True


@dataclass(slots=True)
class Verdict:
    """What a Match line says: does its block apply, does it want a second pass, did it name the host as
    typed without wildcards; and the criteria that can't be told here (they count as not matched)."""

    matched: bool = True
    wants_final: bool = False
    named: bool = False
    untold: list[str] = field(default_factory=list)


def evaluate(condition: str, subject: Subject) -> Verdict:
    """Judge the words after `Match`.  Raises ValueError (`what; what to do`) for a condition ssh refuses."""
    verdict = Verdict()
    count, rest = 0, condition or None
    while True:
        word, rest = next_word(rest)
        if not word or word.startswith("#"):
            break
        criterion, negated = lower(word.removeprefix("!")), word.startswith("!")
        if criterion == "all":
            extra, rest = next_word(rest)
            if count > 1 or (extra and not extra.startswith("#")):
                raise ValueError("Match all stands alone; remove the other criteria")
            verdict.matched = verdict.matched and not negated
            return verdict
        count += 1
        if criterion in ("final", "canonical"):
            verdict.wants_final = verdict.wants_final or criterion == "final"
            verdict.matched = verdict.matched and subject.final != negated
            continue
        argument, rest = next_word(rest)
        if not argument or argument.startswith("#"):
            raise ValueError(f"Match {criterion} lacks its value; add it")
        fit = _judge(criterion, argument, subject, verdict)
        verdict.matched = verdict.matched and fit.matched != negated
        if criterion in ("host", "originalhost") and fit.literal and not negated:
            verdict.named = True
    if count == 0:
        raise ValueError("Match lacks a criterion; write Match all, host, originalhost, user, exec …")
    verdict.named = verdict.named and verdict.matched
    return verdict


def _judge(criterion: str, argument: str, subject: Subject, verdict: Verdict) -> Fit:
    texts = {
        "host": lower(subject.host),
        "originalhost": lower(subject.original),
        "user": subject.user,
        "localuser": subject.local_user,
        "tagged": subject.tag,
        "command": "",  # we never run one
        "sessiontype": "none",
    }
    if criterion in texts:
        folded = lower(argument) if criterion in ("host", "originalhost") else argument
        return in_list(texts[criterion], folded)
    if criterion == "exec":
        command = subject.expand(argument)
        return Fit(verdict.matched and subject.may_run and _run(command, subject.environ))
    if criterion == "localnetwork":
        networks = _networks(argument)
        addresses = _local_addresses()
        if addresses is None:
            verdict.untold.append("Match localnetwork")
        return Fit(any(address in network for address in addresses or () for network in networks))
    if criterion == "version":
        verdict.untold.append("Match version")
        return Fit(False)
    raise ValueError(
        f"unknown Match criterion {criterion!r}; use all, host, originalhost, user, localuser, exec, final, "
        "canonical, tagged or localnetwork"
    )


def _run(command: str, environ: Mapping[str, str]) -> bool:
    shell = environ.get("SHELL") or "/bin/sh"
    try:
        process = subprocess.Popen(
            [shell, "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=dict(environ),
            process_group=0,
        )
    except OSError as error:
        raise ValueError(f"can't run {shell}: {error.strerror}; check $SHELL") from None
    try:
        status = process.wait(EXEC_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"Match exec {command!r} didn't end in {EXEC_TIMEOUT:.0f} s; make it quick"
        ) from None
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status < 0:
        raise ValueError(f"Match exec {command!r} was ended by signal {-status}; try it in a shell")
    return status == 0


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(argument: str) -> list[_Network]:
    try:
        return [ipaddress.ip_network(part) for part in argument.split(",")]
    except ValueError as error:
        raise ValueError(f"Match localnetwork: {error}; write it as 10.0.0.0/8") from None


def _local_addresses() -> list[_Address] | None:
    """The addresses of this machine's interfaces, from Linux's /proc; None where that isn't there."""
    addresses: list[_Address] = []
    try:
        with open("/proc/net/fib_trie", encoding="ascii") as file:
            last = ""
            for line in file:
                if "|--" in line:
                    last = line.split("|--")[1].strip()
                elif "/32 host LOCAL" in line:
                    addresses.append(ipaddress.IPv4Address(last))
    except (OSError, ValueError):
        return None
    with contextlib.suppress(OSError, ValueError), open("/proc/net/if_inet6", encoding="ascii") as file:
        addresses += [ipaddress.IPv6Address(bytes.fromhex(line.split()[0])) for line in file]
    return addresses
