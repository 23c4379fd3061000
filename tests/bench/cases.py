"""The cases.  Each takes the world and gives its contenders, ours first, and its aims."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from tests.bench.contestants import Local
from tests.bench.growth import GROWTH_CASES
from tests.bench.load import GREETING
from tests.bench.proxying import PROXY_CASES
from tests.bench.store import STORE_CASES
from tests.bench.table import Aim, Case, Contender
from tests.bench.world import World
from tests.lab.proc import LabError

AES = ("-c", "aes128-gcm@openssh.com")


def help_(world: World, size: int) -> Case:
    """Start-up."""
    return Case(
        "help",
        "wall time of gotunnel --help",
        "ms",
        [
            Contender("gotunnel --help", lambda: world.wall([*world.gotunnel, "--help"])),
            Contender("python -c pass", lambda: world.wall([world.python, "-c", "pass"])),
        ],
        [Aim("gotunnel --help", 150)],
    )


def run_overhead(world: World, size: int) -> Case:
    """What `run` adds to a command that needs no network."""
    return Case(
        "run-overhead",
        "wall time of gotunnel run -- true, with a jump host named",
        "ms",
        [
            Contender(
                "gotunnel run -J", lambda: world.wall([*world.gotunnel, "run", *world.ways(), "--", "true"])
            ),
            Contender("gotunnel run", lambda: world.wall([*world.gotunnel, "run", "--", "true"])),
            Contender("true", lambda: world.wall(["true"])),
        ],
        [Aim("gotunnel run -J", 250)],
    )


def connect(world: World, size: int) -> Case:
    """From nothing to a target's first byte."""
    host, port = world.load.address, str(world.load.greeting_port)
    inside = {"GOTUNNEL_PROXY": world.endpoint()}
    return Case(
        "connect",
        "time to a target's first byte through one jump host",
        "ms",
        [
            Contender(
                "gotunnel connect",
                lambda: world.first_byte([*world.gotunnel, "connect", *world.ways(), host, port]),
            ),
            Contender("ssh -W", lambda: world.first_byte(world.ssh("-W", f"{host}:{port}"))),
            Contender(
                "gotunnel connect in a run",
                lambda: world.first_byte([*world.gotunnel, "connect", host, port], inside),
            ),
        ],
        [Aim("gotunnel connect", 1.5, "ssh -W"), Aim("gotunnel connect in a run", 120)],
    )


def serve_connect(world: World, size: int) -> Case:
    """From nothing to a target's first byte, with a running service."""
    host, port = world.load.address, str(world.load.greeting_port)
    serve = world.serve(*world.ways())
    return Case(
        "serve-connect",
        "time to a target's first byte through one jump host, a `gotunnel serve` is running",
        "ms",
        [
            Contender(
                "gotunnel connect",
                lambda: world.first_byte([*world.gotunnel, "connect", host, port], serve.environment),
            ),
            Contender("ssh -W", lambda: world.first_byte(world.ssh("-W", f"{host}:{port}"))),
        ],
        [Aim("gotunnel connect", 120)],
    )


def channel(world: World, size: int) -> Case:
    """A new connection over an open tunnel."""
    host, port = world.load.address, world.load.greeting_port
    return Case(
        "channel",
        "time to a target's first byte over a tunnel that is open (20 one after another)",
        "ms",
        [
            Contender("endpoint of gotunnel run", lambda: _by_connect(world.endpoint(), host, port)),
            Contender("ssh -D", lambda: _by_socks(world.socks(), host, port)),
        ],
        [Aim("endpoint of gotunnel run", 1.5, "ssh -D")],
    )


def bulk(world: World, size: int) -> Case:
    """One large download."""
    return _bulk(world, size, "bulk", upload=False, hops=1)


def bulk_up(world: World, size: int) -> Case:
    """One large upload."""
    return _bulk(world, size, "bulk-up", upload=True, hops=1)


def bulk_chain(world: World, size: int) -> Case:
    """One large download over two jump hosts."""
    return _bulk(world, size, "bulk-chain", upload=False, hops=2)


def _bulk(world: World, size: int, name: str, *, upload: bool, hops: int) -> Case:
    ours = "gotunnel run"
    socks = {"ssh -D": (), "ssh -D aes128-gcm": AES}

    def rival(options: tuple[str, ...]) -> Callable[[], float]:
        return lambda: world.rate(
            ["--socks5-hostname", world.socks(*options, hops=hops)], size, upload=upload
        )

    notes: list[str] = []
    go_rivals = [] if upload or hops > 1 else _go_rivals(world, size, notes)
    return Case(
        name,
        f"one {'upload' if upload else 'download'} of {size / 1e6:.0f} MB, {hops} jump host(s) on loopback",
        "MB/s",
        [
            Contender(ours, lambda: world.rate(["-p", "-x", world.endpoint(hops)], size, upload=upload)),
            *(Contender(label, rival(options)) for label, options in socks.items()),
            *go_rivals,
        ],
        [Aim(ours, 1.0, label) for label in (*socks, *(one.name for one in go_rivals))] if hops == 1 else [],
        notes=notes,
    )


def _go_rivals(world: World, size: int, notes: list[str]) -> list[Contender]:
    """Tunnels in Go to the same far end: gost and glider by the same jump host, chisel by its own server."""
    host = world.jump_hosts[0]
    login, key = f"{host.user}@{host.address}:{host.port}", world.key.private

    def argv(name: str, program: str, port: int, far: int) -> list[str]:
        if name == "gost":
            return [program, "-L", f"socks5://127.0.0.1:{port}", "-F", f"sshd://{login}?privateKeyFile={key}"]
        if name == "glider":
            return [program, "-listen", f"socks5://127.0.0.1:{port}", "-forward", f"ssh://{login}?key={key}"]
        return [program, "client", f"http://127.0.0.1:{far}", f"127.0.0.1:{port}:socks"]

    def server(program: str, port: int) -> list[str]:
        return [program, "server", "--host", "127.0.0.1", "--port", str(port), "--socks5"]

    def contender(name: str, program: str) -> Contender:
        far = 0
        if name == "chisel":
            far = world.keep(Local(world.place(name), lambda _, port: server(program, port))).port
        local = world.keep(Local(world.place(name), lambda _, port: argv(name, program, port, far)))
        words = ["--socks5-hostname", f"127.0.0.1:{local.port}"]
        return Contender(f"{name} {world.rivals.version(name)}", lambda: world.rate(words, size))

    made = []
    for name in ("gost", "glider", "chisel"):
        if (program := world.rivals.program(name)) is None:
            notes.append(f"not installed: {name} ({world.rivals.absent[name]})")
            continue
        try:
            made.append(contender(name, program))
        except LabError as error:
            notes.append(f"{name} couldn't be started: {str(error).strip().splitlines()[0]}")
    return made


CASES: dict[str, Callable[[World, int], Case]] = {
    "help": help_,
    "run-overhead": run_overhead,
    "connect": connect,
    "serve-connect": serve_connect,
    "channel": channel,
    "bulk": bulk,
    "bulk-up": bulk_up,
    "bulk-chain": bulk_chain,
    **PROXY_CASES,
    **STORE_CASES,
    **GROWTH_CASES,
}


# --- a client for one connection -----------------------------------------------------------------------

_REPEATS = 20


def _by_connect(proxy: str, host: str, port: int) -> float:
    """Milliseconds to the greeting through an HTTP proxy, the median of a few."""
    url = urlsplit(proxy)
    credential = base64.b64encode(f"{url.username}:{url.password}".encode()).decode()
    request = (
        f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: Basic {credential}\r\n\r\n"
    )

    def shake(sock: socket.socket) -> None:
        sock.sendall(request.encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):  # byte by byte: the greeting may follow at once
            head += sock.recv(1)
        if b" 200 " not in head:
            raise LabError(head.decode())

    assert url.hostname is not None
    assert url.port is not None
    return _greeting((url.hostname, url.port), shake)


def _by_socks(proxy: str, host: str, port: int) -> float:
    """The same through a SOCKS5 proxy."""
    address, _, number = proxy.rpartition(":")

    def shake(sock: socket.socket) -> None:
        sock.sendall(b"\x05\x01\x00")
        sock.recv(2, socket.MSG_WAITALL)
        name = host.encode()
        sock.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + port.to_bytes(2, "big"))
        if sock.recv(10, socket.MSG_WAITALL)[:2] != b"\x05\x00":
            raise LabError("ssh -D refused a connection")

    return _greeting((address, int(number)), shake)


def _greeting(proxy: tuple[str, int], shake: Callable[[socket.socket], None]) -> float:
    taken = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        with socket.create_connection(proxy) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            shake(sock)
            if sock.recv(len(GREETING), socket.MSG_WAITALL) != GREETING:
                raise LabError("the greeting did not come whole")
            taken.append(time.perf_counter() - started)
    return sorted(taken)[len(taken) // 2] * 1000
