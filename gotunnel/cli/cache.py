"""`gotunnel cache info|prefetch|verify|prune|export|import`: looks after the module store.

Rules:
- Results go to standard output, one line each; what goes on and what went wrong to standard error.
- `prefetch` and `export` go by the ways out, as `run` does; the others open none.
- `export` writes a whole bundle or nothing; a file that can't be had is named (status 69).
- `import` trusts the checksum database of this machine's GOSUMDB, never a key that came along.
- `verify` removes nothing without --remove; status 1 where something is bad.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from gotunnel.cli.options import add_ways
from gotunnel.errors import UsageError

if TYPE_CHECKING:
    from gotunnel.config.load import Loaded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `cache`."""
    commands = parser.add_subparsers(dest="cache_command", metavar="COMMAND", required=True)

    def add(name: str, words: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=words, description=words, allow_abbrev=False)

    info = add("info", "where the store is, what it holds, by what that was verified")
    info.add_argument("--json", action="store_true", help="as one JSON object")
    prefetch = add("prefetch", "fetches what the project in DIR needs into the store")
    prefetch.add_argument("directory", metavar="DIR", nargs="?", default=".", help="default: here")
    verify = add("verify", "reads every file again and compares its sum; status 1 where one is bad")
    verify.add_argument("--remove", action="store_true", help="remove the bad ones")
    prune = add("prune", "removes what was not used for longest, until the store has its size")
    prune.add_argument("--max-size", metavar="SIZE", help="such as 5GB; default: [cache] max_size")
    export = add("export", "writes all that a project needs into FILE, to be carried to another machine")
    export.add_argument("file", metavar="FILE", help="- is standard output")
    export.add_argument("directory", metavar="DIR", nargs="?", default=".", help="the project; default: here")
    export.add_argument("--offline", action="store_true", help="only what the store and GOMODCACHE have")
    export.add_argument("--toolchain", action="store_true", help="the Go toolchain of go.mod too")
    export.add_argument(
        "--platform", metavar="OS-ARCH", help="whose toolchain, such as linux-arm64; default: this machine's"
    )
    for sub in (prefetch, export):
        add_ways(sub)
        sub.add_argument(
            "--mirror", action="append", default=[], metavar="URL", help="a module proxy, tried first"
        )
    taking = add("import", "takes what export wrote into the store, each file verified")
    taking.add_argument("file", metavar="FILE", help="- is standard input")


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status.  Raises GotunnelError."""
    import asyncio

    from gotunnel.cli import cache_jobs

    jobs = {"info": cache_jobs.info, "verify": cache_jobs.verify, "prune": cache_jobs.prune}
    if args.cache_command in jobs:
        return asyncio.run(jobs[args.cache_command](args, load(args)))
    if args.cache_command == "prefetch":
        from gotunnel.cli.cache_work import prefetch

        return asyncio.run(prefetch(args))
    if args.cache_command == "import":
        return asyncio.run(cache_jobs.take_in(args, load(args)))
    if args.file == "-" and sys.stdout.isatty():
        raise UsageError("a bundle is no text; name a FILE, or lead standard output somewhere")
    from gotunnel.cli.cache_export import export

    return asyncio.run(export(args))


def load(args: argparse.Namespace) -> Loaded:
    """The configuration without ways out.  Raises ConfigError."""
    from gotunnel.config.load import load as load_file
    from gotunnel.config.sources import flags_of

    return load_file(flags_of(args), os.environ, path=args.config)
