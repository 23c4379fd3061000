"""CMD's standard error, when it is read: passed on unchanged as it comes, and shown to a callback.

Rules:
- A thread of its own: a terminal that is held (Ctrl-S) or a slow reader holds CMD, as it would without
  us, and never the event loop, which carries the tunnel.
- When nobody reads our standard error any more the pipe is closed, so that CMD gets its EPIPE.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import threading
from collections.abc import Callable


class Tee:
    """A pipe whose `write_end` CMD gets; `on_bytes` is called in the event loop, in order.

    `wipe` gives what has to be written before anything else, from any thread.
    """

    def __init__(
        self, on_bytes: Callable[[bytes], None], out: int = 2, *, wipe: Callable[[], bytes] = bytes
    ) -> None:
        self._on_bytes, self._out, self._wipe = on_bytes, out, wipe
        self._source, self.write_end = os.pipe()
        self._ended, self._end = os.pipe()  # written when no writer is left that counts
        self._loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        self._thread = threading.Thread(target=self._carry, name="stderr", daemon=True)

    def start(self) -> None:
        """CMD holds its end: close ours and read."""
        os.close(self.write_end)
        self._thread.start()

    async def finish(self, timeout: float) -> bool:
        """CMD is gone: pass on what is in the pipe; False if it took longer than `timeout` seconds."""
        os.write(self._end, b"x")
        try:
            await asyncio.wait_for(self._done.wait(), timeout)
        except TimeoutError:
            return False  # our standard error is held; the thread goes on, and dies with us
        self._thread.join()
        for end in (self._source, self._ended, self._end):
            if end >= 0:
                os.close(end)
        return True

    def _carry(self) -> None:
        poll = select.poll()
        for end in (self._source, self._ended):
            poll.register(end, select.POLLIN)
        os.set_blocking(self._source, False)
        while True:
            ended = self._ended in [end for end, _ in poll.poll()]
            try:
                data = os.read(self._source, 65536)
            except BlockingIOError:
                if ended:
                    break
                continue
            if not data or not self._pass_on(data):
                break
        os.close(self._source)
        self._source = -1
        self._call(self._done.set)

    def _pass_on(self, data: bytes) -> bool:
        self._call(self._on_bytes, data)
        data = self._wipe() + data
        while data:
            try:
                data = data[os.write(self._out, data) :]
            except BlockingIOError:  # somebody made our standard error non-blocking
                poll = select.poll()
                poll.register(self._out, select.POLLOUT)
                poll.poll()
            except OSError:
                return False
        return True

    def _call(self, function: Callable[..., None], *arguments: bytes) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
            self._loop.call_soon_threadsafe(function, *arguments)
