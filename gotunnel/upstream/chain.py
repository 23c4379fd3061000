"""A chain is a fold: each hop's dialer is built on the dialer before it.

Rules:
- The bottom is DirectDialer, unless the first hop is `direct:` with its own options.
- Hops that several chains share (the same specification after the same hops) share their dialer, and so their
  SSH connection.
- An ssh alias's ProxyJump expands in place; `direct:` and an alias with ProxyCommand stand first only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gotunnel.errors import ConfigError, DialError
from gotunnel.upstream.asking import NOBODY, Asking
from gotunnel.upstream.command import CommandDialer
from gotunnel.upstream.connect import ConnectDialer
from gotunnel.upstream.dialer import Dialer
from gotunnel.upstream.direct import DirectDialer
from gotunnel.upstream.socks import SocksDialer
from gotunnel.upstream.spec import Chain, ConnectHop, DirectHop, HopSpec, SocksHop, SshHop
from gotunnel.upstream.ssh import SshDialer
from gotunnel.upstream.ssh_plan import SshPlan, plan
from gotunnel.upstream.tls import client_context

_MOST_HOPS = 16


class ChainBuilder:
    """Builds dialers for chains, and keeps the hops that they share; `close` closes them all.

    `watch` may put something around each dialer, to measure it: it gets the dialer and how many hops of the
    chain are in it (0: this machine's network).
    """

    def __init__(
        self,
        *,
        asking: Asking = NOBODY,
        on_lost: Callable[[tuple[HopSpec, ...], DialError], None] | None = None,
        watch: Callable[[Dialer, int], Dialer] = lambda dialer, count: dialer,
    ) -> None:
        self._asking = asking
        self._watch = watch
        self._on_lost = on_lost
        self._hops: dict[tuple[HopSpec, ...], Dialer] = {}
        self._expanded: dict[Chain, tuple[tuple[HopSpec, ...], dict[SshHop, SshPlan]]] = {}
        self._commands: list[Dialer] = []

    def build(self, chain: Chain) -> Dialer:
        """The dialer for `chain`.  Raises ConfigError where a hop can't stand where it does."""
        hops, plans = self._expand(chain)
        dialer = self._watch(DirectDialer(), 0)
        for count, hop in enumerate(hops, 1):
            key = hops[:count]
            if key not in self._hops:
                self._hops[key] = self._watch(self._hop(dialer, hop, key, plans), count)
            dialer = self._hops[key]
        return dialer

    def prefixes(self, chain: Chain) -> set[tuple[HopSpec, ...]]:
        """The keys of the hops that `chain` uses: whom a lost hop concerns."""
        hops, _ = self._expand(chain)
        return {hops[:count] for count in range(1, len(hops) + 1)}

    def ignored(self, chain: Chain) -> set[tuple[str, str]]:
        """(host, option) of ssh_config for each option of `chain` that is not honoured."""
        _, plans = self._expand(chain)
        return {(plan.host, option) for plan in plans.values() for option in plan.ignored}

    async def close(self) -> None:
        """Close every hop, innermost first."""
        for key in sorted(self._hops, key=len, reverse=True):
            await self._hops[key].close()
        self._hops.clear()
        for command in self._commands:
            await command.close()
        self._commands.clear()

    def _expand(self, chain: Chain) -> tuple[tuple[HopSpec, ...], dict[SshHop, SshPlan]]:
        """Once for each chain: ssh_config may run commands (Match exec)."""
        if chain not in self._expanded:
            self._expanded[chain] = expand(chain)
        return self._expanded[chain]

    def _hop(
        self, before: Dialer, hop: HopSpec, key: tuple[HopSpec, ...], plans: dict[SshHop, SshPlan]
    ) -> Dialer:
        label = str(hop)
        match hop:
            case DirectHop():
                return DirectDialer(interface=hop.interface, source=hop.source, label=label)
            case SshHop():
                told = self._on_lost
                if command := plans[hop].proxy_command:
                    before = CommandDialer(command, label=label)
                    self._commands.append(before)
                return SshDialer(
                    before,
                    plans[hop],
                    label=label,
                    asking=self._asking,
                    on_lost=None if told is None else lambda error: told(key, error),
                )
            case ConnectHop():
                hop.password.read()  # a missing file or variable is told at the start
                return ConnectDialer(
                    before,
                    hop.address,
                    label=label,
                    user=hop.user,
                    password=hop.password.read,
                    tls=client_context(hop.ca, hop.cert, hop.key) if hop.tls else None,
                    server_name=hop.server_name,
                )
            case SocksHop():
                hop.password.read()
                return SocksDialer(
                    before,
                    hop.address,
                    label=label,
                    version=hop.version,
                    remote_names=hop.remote_names,
                    user=hop.user,
                    password=hop.password.read,
                )


def expand(chain: Chain) -> tuple[tuple[HopSpec, ...], dict[SshHop, SshPlan]]:
    """The hops of `chain` with every ProxyJump in place, and the plan of each ssh hop."""
    done: list[HopSpec] = []
    plans: dict[SshHop, SshPlan] = {}
    todo: list[tuple[HopSpec, bool]] = [(hop, True) for hop in chain.hops]
    while todo:
        hop, may_expand = todo.pop(0)
        if len(done) + len(todo) > _MOST_HOPS:
            raise ConfigError(f"{chain}: more than {_MOST_HOPS} hops; does a ProxyJump lead back to itself?")
        if isinstance(hop, SshHop):
            settled = plan(hop)
            if settled.jumps and may_expand:
                # as in ssh: of several only the first one's own way applies, the others stand behind it
                todo[:0] = [(jump, index == 0) for index, jump in enumerate(settled.jumps)] + [(hop, False)]
                continue
            if not may_expand:
                settled = replace(settled, proxy_command="")
            if settled.proxy_command and done:
                raise ConfigError(f"{chain}: {hop} has a ProxyCommand in ssh_config and must stand first")
            plans[hop] = settled
        done.append(hop)
    return tuple(done), plans
