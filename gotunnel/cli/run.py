"""`gotunnel run`: opens the ways out and the endpoint, starts CMD with them, repeats it if need be.

Rules:
- CMD starts at once, while the ways out are being opened: a run that needs no network waits for none.
- What is wrong with the configuration is said before CMD starts (78); what is wrong with the network only
  when CMD has asked for it.
- CMD's standard output is never touched.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gotunnel.cli.options import add_ways, load_ways, log_as_configured
from gotunnel.errors import ConfigError, GotunnelError, UsageError

if TYPE_CHECKING:
    from gotunnel.child.retry import Health
    from gotunnel.child.signals import Signals
    from gotunnel.cli.progress import Line, Progress
    from gotunnel.cli.remote import Server
    from gotunnel.cli.run_parts import Parts
    from gotunnel.config.load import Loaded, WaysOut

USAGE = "gotunnel run [options] [--] CMD [ARG…]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `run`; CMD is cut off before argparse sees it."""
    add_ways(parser)
    group = parser.add_argument_group("the run")
    group.add_argument(
        "--mirror",
        action="append",
        default=[],
        metavar="URL",
        help="a module proxy, tried before go's own list",
    )
    group.add_argument(
        "--retries", type=int, metavar="N", help="repeats of CMD after a network failure (default 3; go only)"
    )
    group.add_argument(
        "--timeout", metavar="DURATION", help="for the whole run, such as 90s or 10m (status 124)"
    )
    group.add_argument("--events", metavar="FILE", help="events as JSON lines; - is standard error")
    group.add_argument(
        "--server", default="", metavar="URL", help="the running serve to use: http://:TOKEN@HOST:PORT"
    )
    group.add_argument("--no-daemon", action="store_true", help="don't use a running serve")
    group.add_argument(
        "--no-modproxy", action="store_true", help="no module proxy: go asks the sources itself"
    )
    group.add_argument("--no-prefetch", action="store_true", help="fetch only what go asks for")
    group.add_argument("--offline", action="store_true", help="no network: modules come from the store alone")


def main(args: argparse.Namespace) -> int:
    """Run the command; returns CMD's status, or ours (contract §2)."""
    if not args.argv:
        raise UsageError(f"what shall I run? {USAGE}")
    if args.retries is not None and not 0 <= args.retries <= 100:
        raise UsageError(f"--retries {args.retries}: want 0 to 100")
    from gotunnel.goenv import mirror_url

    args.mirror = [mirror_url(url) for url in args.mirror]
    timeout = _duration(args.timeout) if args.timeout is not None else None
    loaded, ways = load_ways(args)
    log_as_configured(loaded)
    import asyncio

    args.env = {}
    return asyncio.run(_with_replaces(args, loaded, ways, timeout))


def _duration(text: str) -> float:
    from gotunnel.config.values import seconds

    try:
        return seconds(0.1, 7 * 24 * 3600).parse(text)
    except ValueError as error:
        raise UsageError(f"--timeout {text}: {error}") from None


async def _with_replaces(
    args: argparse.Namespace, loaded: Loaded, ways: WaysOut, timeout: float | None
) -> int:
    """`go mod tidy` and `go get` are to see the stand-ins of `gotunnel replace`."""
    if "tidy" not in args.argv and "get" not in args.argv:
        return await _run(args, loaded, ways, timeout)
    from gotunnel.cli.run_parts import here
    from gotunnel.cli.run_replaces import with_replaces

    async with with_replaces(args.argv, here(), os.environ) as replaced:
        args.argv, args.env = replaced.argv, replaced.env
        status = await _run(args, loaded, ways, timeout)
        replaced.done(status)  # merged only after status 0
    return status


async def _run(args: argparse.Namespace, loaded: Loaded, ways: WaysOut, timeout: float | None) -> int:

    from gotunnel.child.classify import is_go_command
    from gotunnel.child.retry import Runner
    from gotunnel.child.signals import Signals
    from gotunnel.cli.console import Console, tell, teller, wiped_by
    from gotunnel.cli.progress import Line, Progress, wanted
    from gotunnel.observe.events import Event, EventLog, Exit
    from gotunnel.tasks import Tasks

    started = time.monotonic()
    run_id = secrets.token_hex(6)
    config = loaded.config
    offline = args.offline or config.cache.offline
    console = Console(quiet=args.quiet)
    with contextlib.ExitStack() as stack:
        log = None
        if args.events is not None:
            try:
                log = EventLog(args.events, run_id, lambda why: tell(f"--events {args.events}: {why}"))
            except OSError as error:
                raise ConfigError(f"--events {args.events}: {error.strerror}") from error
            stack.callback(log.close)

        line, progress = Line(), Progress()
        shown = not args.quiet and is_go_command(args.argv) and wanted(os.environ)
        if shown:
            wiped_by(line.wipe)

        def emit(event: Event) -> None:
            console(event)
            progress(event)
            if log is not None:
                log(event)

        signals = stack.enter_context(Signals())
        runner = Runner(
            args.argv,
            signals=signals,
            emit=emit,
            tell=tell,
            note=teller(quiet=args.quiet),
            retries=0 if offline else config.retry.attempts,
            any_command=args.retries is not None,
            backoff=(config.retry.backoff.first, config.retry.backoff.last),
            wipe=line.wipe,
        )
        server = None if offline else _service(args)
        named = bool(args.server or os.environ.get("GOTUNNEL_SERVER"))  # nobody else will do
        try:
            async with contextlib.AsyncExitStack() as parts:

                async def own() -> tuple[Parts, Health]:
                    from gotunnel.cli.run_parts import own_parts

                    return await own_parts(
                        args,
                        config,
                        ways,
                        runner,
                        parts,
                        emit=emit,
                        run_id=run_id,
                        offline=offline,
                        planned=progress.planned,
                    )

                health: Health
                stands, instead = None, None
                if server is not None:
                    from gotunnel.cli.remote import ServerError
                    from gotunnel.cli.run_remote import Spare, remote_parts

                    spare = None if named else Spare(own, args.env, tell)
                    try:
                        stands, remote = await remote_parts(
                            args, config, server, runner, parts, emit=emit, run_id=run_id, spare=spare
                        )
                        health, instead = remote, remote.instead
                    except ServerError:
                        if named:
                            raise  # one that just ended is as none
                if stands is None:
                    stands, health = await own()
                if shown:
                    ticking = Tasks("progress")
                    parts.push_async_callback(ticking.close)
                    parts.callback(line.clear)
                    ticking.spawn("tick", _tick(line, progress))
                status = await runner.run(stands.env | args.env, health, timeout=timeout, instead=instead)
        except GotunnelError as error:
            emit(Exit(error.status, runner.attempts, (time.monotonic() - started) * 1000))
            raise
        if runner.gave_up is not None:
            _annotate(*runner.gave_up)
        if runner.wants_mirror and not ways.configured and not args.mirror:
            await _suggest_mirror(args.argv, stands.sources, signals)
        emit(Exit(status, runner.attempts, (time.monotonic() - started) * 1000))
    return status


def _annotate(id: str, detail: str) -> None:
    """Show it where the CI host looks for it."""
    import sys

    from gotunnel.findings.catalogue import finding
    from gotunnel.observe.annotate import annotate

    for line in annotate(id, detail, os.environ, fix=finding(id).fix):
        print(line, file=sys.stderr)


def _service(args: argparse.Namespace) -> Server | None:
    """The running serve to use, if there is one and no option asks otherwise.  Raises ServerError."""
    chosen = args.via or args.identity or args.ssh_config or args.known_hosts or args.config
    if args.no_daemon or (chosen and not args.server):
        return None
    if not args.server and any(os.environ.get(name) for name in ("GOTUNNEL_VIA", "GOTUNNEL_PROXY")):
        return None
    from gotunnel.cli.remote import find

    return find(os.environ, args.server)


async def _tick(line: Line, progress: Progress) -> None:
    import asyncio

    while True:
        await asyncio.sleep(0.25)
        if text := progress.text():
            line.show(text)
        else:
            line.clear()


async def _suggest_mirror(argv: list[str], tried: Sequence[str], signals: Signals) -> None:
    import asyncio
    import shlex

    from gotunnel.child.mirrors import PRESETS, first_reachable
    from gotunnel.cli.console import tell
    from gotunnel.tasks import Tasks

    tasks = Tasks("mirrors")
    asking = tasks.spawn("ask", first_reachable([m for m in PRESETS if m not in tried]))
    await asyncio.wait({asking, tasks.spawn("signal", signals.wait())}, return_when=asyncio.FIRST_COMPLETED)
    mirror = asking.result() if asking.done() else None
    await tasks.close()
    if signals.interrupted is not None:
        return
    if mirror is None:
        tell("no preset mirror can be reached from here either; name a way out: gotunnel run -J HOST -- …")
        return
    tell(f"{mirror} can be reached from here; try: gotunnel run --mirror {mirror} -- {shlex.join(argv)}")
