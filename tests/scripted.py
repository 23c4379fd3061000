"""A service's history as a script: an hour gone by in no time, for the page, `status` and the metrics."""

from __future__ import annotations

import datetime
import random

from gotunnel.daemon.explained import explain
from gotunnel.observe.events import Alert, BreakerChange, Dial, Event, Failover, Fetch
from gotunnel.observe.history import History, WayNow, WayState
from gotunnel.observe.metrics import Metrics

SECRETS = ("hush-password", "x7SECRETx7SECRETx7SECRETx7")
HOSTILE = "<img src=x onerror=alert(1)>[red]\x1b[31m"
ERROR = f"can't reach http://u:{SECRETS[0]}@h:1 nor http://127.0.0.1:80/{SECRETS[1]}/a"


class Script:
    """Three ways out, one of them with a name that wants to be markup."""

    def __init__(self) -> None:
        self.now = 0.0
        self.day = datetime.datetime(2026, 3, 1, 9, 0, tzinfo=datetime.UTC)
        self.history = History(explain, clock=lambda: self.now, wall=self.wall)
        self.metrics = Metrics()
        self.states: dict[str, WayState] = {"tokyo": "up", "office": "up", HOSTILE: "unknown"}
        self.carried = dict.fromkeys(self.states, 0)
        self._random = random.Random(7)

    def wall(self) -> datetime.datetime:
        return self.day + datetime.timedelta(seconds=self.now)

    def tell(self, *events: Event) -> None:
        """To both."""
        for event in events:
            self.history(event)
            self.metrics(event)

    def look(self, seconds: float = 1.0) -> None:
        """Time goes by, then the ways out are looked at."""
        self.now += seconds
        chains = {
            "tokyo": f"ssh://dev:{SECRETS[0]}@jump-tokyo.example:22",
            "office": "http://proxy.office.example:3128,ssh://dev@jump-paris.example:443",
        }
        ways = [
            WayNow(
                name, state, chains.get(name, "socks5h://10.0.0.9:1080"), "far", 2 if name == "tokyo" else 1,
                open_streams=7 if state == "up" else 0, received=self.carried[name],
                sent=self.carried[name] // 40,
                last_error=("hop.stalled", ERROR) if state == "down" else None,
            )
            for name, state in self.states.items()
        ]  # fmt: skip
        self.history.look(ways, runs=2, store={"url": "file:///var/cache/gotunnel"})
        self.metrics.look(ways, runs=2)

    def hour(self) -> None:
        """A busy hour with a bad quarter."""
        self.look()
        for minute in range(59):
            busy = 0.2 + 0.8 * abs((minute % 30) - 15) / 15
            for name, ms in (("tokyo", 38.0), ("office", 61.0)):
                if name == "office" and 20 <= minute < 26:
                    self.tell(Dial(name, "proxy.golang.org:443", 5000.0, False, "tcp.timeout", ERROR))
                else:
                    self.tell(Dial(name, "proxy.golang.org:443", ms + self._random.expovariate(0.1), True))
                    self.carried[name] += int(busy * self._random.uniform(2e6, 9e6))
            self.tell(Fetch("rsc.io/quote/@v/v1.5.2.mod", "proxy.golang.org", "tokyo", 900, 84.0, False))
            self.tell(Fetch("rsc.io/quote/@v/v1.5.2.zip", "proxy.golang.org", "", 12000, 0.4, True))
            self.look(60.0)
        self.tell(
            Fetch("rsc.io/@v/list", "goproxy.cn", "office", 0, 120.0, False, "module.not-found", "404"),
            Fetch(
                "a.example/b/@v/v1.0.0.zip", "goproxy.cn", "office", 0, 99.0, False, "http.truncated", ERROR
            ),
            Failover("office", "tokyo", "proxy.golang.org:443", "tcp.timeout", ERROR),
            Alert("failure_rate", 42.0, 1.5, 5.2, "office"),
        )
        self.look()

    def fail_over(self) -> None:
        """Tokyo dies."""
        self.states["tokyo"] = "down"
        self.tell(
            Dial("tokyo", "proxy.golang.org:443", 5000.0, False, "hop.stalled", ERROR),
            BreakerChange("tokyo", "open", "hop.stalled", ERROR),
            Failover("tokyo", "office", "proxy.golang.org:443", "hop.stalled", ERROR),
        )
        self.look()
