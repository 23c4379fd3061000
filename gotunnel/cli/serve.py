"""`gotunnel serve`: the same engine in the foreground for ever (daemon/service.py)."""

from __future__ import annotations

import argparse
import os
import re
from typing import cast

from gotunnel.cli.options import add_ways, load_ways, ssh_defaults
from gotunnel.errors import UsageError

USAGE = "gotunnel serve [options]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The ways out, and which of several services of one user this is."""
    add_ways(parser)
    group = parser.add_argument_group("the service")
    group.add_argument(
        "--profile", default="", metavar="NAME", help="one of several services of a user, as in gotunnel@NAME"
    )


def main(args: argparse.Namespace) -> int:
    """Serve until SIGTERM; returns 0."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{0,64}", args.profile):
        raise UsageError(f"--profile {args.profile!r}: want letters, digits, dots, dashes")
    import asyncio
    import logging

    from gotunnel.cli.console import Console, tell
    from gotunnel.config.load import load
    from gotunnel.config.sources import flags_of
    from gotunnel.daemon.service import Service, Setup
    from gotunnel.observe.eventlines import EventLogger
    from gotunnel.observe.events import Emit
    from gotunnel.observe.logs import Format, set_up

    config = load(flags_of(args), os.environ, path=args.config).config
    set_up(cast(Format, config.log.format), config.log.level, os.environ)
    plain = config.log.format != "json" and not os.environ.get("JOURNAL_STREAM")
    watch: Emit = Console(quiet=args.quiet) if plain else EventLogger(logging.getLogger("gotunnel.events"))
    log = logging.getLogger("gotunnel.service")
    setup = Setup(
        load=lambda: load_ways(args),
        tell=(lambda text: None) if args.quiet else tell if plain else log.info,
        adjust=lambda chain: ssh_defaults(args, chain),
        profile=args.profile,
        listeners=(watch,),
    )

    async def run() -> int:
        return await Service(setup, os.environ).run()

    return asyncio.run(run())
