"""Git servers: what they say first on 22 and 9418, and whether another port of theirs is open.

Rules:
- Nothing is logged in to: an SSH server's banner tells that git over SSH gets there.
- Where a port fails, the way round is tried: SSH on 443 (some hosts have it under another name), https.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from gotunnel.address import HostPort, one_line
from gotunnel.doctor.model import Need
from gotunnel.errors import Blame, DialError, GotunnelError, StreamLost
from gotunnel.upstream.dialer import Dialer, Stream

# where the big hosts listen for SSH besides 22 (their own documentation)
ELSEWHERE: Mapping[str, HostPort] = MappingProxyType(
    {
        "github.com": HostPort("ssh.github.com", 443),
        "gitlab.com": HostPort("altssh.gitlab.com", 443),
        "bitbucket.org": HostPort("altssh.bitbucket.org", 443),
    }
)
_MOST_LINES = 20  # that a server may say before its banner (RFC 4253 §4.2)


async def ssh_banner(stream: Stream, need: Need, timeout: float) -> str:
    """The line that begins with SSH-.  Raises DialError where none comes."""
    target = HostPort(need.host, need.port)
    data = b""
    try:
        async with asyncio.timeout(timeout):
            while not (banner := _banner(data)):
                part = await stream.read()
                if not part:
                    raise StreamLost("it closed the connection")
                data += part
                if data.count(b"\n") > _MOST_LINES or len(data) > 8192:
                    raise StreamLost("what it says is no SSH")
    except TimeoutError:
        words = f"{target}: accepts the connection but sends no SSH banner in {timeout:.0f} s"
        raise DialError("ssh.handshake", words, blame=Blame.TARGET) from None
    except StreamLost as error:
        finding = "tcp.reset" if "reset" in str(error).lower() else "ssh.handshake"
        said = f" (it said {one_line(data[:60].decode('ascii', 'replace'))!r})" if data else ""
        words = f"{target}: no SSH banner: {error}{said}"
        raise DialError(finding, words, blame=Blame.TARGET) from error
    return banner


def _banner(data: bytes) -> str:
    for line in data.split(b"\n")[:-1]:
        if line.startswith(b"SSH-"):
            return one_line(line.decode("ascii", "replace"), 100)
    return ""


async def git_greeting(stream: Stream, need: Need, timeout: float) -> str:
    """What git-daemon answers to a request for `need.path` (gitprotocol-pack(5)).  Raises DialError."""
    target = HostPort(need.host, need.port)
    request = f"git-upload-pack {need.path}\0host={need.host}\0".encode("ascii", "replace")
    stream.write(b"%04x" % (len(request) + 4) + request)
    try:
        async with asyncio.timeout(timeout):
            data = await stream.read()
    except TimeoutError:
        words = f"{target}: accepts the connection but answers nothing in {timeout:.0f} s"
        raise DialError("tcp.timeout", words, blame=Blame.TARGET) from None
    except StreamLost as error:
        raise DialError("tcp.reset", f"{target}: {error}", blame=Blame.TARGET) from error
    # git-daemon closes without a word where a repository isn't exported: it is reached all the same
    return one_line(data[:60].decode("ascii", "replace"), 60)


async def other_ports(
    need: Need, dialer: Dialer, timeout: float, elsewhere: Mapping[str, HostPort]
) -> dict[str, Any]:
    """Where else the same server would be reached: `https` (443 is open), `ssh_443` (SSH's banner there)."""
    found: dict[str, Any] = {}

    async def https() -> None:
        found["https"] = await _opens(dialer, HostPort(need.host, 443), timeout)

    async def ssh() -> None:
        other = elsewhere.get(need.host.lower(), HostPort(need.host, 443))
        try:
            async with asyncio.timeout(timeout):
                stream = await dialer.dial(other)
                try:
                    await ssh_banner(stream, need, timeout)
                finally:
                    stream.abort()
            found["ssh_443"] = str(other)
        except (GotunnelError, TimeoutError):
            found["ssh_443"] = ""

    async with asyncio.TaskGroup() as group:
        group.create_task(https())
        if need.kind == "vcs-ssh":
            group.create_task(ssh())
    return found


async def _opens(dialer: Dialer, target: HostPort, timeout: float) -> bool:
    try:
        async with asyncio.timeout(timeout):
            stream = await dialer.dial(target)
    except (GotunnelError, TimeoutError):
        return False
    stream.abort()
    return True
