"""`gotunnel demo`: a whole failover on this machine."""

from __future__ import annotations

import argparse
import os
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `demo`."""
    parser.add_argument("--verbose", action="store_true", help="show go's own output, too")
    parser.add_argument(
        "--keep", action="store_true", help="keep the temporary directory, and say where it is"
    )
    parser.add_argument(
        "--plain-http",
        action="store_true",
        help="modules by http inside SSH (always so where go takes no CA from SSL_CERT_FILE: macOS)",
    )


def main(args: argparse.Namespace) -> int:
    """0 if all went as it should, 1 if not, 127 without a go command."""
    from gotunnel.demo.play import run_demo

    try:
        return run_demo(quiet=args.quiet, verbose=args.verbose, keep=args.keep, plain_http=args.plain_http)
    except BrokenPipeError:
        # whoever read us has left; nothing more is said, not even by the interpreter when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise
