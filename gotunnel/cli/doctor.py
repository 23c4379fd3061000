"""`gotunnel doctor [--json] [--fix] [--via CHAIN]… [SUBJECT…]`: why Go can't reach its modules.

Rules:
- The report goes to standard output, 80 columns, plain text; `--json` prints contract §7's object instead.
- Status 0 without an error, 1 with one, 2 for a wrong command line.
- `--fix` shows each safe change and asks on the terminal, `--yes` answers for you; what they did goes to
  standard error.  A host key is shown by its fingerprint and is never taken without a person: `--yes` leaves
  it out.  After a change doctor looks again.
- Control characters and secrets of what others say (banners, issuers, bodies) never reach the terminal.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gotunnel.address import HostPort, one_line, redact
from gotunnel.cli.console import tell
from gotunnel.cli.options import add_ways, load_ways, ssh_defaults
from gotunnel.errors import UsageError

if TYPE_CHECKING:
    from gotunnel.config.load import WaysOut
    from gotunnel.doctor.doctor import Diagnosis, Way
    from gotunnel.doctor.fixes import Change
    from gotunnel.doctor.weigh import Looked
    from gotunnel.upstream.chain import ChainBuilder

_WIDTH = 80
_WAY = 28
_FIRST_HOP = 4.0  # seconds for its TCP connection: a second SYN after one, a third after three
_MARKS = {"error": "ERROR", "warning": "warning", "info": "note"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `doctor`."""
    add_ways(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the report")
    parser.add_argument("--fix", action="store_true", help="offer to make the safe changes, one by one")
    parser.add_argument("--yes", action="store_true", help="with --fix: make them without asking")
    parser.add_argument(
        "subjects",
        metavar="SUBJECT",
        nargs="*",
        help="a URL, HOST[:PORT] or MODULE[@VERSION]; none: everything that go needs here",
    )


def main(args: argparse.Namespace) -> int:
    """Examine, print, mend; returns the exit status.  Raises UsageError, ConfigError."""
    if args.yes and not args.fix:
        raise UsageError("doctor: --yes goes with --fix")
    diagnosis = asyncio.run(_examine(args))
    found = diagnosis.as_json()
    if args.fix and _mend(found, yes=args.yes):
        diagnosis = asyncio.run(_examine(args))
        found = diagnosis.as_json()
    if args.json:
        import json

        print(json.dumps(found, indent=2))
    else:
        print("\n".join(text(diagnosis, found)))
    return 0 if found["ok"] else 1


async def _examine(args: argparse.Namespace) -> Diagnosis:
    from gotunnel.doctor.doctor import examine
    from gotunnel.upstream.chain import ChainBuilder
    from gotunnel.upstream.direct import DirectDialer

    # a first hop that doesn't answer is told apart from one that answers and stalls: before a look ends
    builder = ChainBuilder(watch=lambda dialer, count: dialer if count else DirectDialer(timeout=_FIRST_HOP))
    try:
        ways, direct = _ways(args, builder)
        return await examine(os.environ, os.getcwd(), subjects=args.subjects, ways=ways, direct=direct)
    finally:
        await builder.close()


def _ways(args: argparse.Namespace, builder: ChainBuilder) -> tuple[list[Way], Callable[[HostPort], bool]]:
    """The ways out that were named, or those of the proxy variables; and which targets go past them."""
    from gotunnel.assemble import chain_of
    from gotunnel.doctor.doctor import Way
    from gotunnel.pattern import Pattern

    wanted = _named(args)
    if wanted is None:
        return _of_variables(builder), lambda target: False
    ways = []
    for upstream in wanted.pool:
        chain = ssh_defaults(args, chain_of(upstream, wanted))
        ways.append(Way(redact(upstream.name), builder.build(chain), spelled=wanted.source == "--via"))
    routes = [(tuple(map(Pattern.parse, route.match)), route.to) for route in wanted.routes]

    def direct(target: HostPort) -> bool:
        to = next((to for ps, to in routes if any(p.matches(target.host, target.port) for p in ps)), "")
        return to == "direct"

    return ways, direct


def _named(args: argparse.Namespace) -> WaysOut | None:
    """What --via or the configuration names; None where only the environment's proxy is left, or nothing."""
    from gotunnel.config.load import resolve_upstreams

    plain = {k: v for k, v in os.environ.items() if k.upper() != "HTTPS_PROXY"}
    loaded, _ = load_ways(args) if args.via else _loaded(args)
    out = resolve_upstreams(loaded.config, plain, via=args.via, file=loaded.path)
    return out if out.configured else None


def _loaded(args: argparse.Namespace) -> tuple[Any, None]:
    from gotunnel.config.load import load
    from gotunnel.config.sources import flags_of

    return load(flags_of(args), os.environ, path=args.config), None


def _of_variables(builder: ChainBuilder) -> list[Way]:
    """The proxies that go reads of the environment; a value that is none is the doctor's finding."""
    from gotunnel.config.upstreams import proxy_chain
    from gotunnel.doctor.doctor import Way
    from gotunnel.upstream.spec import parse_chain

    ways: dict[str, Way] = {}
    for upper in ("HTTPS_PROXY", "HTTP_PROXY"):
        name = upper if os.environ.get(upper) else upper.lower()
        if not (value := os.environ.get(name, "").strip()):
            continue
        try:
            chain = parse_chain(proxy_chain(value))
        except ValueError:
            continue
        label = redact(str(chain))
        if label not in ways:
            ways[label] = Way(label, builder.build(chain), variable=name)
    return list(ways.values())


# --- the report ------------------------------------------------------------------------------------


def text(diagnosis: Diagnosis, found: Mapping[str, Any]) -> Iterator[str]:
    """The lines of the report: the root cause first, then what works."""
    facts = diagnosis.facts
    yield from _wrapped(
        f"{facts.goversion or ('go' if facts.go else 'no go')}, GOPROXY={redact(facts.value('GOPROXY'))}", ""
    )
    if facts.gowork or facts.gomod:
        yield from _wrapped(facts.gowork or facts.gomod, "")
    yield ""
    for number, item in enumerate(found["findings"]):
        yield from lines_of(item, root=number == 0 and item["severity"] == "error")
    yield from _table(diagnosis.looks)
    errors = sum(item["severity"] == "error" for item in found["findings"])
    words = "healthy: go reaches all that it needs here" if found["ok"] else _count(errors, "error")
    yield f"{words} ({diagnosis.seconds:.1f} s)"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def lines_of(item: Mapping[str, Any], *, root: bool) -> Iterator[str]:
    """One finding of the report."""
    mark = "ROOT CAUSE" if root else _MARKS[item["severity"]]
    about = " by ".join(dict.fromkeys(filter(None, (item["subject"], item["via"]))))
    yield from _wrapped(f"{mark}: {item['id']}", "")
    yield from _wrapped(item["summary"], "    ")
    if about:
        yield from _wrapped(about, "    at: ", "        ")
    for name, value in item["evidence"].items():
        if isinstance(value, str | int | float) and str(value) and str(value) not in item["summary"]:
            yield from _wrapped(f"{name}: {value}", "    ", "      ")
    for number, line in enumerate(item["fix"]):
        # a command is never broken: it is there to be copied
        yield ("    mend: " if number == 0 else "      or: ") + one_line(str(line), 400)
    yield ""


def _table(looks: list[Looked]) -> Iterator[str]:
    """What was looked at, and how each way did: times in milliseconds."""
    if not looks:
        return
    yield _row("looked at (times in ms)", ("name", "connect", "tls", "first"), "code")
    for look in sorted(looks, key=lambda k: (k.behind, k.need.kind, k.need.url)):
        yield from _wrapped(redact(look.need.url), "", "  ")
        for seen in look.seens:
            works = look.works_by(seen.via)
            way = seen.via or "directly"
            if len(way) > _WAY - 6:
                yield from _wrapped(way, "  ", "    ")
                way = ""
            times = (seen.name_ms, seen.connect_ms, seen.tls_ms, seen.first_byte_ms)
            cells = ["-" if ms is None else f"{ms:.0f}" for ms in times]
            unused = "" if seen.via in look.goes else "not go's way"
            yield _row(
                f"  {'ok' if works else '!!'}  {one_line(way)}", cells, str(seen.status or "-"), unused
            )
            if not works and seen.finding:
                yield from _wrapped(f"{seen.finding}: {seen.detail}", "      ")
    yield ""


def _row(first: str, cells: Iterable[str], last: str, remark: str = "") -> str:
    return f"{first:<{_WAY}}{''.join(f'{cell:>8}' for cell in cells)}{last:>6}  {remark}".rstrip()


def _wrapped(words: str, indent: str, further: str | None = None) -> list[str]:
    clean = one_line(redact(words), 1000)
    lines = textwrap.wrap(
        clean, _WIDTH, initial_indent=indent, subsequent_indent=indent if further is None else further
    )
    return lines or [indent.rstrip()]


# --- mending -----------------------------------------------------------------------------------------


def _mend(found: Mapping[str, Any], *, yes: bool) -> bool:
    """Offer the safe changes; True where one was made."""
    from gotunnel.doctor.fixes import changes

    offered = changes(found["findings"])
    if not offered:
        tell("nothing here can be mended safely by itself; the report says what to do")
        return False
    made = [_offer(change, yes=yes) for change in offered]
    return any(made)


def _offer(change: Change, *, yes: bool) -> bool:
    from gotunnel.doctor.fixes import add_known_hosts, run_change, scan_keys

    cwd = os.getcwd()
    if not change.host:
        tell(f"change: {change.command}")
        if not yes and not _agreed("make this change?"):
            return False
        return _told(change, run_change(change, os.environ, cwd))
    lines, fingerprints = scan_keys(change, os.environ, cwd)
    if not lines or not fingerprints:
        tell(f"{change.host}:{change.port} shows no host key")
        return False
    for fingerprint in fingerprints:
        tell(f"host key: {fingerprint}")
    if yes:
        tell(f"not added, since only you can compare it: {change.command}")
        return False
    if not _agreed(f"add it for {change.host} to ~/.ssh/known_hosts?"):
        return False
    return _told(change, add_known_hosts(lines, os.environ.get("HOME") or os.path.expanduser("~")))


def _told(change: Change, problem: str) -> bool:
    tell(f"failed: {change.command}: {problem}" if problem else f"done: {change.command}")
    return not problem


def _agreed(question: str) -> bool:
    from gotunnel.cli.ask import terminal

    person = terminal()
    if person is None:
        tell("nobody to ask here; --yes makes the change")
        return False
    answer = asyncio.run(person(f"{question} [y/N] ", echo=True))
    return (answer or "").strip().lower() in ("y", "yes")
