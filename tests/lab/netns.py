"""Network namespaces, the links between them, and packet filters inside them.

Rules:
- A namespace is named gt-PID-N-LABEL after the process that made it.
- Both ends of a link are made inside namespaces: the machine's own addresses and routes stay as they are.
- No namespace forwards, and none has a default route unless asked.
- What runs in a namespace when it is deleted is killed, by its pid.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.lab import proc
from tests.lab.proc import LabError

ETC = Path("/etc/netns")
_numbers = itertools.count(1)
_CONNECT = """
import socket, sys
host, port, timeout = sys.argv[1:]
try:
    socket.create_connection((host, int(port)), float(timeout))
    print("connected")
except OSError as error:
    print(type(error).__name__, error.errno)
"""


@functools.cache
def can_make_namespaces() -> tuple[bool, str]:
    """Whether this process can make namespaces, links and filters; else why not, in one line."""
    if sys.platform != "linux":
        return False, "network namespaces need Linux"
    if os.geteuid() != 0:
        return False, "network namespaces need root"
    for name in ("ip", "nft"):
        if proc.tool(name) is None:
            return False, f"network namespaces need the `{name}` command"
    try:
        with Namespace("probe-a") as a, Namespace("probe-b") as b:
            link(a, b, "10.255.255.1/30", "10.255.255.2/30")
            with drop(b):
                return True, ""
    except LabError as error:
        return False, "network namespaces can't be made here: " + " ".join(str(error).split())


def _ip(*words: str) -> str:
    return proc.run([proc.need_tool("ip"), *words]).stdout


def pids(name: str) -> list[int]:
    """The processes in a namespace."""
    listing = proc.run([proc.need_tool("ip"), "netns", "pids", name], check=False)
    return [int(pid) for pid in listing.stdout.split()]


def delete(name: str) -> None:
    """Kill all that runs in the namespace and remove it, its devices and its files; may be gone already."""
    if Path("/run/netns", name).exists():

        def emptied() -> bool:
            left = pids(name)
            proc.send(left, signal.SIGKILL)
            return not left

        proc.wait_until(f"the processes in {name} to end", emptied)
        _ip("netns", "del", name)
    shutil.rmtree(ETC / name, ignore_errors=True)
    with contextlib.suppress(OSError):  # others' namespaces may have files there
        ETC.rmdir()


class Namespace:
    """A network namespace with loopback up; a `Place` for services.  Delete it, or use it in `with`."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.name = f"gt-{os.getpid()}-{next(_numbers)}-{label}"
        self._devices = itertools.count()
        proc.tell_guard("netns", self.name)
        _ip("netns", "add", self.name)
        try:
            self.ip("link", "set", "lo", "up")
            # a new namespace inherits the machine's setting
            self.run(["sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"])
        except BaseException:
            self.delete()
            raise

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` in here."""
        return [proc.need_tool("ip"), "netns", "exec", self.name, *argv]

    def run(self, argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """`proc.run` in here."""
        return proc.run(argv, place=self, **options)

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """`proc.popen` in here."""
        return proc.popen(argv, place=self, **options)

    def ip(self, *words: str) -> str:
        """Run ip(8) on this namespace; its output."""
        return _ip("-n", self.name, *words)

    def nft(self, script: str) -> None:
        """Run a script of nft(8) in here."""
        self.run([proc.need_tool("nft"), "-f", "-"], stdin=script)

    def nft_list(self, *words: str) -> list[dict[str, Any]]:
        """What nft(8) lists in here, e.g. `nft_list("set", "inet", "t", "s")`: objects of its JSON."""
        # -j with -f takes the script for JSON, and does nothing where it isn't
        listing = json.loads(self.run([proc.need_tool("nft"), "-j", "list", *words]).stdout)
        return [dict(item) for item in listing["nftables"]]

    def new_device(self) -> str:
        """A name no device in here has yet."""
        return f"eth{next(self._devices)}"

    def add_bridge(self, device: str, *addresses: str) -> None:
        """A bridge with addresses (ADDRESS/PREFIX) of its own, for `attach`."""
        self.ip("link", "add", device, "type", "bridge")
        for address in addresses:
            self.ip("address", "add", address, "dev", device)
        self.ip("link", "set", device, "up")

    def add_route(self, destination: str, *how: str) -> None:
        """A route, e.g. `add_route("10.1.0.0/16", "via", "10.0.0.1")`."""
        self.ip("route", "add", destination, *how)

    def use_resolver(self, address: str) -> None:
        """Make programs started in here from now on ask the name server at `address`, and nothing else.

        ip-netns(8) binds the files of /etc/netns/NAME over those of /etc.
        """
        files = {
            "resolv.conf": f"nameserver {address}\noptions timeout:2 attempts:1\n",
            "hosts": "127.0.0.1 localhost\n",
            "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
        }
        directory = ETC / self.name
        while not directory.is_dir():  # another process may remove the empty /etc/netns at this moment
            with contextlib.suppress(FileNotFoundError):
                directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            if Path("/etc", name).exists():
                (directory / name).write_text(text)

    def connect(self, address: str, port: int, timeout: float = 1.0) -> str:
        """How a TCP connection from here fares: `connected`, or the name and number of the error."""
        argv = [sys.executable, "-c", _CONNECT, address, str(port), str(timeout)]
        return self.run(argv).stdout.strip()

    def pids(self) -> list[int]:
        """The processes in here."""
        return pids(self.name)

    def delete(self) -> None:
        """Kill what runs in here and remove it."""
        delete(self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.delete()


@dataclass(slots=True)
class Link:
    """A cable from namespace `a` to namespace `b`."""

    a: Namespace
    device_a: str
    b: Namespace
    device_b: str
    is_cut: bool = False

    def cut(self) -> None:
        """Take b's end down: what a sends is lost, and after some seconds it is told "no route to host"."""
        self.b.ip("link", "set", self.device_b, "down")
        self.is_cut = True

    def mend(self) -> None:
        """Undo `cut`: when it returns, what a sends arrives."""
        if not self.is_cut:
            return
        self.b.ip("link", "set", self.device_b, "up")

        def carries() -> bool:
            return "LOWER_UP" in self.a.ip("link", "show", self.device_a)

        # the kernel tells a's end at most once a second; a question for b's address that was asked in vain
        # while the link was down would still end in "no route to host"
        proc.wait_until(f"{self.device_a} of {self.a.label} to carry", carries)
        self.a.ip("neighbour", "flush", "dev", self.device_a)
        self.is_cut = False


def link(a: Namespace, b: Namespace, address_a: str, address_b: str) -> Link:
    """Lay a cable between two namespaces; addresses as ADDRESS/PREFIX, "" for none."""
    made = Link(a, a.new_device(), b, b.new_device())
    a.ip("link", "add", made.device_a, "type", "veth",
         "peer", "name", made.device_b, "netns", b.name)  # fmt: skip
    for space, device, address in ((a, made.device_a, address_a), (b, made.device_b, address_b)):
        if address:
            space.ip("address", "add", address, "dev", device)
        space.ip("link", "set", device, "up")
    return made


def attach(space: Namespace, hub: Namespace, bridge: str, address: str) -> Link:
    """Lay a cable from a namespace to a bridge of another (`add_bridge`)."""
    made = link(space, hub, address, "")
    hub.ip("link", "set", made.device_b, "master", bridge)
    return made


# --- packet filters ---------------------------------------------------------------------------------


class Filter:
    """Some nft rules in a namespace, in a table of their own; `remove` them, or use it in `with`."""

    def __init__(self, space: Namespace, body: str) -> None:
        self.space, self.table = space, f"gt_{next(_numbers)}"
        space.nft(f"table inet {self.table} {{\n{body}\n}}\n")

    def remove(self) -> None:
        """Take the rules away."""
        self.space.nft(f"delete table inet {self.table}\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def drop(space: Namespace, port: int | None = None) -> Filter:
    """Make the TCP `port` of a namespace (None: all of it but loopback) a black hole, both ways."""
    to, back = (f"tcp dport {port}", f"tcp sport {port}") if port else ('iif != "lo"', 'oif != "lo"')
    return Filter(
        space,
        f"chain in {{ type filter hook input priority 0; {to} drop; }}\n"
        f"chain out {{ type filter hook output priority 0; {back} drop; }}",
    )


def reject(space: Namespace, port: int) -> Filter:
    """Answer everything for the TCP `port` of a namespace with a reset, connections that stand included."""
    return Filter(
        space,
        f"chain in {{ type filter hook input priority 0; tcp dport {port} reject with tcp reset; }}",
    )


class Fence(Filter):
    """Counts and refuses every packet that leaves a namespace for another address than those allowed.

    Together with a default route to nowhere this shows a direct connection that was tried, where a
    missing route would leave no trace of it.
    """

    def __init__(self, space: Namespace, allowed: Sequence[str]) -> None:
        space.add_bridge("nowhere")  # a bridge without ports: not every kernel has dummy devices
        space.add_route("default", "dev", "nowhere")
        super().__init__(
            space,
            f"""counter strays {{ }}
            set seen {{ type ipv4_addr . inet_service; flags dynamic; size 65535; }}
            chain out {{
                type filter hook output priority 0; policy accept;
                fib daddr type local accept
                ip daddr {{ {", ".join(allowed)} }} accept
                meta l4proto {{ ipv6-icmp, igmp }} accept
                counter name strays
                meta l4proto {{ tcp, udp }} add @seen {{ ip daddr . th dport }}
                meta l4proto tcp reject with tcp reset
                reject with icmpx type no-route
            }}""",
        )

    def packets(self) -> int:
        """How many packets tried to leave for elsewhere, since the start or the last `clear`."""
        listing = self.space.nft_list("counter", "inet", self.table, "strays")
        return sum(int(item["counter"]["packets"]) for item in listing if "counter" in item)

    def targets(self) -> list[str]:
        """Where to: ADDRESS:PORT of each, over TCP or UDP."""
        listing = self.space.nft_list("set", "inet", self.table, "seen")
        sets = [item["set"] for item in listing if "set" in item]
        words = [element["concat"] for found in sets for element in found.get("elem", [])]
        return sorted(f"{address}:{port}" for address, port in words)

    def clear(self) -> None:
        """Forget what was counted."""
        self.space.nft(f"reset counter inet {self.table} strays\nflush set inet {self.table} seen\n")
