"""`gotunnel probe [--json] [--via CHAIN]… URL…`: what each phase costs over each way out, side by side.

Rules:
- The table goes to standard output, 80 columns, plain text; `--json` prints one object instead:
  {"ok", "urls": [{"url", "ways": [{"via", "ok", "names", "phases": {"name_ms", "connect_ms", "tls_ms",
  "first_byte_ms"}, "hops": [{"hop", "ms"}], "status", "bytes", "rate_bps", "finding", "detail", "loss_bound",
  "fix"}]}]}
  Times are milliseconds, null for a phase that didn't happen; `rate_bps` is bytes a second; `finding` is an
  id of contract §7; `names` is "here", "far" or "none" (the URL holds an address); `loss_bound`: lost packets
  limit the rate; `fix`: what the operator of the first hop can do.
- Status 0 if some way out reached every URL, else 1; a bad URL is 2.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gotunnel.address import one_line, redact
from gotunnel.cli.options import add_ways, load_ways, log_as_configured, ssh_defaults
from gotunnel.errors import UsageError

if TYPE_CHECKING:
    from gotunnel.probe import Report, Result

_WIDTH = 80
_WAY = 25
_COLUMNS = (("name", 7), ("connect", 8), ("hops", 8), ("tls", 8), ("first", 8), ("rate", 10), ("", 5))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `probe`."""
    add_ways(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("urls", metavar="URL", nargs="+", help="http:// or https://")


def main(args: argparse.Namespace) -> int:
    """Measure, print; returns the exit status.  Raises UsageError, ConfigError."""
    import asyncio

    from gotunnel.assemble import chain_of
    from gotunnel.probe import Goal, Way, probe, some_way_reached_all
    from gotunnel.upstream.tls import client_context

    try:
        goals = [Goal.parse(url) for url in args.urls]
    except ValueError as error:
        raise UsageError(f"probe {error}") from None
    loaded, out = load_ways(args)
    log_as_configured(loaded)
    ways = [Way(upstream.name, ssh_defaults(args, chain_of(upstream, out))) for upstream in out.pool]
    reports = asyncio.run(probe(ways, goals, trust=client_context))
    ok = some_way_reached_all(reports)
    if args.json:
        import json

        print(json.dumps({"ok": ok, "urls": [report.as_json() for report in reports]}, indent=2))
    else:
        print("\n".join(line for report in reports for line in table(report)))
    return 0 if ok else 1


def table(report: Report) -> Iterator[str]:
    """The lines for one URL."""
    yield from textwrap.wrap(one_line(report.goal.url), _WIDTH)
    yield "  " + "way out".ljust(_WAY - 2) + "".join(title.rjust(width) for title, width in _COLUMNS).rstrip()
    for result in report.results:
        yield from _rows(result)
    yield ""


def _rows(result: Result) -> Iterator[str]:
    name = one_line(redact(result.via))
    short = name if len(name) <= _WAY - 3 else name[: _WAY - 4] + "…"
    mark = " " if result.ok else "!"
    reached = [ms for _, ms in result.hops if ms is not None]
    cells = (
        "far" if result.names == "far" else _time(result.name_ms),
        _time(result.connect_ms),
        _time(sum(reached) if reached else None),
        _time(result.tls_ms),
        _time(result.first_byte_ms),
        _rate(result.rate),
        str(result.status or "-"),
    )
    row = "".join(cell.rjust(width) for cell, (_, width) in zip(cells, _COLUMNS, strict=True))
    yield f"{mark} {short.ljust(_WAY - 2)}{row}"
    if short != name or len(result.hops) > 1:
        hops = ", then ".join(f"{one_line(redact(hop))} {_time(ms)}" for hop, ms in result.hops)
        yield from _indented(hops if reached else name)
    if result.finding is not None:
        yield from _indented(f"{result.finding}: {one_line(redact(result.detail or ''))}")
    if result.loss_bound:
        yield from _loss(result)


def _loss(result: Result) -> Iterator[str]:
    words = "packets get lost, which is what limits the rate (gotunnel run uses several connections then)"
    if not result.fix:
        yield from _indented(words)
        return
    who = one_line(redact(result.sender))
    yield from _indented(f"{words}; one would do if the operator of {who} ran:")
    yield from (f"        {command}" for command in result.fix)


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="    ", subsequent_indent="    ")


def _time(ms: float | None) -> str:
    if ms is None:
        return "-"
    if ms < 9.95:
        return f"{ms:.1f} ms"
    return f"{ms:.0f} ms" if ms < 9999.5 else f"{ms / 1000:.0f} s"


def _rate(rate: float | None) -> str:
    if rate is None:
        return "-"
    for unit in ("B/s", "kB/s", "MB/s"):
        if rate < 999.5:
            return f"{rate:.3g} {unit}"
        rate /= 1000
    return f"{rate:.3g} GB/s"
