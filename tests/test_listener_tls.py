"""The endpoint inside TLS, for a team: curl with and without the CA, and with a client certificate."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from gotunnel.errors import ConfigError
from gotunnel.listener.auth import Keys
from gotunnel.listener.proxy import Endpoint
from gotunnel.listener.tls import server_context
from gotunnel.tasks import in_thread
from gotunnel.upstream.direct import DirectDialer
from tests.endpoints import echo
from tests.lab.pki import Authority
from tests.lab.proc import need_tool

SECRET = "s3cret"


async def curl(*options: str) -> subprocess.CompletedProcess[str]:
    need_tool("curl")
    argv = ["curl", "-sS", "--max-time", "20", *options]
    return await in_thread("curl", lambda: subprocess.run(argv, capture_output=True, text=True, check=False))


async def test_a_proxy_in_tls_with_and_without_a_client_certificate(tmp_path: Path) -> None:
    ca, other = Authority(tmp_path / "ca"), Authority(tmp_path / "other", "another CA")
    server = ca.issue("localhost")
    client, stranger = ca.issue("alice", client=True), other.issue("mallory", client=True)
    context = server_context(str(server.cert), str(server.key), str(ca.cert))
    endpoint = Endpoint(DirectDialer(), keys=Keys(SECRET), tls=context)
    try:
        address = await endpoint.start()
        trust = ["--proxy-cacert", str(ca.cert)]
        by = ["--proxy", f"https://x:{SECRET}@localhost:{address.port}", "-p"]

        async with echo() as target:
            url = f"http://{target}/"
            mine = ["--proxy-cert", str(client.cert), "--proxy-key", str(client.key)]
            ran = await curl(*trust, *mine, *by, url)
            assert (ran.returncode, ran.stdout) == (0, "hello"), ran.stderr
            ran = await curl(*trust, *by, url)
            assert ran.returncode != 0
            theirs = ["--proxy-cert", str(stranger.cert), "--proxy-key", str(stranger.key)]
            ran = await curl(*trust, *theirs, *by, url)
            assert ran.returncode != 0
            wrong = ["--proxy", f"https://x:wrong@localhost:{address.port}", "-p"]
            ran = await curl(*trust, *mine, *wrong, "-w", "%{http_connect}", url)
            assert ran.stdout == "407"
    finally:
        await endpoint.close()


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"listen\.tls\.cert /nowhere: "):
        server_context("/nowhere", "/nowhere")
