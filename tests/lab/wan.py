"""A WAN link between two namespaces: delay, jitter, loss and rate, made by wanlink.c.

Rules:
- The C program is compiled when first needed, into a directory that goes with this process.
- Addresses are PREFIX.1/30 at `a` and PREFIX.2/30 at `b`.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.lab import proc
from tests.lab.netns import Namespace

_SOURCE = Path(__file__).with_name("wanlink.c")


@dataclass(frozen=True, slots=True)
class Line:
    """What a line is like, the same in both directions.

    `delay` and `jitter` in milliseconds one way (RTT is twice the delay), `loss` in percent, in bursts
    of `burst` packets on average, `rate` in Mbit/s (0: no bound), `queue` in KiB (0: 100 ms at the rate).
    """

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    burst: float = 1.0
    rate: float = 0.0
    queue: float = 0.0

    def options(self) -> list[str]:
        """As options of wanlink."""
        values = {"-d": self.delay, "-j": self.jitter, "-l": self.loss, "-b": self.burst}
        values |= {"-r": self.rate, "-q": self.queue}
        return [word for flag, value in values.items() if value for word in (flag, f"{value:g}")]


def can_make_wan() -> tuple[bool, str]:
    """Whether the link's program can be built and used; else why not (namespaces are asked for apart)."""
    if proc.tool("cc") is None:
        return False, "a WAN link needs a C compiler (cc)"
    if not Path("/dev/net/tun").exists():
        return False, "a WAN link needs /dev/net/tun"
    return True, ""


@functools.cache
def _program() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="gt-wanlink-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    program = directory / "wanlink"
    proc.run([proc.need_tool("cc"), "-O2", "-pthread", "-o", str(program), str(_SOURCE)])
    return program


class WanLink:
    """The link; it is there when the constructor returns, and gone after `close`."""

    def __init__(
        self,
        a: Namespace,
        b: Namespace,
        line: Line,
        directory: Path,
        *,
        prefix: str = "10.99.0",
        device: str = "wan0",
    ) -> None:
        self.address_a, self.address_b = f"{prefix}.1", f"{prefix}.2"
        self._process = proc.Process(
            [str(_program()), *line.options(), "-p", prefix, "-n", device, a.name, b.name],
            log=directory / f"wanlink-{a.name}-{b.name}-{device}.log",
        )
        try:
            self._process.wait_ready("a WAN link", lambda: "ready" in self._process.output())
        except BaseException:
            self.close()
            raise

    def counters(self) -> str:
        """What passed and what was lost so far, in wanlink's words."""
        seen = self._process.output().count("B->A")
        proc.send([self._process.pid], signal.SIGUSR1)
        return proc.wait_until(
            "the counters of a WAN link",
            lambda: text if (text := self._process.output()).count("B->A") > seen else "",
        )

    def close(self) -> None:
        """Take the link away."""
        self._process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
