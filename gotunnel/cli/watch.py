"""What a terminal shows of a running serve: `status` once as text, `status --watch` live.

Rules:
- Both draw the snapshot that the status page draws, and nothing else.
- Names and errors come from outside: no markup of rich, no control characters.
- A part that the service didn't tell is left out: it may be of another version.
- Live: Ctrl-C ends it with status 0; a service that has gone is waited for.
"""

from __future__ import annotations

import contextlib
import datetime
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gotunnel.address import one_line, redact
from gotunnel.errors import GotunnelError

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType

Snapshot = Mapping[str, Any]
_STATES = {
    "up": ("●", "up", "green"),
    "down": ("■", "down", "red"),
    "half-open": ("◐", "being tried", "yellow"),
    "unknown": ("○", "not tried yet", "dim"),
}
_BARS = "▁▂▃▄▅▆▇█"
_PLAIN = "_.-=+*#@"  # where the terminal has no such signs
_FIGURES = {"latency": 0, "streams": 66, "receiving": 54, "received": 76}  # from which width on
_SHOWN = 5  # failures and failovers


def once(snapshot: Snapshot, console: Console | None = None) -> int:
    """Print it; returns the exit status."""
    out = console or _console()
    out.print(view(snapshot, out))
    return 0


def live(ask: Callable[[], Snapshot], console: Console | None = None, *, every: float = 1.0) -> int:
    """Show what `ask` gives, each `every` seconds, until Ctrl-C.  Raises what the first `ask` raises."""
    from rich.live import Live
    from rich.text import Text

    out = console or _console()
    snapshot, gone = ask(), ""
    if not out.is_terminal or out.is_dumb_terminal:  # a pipe gets one after the other
        with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
            while True:
                out.print(view(snapshot, out))
                time.sleep(every)
                snapshot = ask()
        return 0
    with contextlib.suppress(KeyboardInterrupt), Live(console=out, screen=True, auto_refresh=False) as screen:
        while True:
            shown = view(snapshot, out, lines=out.size.height)
            if gone:
                shown.renderables.insert(0, Text(f"waiting for the service: {gone}", style="red"))
            screen.update(shown, refresh=True)
            time.sleep(every)
            try:
                snapshot, gone = ask(), ""
            except GotunnelError as error:
                gone = _clean(str(error))
    return 0


def view(snapshot: Snapshot, console: Console, lines: int | None = None) -> Group:
    """All of it, fit for `console`'s width; failures are cut to what `lines` leaves."""
    from rich.console import Group
    from rich.text import Text

    plain = not (console.encoding or "").lower().startswith("utf")
    ways = _list(snapshot, "ways")
    parts: list[RenderableType] = [_head(snapshot, ways), Text("")]
    parts += [_ways_table(ways, console.width, plain), Text("")]
    parts.append(_modules(snapshot.get("modproxy") or {}))
    room = _SHOWN if lines is None else max(1, min(_SHOWN, (lines - len(ways) * 2 - 12) // 3))
    moves = _list(snapshot.get("failovers") or {}, "last")[:room]
    if moves:
        parts += [Text(""), Text("failovers", style="bold")]
        parts += [
            Text(f"  {_hour(m)}  {_clean(m['from'])} > {_clean(m['to'])}: {_clean(m['reason'])}{_times(m)}")
            for m in moves
        ]
    alerts = _list(snapshot, "alerts")[:room]
    if alerts:
        parts += [Text(""), Text("alerts", style="bold")]
        for alert in alerts:
            what = f"{_clean(alert['upstream'])}: {_clean(alert['signal'])} {alert['value']}"
            parts.append(Text(f"  {_hour(alert)}  {what}, usually {alert['mean']}"))
    failures = _list(snapshot, "failures")
    if failures:
        parts += [Text(""), Text("last failures", style="bold")]
        for failure in failures[:room]:
            parts += _failure(failure)
    return Group(*parts)


def _console() -> Console:
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, emoji=False, soft_wrap=False)


def _head(snapshot: Snapshot, ways: Sequence[Snapshot]) -> RenderableType:
    from rich.text import Text

    up = sum(way["state"] == "up" for way in ways)
    text = Text()
    text.append("gotunnel ", style="bold").append(_clean(snapshot.get("version", "")))
    text.append(f"  {up} of {len(ways)} ways out up", style="green" if up else "red")
    text.append(f"  {snapshot.get('streams', 0)} streams  {snapshot.get('runs', 0)} runs")
    text.append(f"  up for {_span(snapshot.get('uptime', 0))}", style="dim")
    if snapshot.get("ready") is False:
        text.append(f"\nnot ready: {_clean(snapshot.get('why') or 'nothing was tried yet')}", style="yellow")
    return text


def _ways_table(ways: Sequence[Snapshot], width: int, plain: bool) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    wide = width >= 100
    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False, expand=False, header_style="dim")
    table.add_column("way out", overflow="fold", min_width=8, max_width=40)
    table.add_column("state", no_wrap=True)
    shown = [title for title, least in _FIGURES.items() if width >= least]
    for title in shown:
        table.add_column(title, justify="right", no_wrap=True)
    if wide:
        table.add_column("latency, last half hour", no_wrap=True)
    for way in ways:
        sign, word, style = _STATES.get(way["state"], _STATES["unknown"])
        name = Text(_clean(way["name"]))
        if wide and way.get("chain") and way["chain"] != way["name"]:
            name.append("\n" + "\n".join(_clean(hop) for hop in way["chain"].split(",")), style="dim")
        state = Text(word if plain else f"{sign} {word}", style=style)
        error = way.get("last_error")
        if way["state"] != "up" and error:
            state.append(f"\n{_clean(error['finding'])}", style="red")
        if way.get("names") == "here" and not str(way.get("chain", "")).startswith("direct:"):
            state.append("\nnames resolved here", style="yellow")  # not at the far end, where nobody lies
        figures = {
            "latency": _ms(way["latency_ms"]),
            "streams": str(way["streams"]),
            "receiving": f"{_size(way['rate_in'])}/s",
            "received": _size(way["bytes_in"]),
        }
        cells: list[RenderableType] = [name, state, *(Text(figures[title]) for title in shown)]
        if wide:
            cells.append(Text(spark(way["hour"]["latency"][-30:], plain=plain), style="cyan"))
        table.add_row(*cells)
    return table


def _modules(modules: Snapshot) -> RenderableType:
    from rich.text import Text

    text = Text("module proxy", style="bold")
    text.append(f"  {modules.get('requests', 0)} requests", style="not bold")
    ratio = modules.get("hit_ratio")
    if ratio is not None:
        text.append(f", {ratio:.0%} from the store", style="not bold")
    text.append(f", {_size(modules.get('bytes', 0))}", style="not bold")
    for source in _list(modules, "sources")[:_SHOWN]:
        failed = f", {source['failures']} failed" if source["failures"] else ""
        words = (
            f"\n  {_clean(source['name'])}: {source['requests']} requests{failed}, {_ms(source['ms_p50'])}"
        )
        text.append(words, style="not bold")
    return text


def _failure(failure: Snapshot) -> list[RenderableType]:
    from rich.text import Text

    via = _clean(failure["via"])
    head = Text(f"  {_hour(failure)}  ").append(_clean(failure["finding"]), style="red")
    head.append(f"{_times(failure)}  {_clean(failure['subject'])}" + (f" by {via}" if via else ""))
    parts: list[RenderableType] = [head]
    if failure["summary"]:
        parts.append(Text(f"            {_clean(failure['summary'])}", style="dim"))
    if failure["fix"]:
        parts.append(Text(f"            fix: {_clean(failure['fix'][0])}", style="dim"))
    return parts


def spark(values: Sequence[float | None], *, plain: bool = False) -> str:
    """One sign for each value, a blank where nothing was measured."""
    bars = _PLAIN if plain else _BARS
    most = max((value for value in values if value is not None), default=0.0)
    share = len(bars) / most if most > 0 else 0.0
    return "".join(" " if value is None else bars[min(len(bars) - 1, int(value * share))] for value in values)


def _list(snapshot: Snapshot, key: str) -> list[Any]:
    return list(snapshot.get(key) or [])


def _clean(text: object) -> str:
    return one_line(redact(str(text)), 200)


def _hour(item: Snapshot) -> str:
    """The time of day, here."""
    try:
        return datetime.datetime.fromisoformat(str(item["ts"])).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return "?"


def _times(item: Snapshot) -> str:
    return f" x{item['count']}" if item.get("count", 1) > 1 else ""


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return (
        f"{value / 1000:.1f} s" if value >= 10_000 else f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"
    )


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _span(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
