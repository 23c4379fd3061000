"""A zip that is passed on while it comes, since it can be kept nowhere: its last part only when verified.

Rules:
- Its directory and its last LAST bytes are withheld until the sum is known and verified: what go has by then
  is no zip, and shorter than was announced.
- Whatever is wrong ends the answer before its end; it is told to the source's account and to a person, since
  go sees no more than an unexpected EOF.
- Memory: the pipe's, a piece, and what is withheld, WITHHELD bytes at most.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from functools import partial

from gotunnel.address import one_line
from gotunnel.errors import ModuleError
from gotunnel.modproxy.fetch import Fetched
from gotunnel.modproxy.pipe import Pipe
from gotunnel.modproxy.receive import Verifies, blamed
from gotunnel.modproxy.target import Target
from gotunnel.modproxy.zipsum import ZipSum
from gotunnel.tasks import in_thread

LAST = 64 << 10  # bytes
WITHHELD = 32 << 20


async def verified(
    target: Target, pipe: Pipe, fetched: Fetched, verifier: Verifies, failed: Callable[[ModuleError], None]
) -> AsyncGenerator[bytes, None]:
    """The zip of `target`, piece by piece.

    Raises ModuleError, before its last part, and calls `failed` with it.
    """
    summing = ZipSum(target.module, target.version)
    back, passed = bytearray(), 0
    try:
        while piece := await pipe.read():
            back += piece
            await in_thread("h1", partial(summing.feed, piece))
            ready = min(summing.content, passed + len(back) - LAST) - passed
            if ready > 0:
                passed += ready
                data = bytes(back[:ready])
                del back[:ready]
                yield data
            if len(back) > WITHHELD:
                words = f"{target}: its directory is too large to be withheld without a disk"
                raise ModuleError("disk.full", words, http_status=500, subject=str(target))
        h1 = await in_thread("h1", summing.finish)
        await verifier.check(target.module, target.version, "zip", h1)
        yield bytes(back)
    except ValueError as error:
        words = f"{target}: {one_line(str(error))}"
        wrong = blamed(ModuleError("module.bad-zip", words), target, fetched)
        failed(wrong)
        raise wrong from error
    except ModuleError as error:
        wrong = blamed(error, target, fetched)
        failed(wrong)
        raise wrong from error
    finally:
        pipe.give_up()
