"""`gotunnel status`: what the running serve is doing, as text, as JSON, or live (`--watch`)."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from gotunnel.cli.env import NoService
from gotunnel.errors import UsageError

USAGE = "gotunnel status [--json] [--watch]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--json, --watch, --server."""
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--watch", action="store_true", help="live, until Ctrl-C")
    parser.add_argument(
        "--server", default="", metavar="URL", help="the running serve: http://:TOKEN@HOST:PORT"
    )
    parser.add_argument("--profile", default="", metavar="NAME", help="one of several services")


def main(args: argparse.Namespace) -> int:
    """Show it; 69 where no service runs."""
    from gotunnel.cli.remote import find

    server = find(os.environ, args.server, args.profile)
    if server is None:
        raise NoService("no serve is running; start it: gotunnel serve, or gotunnel service install")
    if args.json and args.watch:
        raise UsageError("status: --json and --watch exclude each other")
    if args.json:
        json.dump(server.ask("GET", "/api/status"), sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
        return 0
    from gotunnel.cli import watch

    def ask() -> dict[str, Any]:
        found: dict[str, Any] = server.ask("GET", "/api/status")
        return found

    if args.watch:
        return watch.live(ask)
    done = watch.once(ask())
    if sys.stdout.isatty():  # not into a log: it opens the page
        print(f"page: http://{server.address}/?token={server.token}")
    return done
