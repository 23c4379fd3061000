"""Negotiate with real tickets: a KDC of MIT Kerberos, squid with its own helper, and gssapi on our side.

It needs the packages krb5-kdc, krb5-user and squid, and the Python packages gssapi and krb5 (the extra
`kerberos`).  Its realm lives in a directory of the test's; nothing of the machine's Kerberos is read.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gotunnel.address import HostPort
from gotunnel.errors import Blame
from gotunnel.upstream.connect import ConnectDialer
from gotunnel.upstream.direct import DirectDialer
from tests.conftest import need
from tests.lab import proc
from tests.lab.squid import Squid, can_run_squid
from tests.peers import echo, refusal_of, say, serving

REALM = "LAB.EXAMPLE"
SERVICE = f"HTTP/localhost@{REALM}"
HELPER = Path("/usr/lib/squid/negotiate_kerberos_auth")
_KRB5 = """[libdefaults]
default_realm = {realm}
dns_lookup_kdc = false
dns_lookup_realm = false
dns_canonicalize_hostname = false
rdns = false
udp_preference_limit = 1
[realms]
{realm} = {{
    kdc = 127.0.0.1:{port}
}}
[domain_realm]
localhost = {realm}
"""
_KDC = """[kdcdefaults]
kdc_listen = 127.0.0.1:{port}
kdc_tcp_listen = 127.0.0.1:{port}
[realms]
{realm} = {{
    database_name = {directory}/principal
    key_stash_file = {directory}/stash
    acl_file = {directory}/acl
}}
"""


def can_run_kerberos() -> tuple[bool, str]:
    """Whether all parts are here; else what is missing."""
    tools = ("krb5kdc", "kdb5_util", "kadmin.local", "kinit")
    missing = [name for name in tools if proc.tool(name) is None]
    missing += [name for name in ("spnego", "gssapi", "krb5") if importlib.util.find_spec(name) is None]
    missing += [] if HELPER.exists() else [str(HELPER)]
    return not missing, f"not installed: {', '.join(missing)}" * bool(missing)


class Kdc(proc.Service):
    """A realm with the user `dev` and the service of a proxy on localhost."""

    @property
    def env(self) -> dict[str, str]:
        """What leads Kerberos' programs here."""
        return {
            "KRB5_CONFIG": str(self.directory / "krb5.conf"),
            "KRB5_KDC_PROFILE": str(self.directory / "kdc.conf"),
            "KRB5CCNAME": f"FILE:{self.directory / 'tickets'}",
            "KRB5RCACHETYPE": "none",
        }

    @property
    def keytab(self) -> Path:
        """The service's key."""
        return self.directory / "service.keytab"

    def _environment(self) -> dict[str, str]:
        return dict(os.environ) | self.env

    def _argv(self) -> list[str]:
        words = {"realm": REALM, "port": self.port, "directory": self.directory}
        (self.directory / "krb5.conf").write_text(_KRB5.format(**words))
        (self.directory / "kdc.conf").write_text(_KDC.format(**words))
        if not (self.directory / "principal").exists():
            self._tool("kdb5_util", "-r", REALM, "create", "-s", "-P", "lab")
            self._tool("kadmin.local", "-r", REALM, "-q", "addprinc -pw lab-secret dev")
            self._tool("kadmin.local", "-r", REALM, "-q", f"addprinc -randkey {SERVICE}")
            self._tool("kadmin.local", "-r", REALM, "-q", f"ktadd -k {self.keytab} {SERVICE}")
        return [proc.need_tool("krb5kdc"), "-n", "-r", REALM]

    def _tool(self, name: str, *arguments: str) -> None:
        proc.run([proc.need_tool(name), *arguments], env=self._environment())

    def log_in(self) -> None:
        """A ticket for `dev`."""
        proc.run([proc.need_tool("kinit"), "dev"], env=self._environment(), stdin="lab-secret\n")

    def log_out(self) -> None:
        """None any more."""
        (self.directory / "tickets").unlink(missing_ok=True)


class KerberosSquid(Squid):
    """A squid that takes tickets alone."""

    kdc: Kdc

    def _logins(self) -> list[str]:
        keytab = shutil.copy(self.kdc.keytab, self._home)
        return [
            f"auth_param negotiate program {HELPER} -k {keytab} -s {SERVICE}",
            "auth_param negotiate children 2 startup=1 idle=1",
            "acl known proxy_auth REQUIRED",
            "http_access allow known",
            "http_access deny all",
        ]

    def _environment(self) -> dict[str, str]:
        config = shutil.copy(self.kdc.directory / "krb5.conf", self._home)
        os.chmod(config, 0o644)
        return dict(os.environ) | {"KRB5_CONFIG": str(config), "KRB5RCACHETYPE": "none"}


@pytest.fixture
def kdc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kdc]:
    need(can_run_kerberos())
    with Kdc(tmp_path / "kdc") as kdc:
        for name, value in kdc.env.items():
            monkeypatch.setenv(name, value)
        yield kdc


@pytest.fixture
def proxy(tmp_path: Path, kdc: Kdc) -> Iterator[Squid]:
    need(can_run_squid())
    squid = KerberosSquid(tmp_path / "squid")
    squid.kdc = kdc
    with squid:
        yield squid


async def test_a_ticket_opens_the_proxy_and_without_one_it_says_so(kdc: Kdc, proxy: Squid) -> None:
    dialer = ConnectDialer(DirectDialer(), HostPort("localhost", proxy.port), label="http://localhost")
    async with serving(echo) as target:
        refused = await refusal_of(dialer, target)
        assert (refused.finding, refused.blame) == ("proxy.auth-required", Blame.CREDENTIALS)
        kdc.log_in()
        for _ in range(3):  # known at the first try from the second on
            stream = await dialer.dial(target)
            assert await say(stream, b"by ticket") == b"by ticket"
            stream.abort()
        kdc.log_out()
        refused = await refusal_of(dialer, target)
        assert refused.finding == "proxy.auth-required"
    assert sum("dev@LAB.EXAMPLE" in line or " dev " in line for line in proxy.access_log()) >= 1
