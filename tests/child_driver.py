"""`gotunnel run` reduced to its child: python -m tests.child_driver [--tee FILE] [--terminate S] CMD…

Exits with CMD's status.  FILE gets what the callback of standard error saw.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys

from gotunnel.child.run import Child
from gotunnel.child.signals import Signals
from gotunnel.errors import CommandError


async def drive(options: argparse.Namespace) -> int:
    seen = bytearray()
    with Signals() as signals:
        async with Child(
            options.cmd,
            env=os.environ,
            signals=signals,
            on_stderr=seen.extend if options.tee else None,
            grace=options.grace,
        ) as child:
            if options.terminate is not None:
                asyncio.get_running_loop().call_later(options.terminate, child.terminate)
            result = await child.wait()
    if options.tee:
        with open(options.tee, "wb") as file:
            file.write(seen)
    if result.note:
        print(f"gotunnel: {result.note}", file=sys.stderr)
    return result.status


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tee")
    parser.add_argument("--terminate", type=float)
    parser.add_argument("--grace", type=float, default=10.0)
    parser.add_argument("cmd", nargs=argparse.REMAINDER)
    try:
        sys.exit(asyncio.run(drive(parser.parse_args())))
    except CommandError as error:
        print(f"gotunnel: {error}", file=sys.stderr)
        sys.exit(error.status)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
