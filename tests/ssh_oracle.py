"""The real `ssh` as the oracle for `resolve`: what -G prints, in the terms of SshSettings."""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gotunnel.errors import ConfigError
from gotunnel.upstream.ssh_config import SshSettings, resolve
from gotunnel.upstream.ssh_match import in_list, matches
from gotunnel.upstream.ssh_tokens import Hop
from tests.ssh_config_corpus import Case

SSH = shutil.which("ssh")
HOME = pwd.getpwuid(os.getuid()).pw_dir


def environment(directory: Path) -> dict[str, str]:
    return {
        "HOME": str(directory),  # only Include takes it from here
        "PATH": os.environ["PATH"],
        "SHELL": "/bin/sh",
        "KEYS": "/srv/keys",
        "SSH_AUTH_SOCK": "/run/agent.main",
        "OTHER_AGENT": "/run/agent.other",
    }


def run_ssh(*words: str, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    assert SSH is not None
    return subprocess.run(
        [SSH, *words], env=dict(environ), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )


def login(case: Case) -> list[str]:
    user = ["-l", case.user] if case.user else []
    return user + (["-p", str(case.port)] if case.port else [])


def oracle(config: str, host: str, case: Case, environ: Mapping[str, str]) -> dict[str, list[str]] | None:
    """What `ssh -G` prints, by keyword; None where ssh refuses the configuration."""
    done = run_ssh("-G", "-F", config, *login(case), host, environ=environ)
    if done.returncode != 0:
        return None
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        key, _, value = line.partition(" ")
        found.setdefault(key.lower(), []).append(value)
    return found


def oracle_files(
    config: str, host: str, case: Case, environ: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Key and certificate files as ssh expands them, from its debug output on a connection that can't be."""
    done = run_ssh(
        *(
            "-v",
            "-o",
            "ProxyCommand=sleep 0.3; exit 1",
            "-o",
            "BatchMode=yes",
            "-F",
            config,
            *login(case),
            host,
        ),
        environ=environ,
    )
    lines = [line.rsplit(" type ", 1)[0].removeprefix("debug1: ") for line in done.stderr.splitlines()]
    keys = [line.removeprefix("identity file ") for line in lines if line.startswith("identity file ")]
    wanted = [key for at, key in enumerate(keys) if at == 0 or key != f"{keys[at - 1]}-cert"]
    return wanted, [
        line.removeprefix("certificate file ") for line in lines if line.startswith("certificate file ")
    ]


@functools.cache
def known_algorithms(query: str) -> tuple[str, ...]:
    return tuple(run_ssh("-Q", query, environ=os.environ).stdout.split())


@functools.cache
def default_algorithms(keyword: str) -> str:
    found = oracle("none", "web", Case({}, ()), {"PATH": os.environ["PATH"], "HOME": HOME})
    assert found is not None
    return found[keyword][0]


def assembled(text: str | None, keyword: str) -> str:
    """An algorithm list with +, - and ^ applied to ssh's default, as kex_assemble_names does it."""
    default = default_algorithms(keyword).split(",")
    if text is None:
        return ",".join(default)
    sign, names = (text[0], text[1:].split(",")) if text[0] in "+-^" else ("", text.split(","))
    if sign == "-":
        return ",".join(name for name in default if not in_list(name, ",".join(names)).matched)
    wanted = {"+": default + names, "^": names + default, "": names}[sign]
    known = known_algorithms(keyword)
    return ",".join(dict.fromkeys(name for want in wanted for name in known if matches(name, want)))


def unbracketed(hops: str) -> str:
    return ",".join(str(Hop.parse(hop)) for hop in hops.split(","))


def agent(text: str | None, environ: Mapping[str, str]) -> str | None:
    if text in (None, "SSH_AUTH_SOCK"):
        return environ.get("SSH_AUTH_SOCK")
    assert text is not None
    return None if text == "none" else environ.get(text[1:]) if text.startswith("$") else text


def as_ssh_says(found: Mapping[str, list[str]], environ: Mapping[str, str]) -> dict[str, Any]:
    """The oracle's answer in the terms of SshSettings, for what -G expands itself."""

    def text(key: str) -> str | None:
        return found[key][0] if key in found else None

    def yes(key: str) -> bool:
        return found[key][0] in ("yes", "true", "unbound", "host-bound")

    def files(key: str) -> str:
        return "" if found[key] == ["none"] else found[key][0].replace("~", HOME)

    return {
        "hostname": found["hostname"][0],
        "user": found["user"][0],
        "port": int(found["port"][0]),
        "identities_only": yes("identitiesonly"),
        "identity_agent": agent(text("identityagent"), environ),
        "proxy_jump": unbracketed(found["proxyjump"][0]) if "proxyjump" in found else None,
        "user_known_hosts_files": files("userknownhostsfile"),
        "global_known_hosts_files": files("globalknownhostsfile"),
        "strict_host_key_checking": {"true": "yes", "false": "no"}.get(
            found["stricthostkeychecking"][0], found["stricthostkeychecking"][0]
        ),
        "host_key_alias": text("hostkeyalias"),
        "hash_known_hosts": yes("hashknownhosts"),
        "check_host_ip": yes("checkhostip"),
        "ciphers": found["ciphers"][0],
        "macs": found["macs"][0],
        "kex_algorithms": found["kexalgorithms"][0],
        "host_key_algorithms": found["hostkeyalgorithms"][0],
        "pubkey_accepted_algorithms": found["pubkeyacceptedalgorithms"][0],
        "compression": yes("compression"),
        "server_alive_interval": int(found["serveraliveinterval"][0]),
        "server_alive_count_max": int(found["serveralivecountmax"][0]),
        "tcp_keep_alive": yes("tcpkeepalive"),
        "connect_timeout": None
        if found["connecttimeout"][0] in ("none", "0")
        else int(found["connecttimeout"][0]),
        "connection_attempts": int(found["connectionattempts"][0]),
        "address_family": found["addressfamily"][0],
        "bind_address": text("bindaddress"),
        "bind_interface": text("bindinterface"),
        "batch_mode": yes("batchmode"),
        "preferred_authentications": text("preferredauthentications"),
        "password_authentication": yes("passwordauthentication"),
        "kbd_interactive": yes("kbdinteractiveauthentication"),
        "pubkey_authentication": yes("pubkeyauthentication"),
    }


def as_we_say(ours: SshSettings) -> dict[str, Any]:
    tokens = {"%h": ours.hostname, "%n": ours.host, "%r": ours.user, "%p": str(ours.port)}
    assert not any(token in (ours.proxy_jump or "") for token in tokens), "tokens are expanded"
    algorithms = {
        "ciphers": assembled(ours.ciphers, "ciphers"),
        "macs": assembled(ours.macs, "macs"),
        "kex_algorithms": assembled(ours.kex_algorithms, "kexalgorithms"),
        "host_key_algorithms": assembled(ours.host_key_algorithms, "hostkeyalgorithms"),
        "pubkey_accepted_algorithms": assembled(ours.pubkey_accepted_algorithms, "pubkeyacceptedalgorithms"),
    }
    skipped = {"host", "identity_files", "explicit_identities", "certificate_files", "proxy_command", "named"}
    said = {name: getattr(ours, name) for name in SshSettings.__slots__ if name not in skipped | {"ignored"}}
    return (
        said
        | algorithms
        | {
            "user_known_hosts_files": " ".join(ours.user_known_hosts_files),
            "global_known_hosts_files": " ".join(ours.global_known_hosts_files),
        }
    )


def agrees(config: str, host: str, case: Case, environ: Mapping[str, str]) -> SshSettings | None:
    """Assert that both say the same of `host`, or that both refuse."""
    theirs = oracle(config, host, case, environ)
    if theirs is None:
        with pytest.raises(ConfigError):
            resolve(host, user=case.user, port=case.port, files=[config], environ=environ)
        return None
    ours = resolve(host, user=case.user, port=case.port, files=[config], environ=environ)
    expected = as_ssh_says(theirs, environ)
    if expected["proxy_jump"]:
        for token, value in (("%r", ours.user), ("%h", ours.hostname), ("%p", str(ours.port))):
            expected["proxy_jump"] = expected["proxy_jump"].replace(token, value)
    assert as_we_say(ours) == expected
    raw = theirs.get("proxycommand", [None])[0]
    assert (ours.proxy_command is None) == (raw is None)
    return ours
