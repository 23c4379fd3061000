"""`resolve` says what `ssh -G` says: a corpus of configurations, several hosts each, every honoured option.

The expansions that -G leaves out (keys, certificates, ProxyCommand) are read from `ssh -v` and from a run.
"""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gotunnel.errors import ConfigError
from gotunnel.upstream.ssh_config import SshSettings, resolve
from gotunnel.upstream.ssh_match import in_list, matches
from gotunnel.upstream.ssh_tokens import Hop

SSH = shutil.which("ssh")
HOME = pwd.getpwuid(os.getuid()).pw_dir
ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture(scope="module")
def ssh() -> str:
    if SSH is None:
        assert os.environ.get("CI") != "true", "CI must have openssh-client"
        pytest.skip("needs the OpenSSH client (apt-get install openssh-client)")
    return SSH


@dataclass(frozen=True)
class Case:
    """`files` by name; "config" is the one given to -F, @DIR@ the directory that they are in."""

    files: Mapping[str, str]
    hosts: tuple[str, ...]
    user: str | None = None
    port: int | None = None


def one(config: str, *hosts: str, user: str | None = None, port: int | None = None, **more: str) -> Case:
    files = {"config": config} | {name.replace("__", "/"): text for name, text in more.items()}
    return Case(files, hosts or ("web",), user, port)


CORPUS: dict[str, Case] = {
    "empty": one("", "web", "Web.Example.COM", "10.0.0.7", "2001:db8::7", "127.1", "2001:DB8:0::7"),
    "command line wins": one("User file\nPort 2200\n", user="typed", port=99),
    "aliases": one(
        """
        # my servers
        Host web
            HostName web01.example.com
            User deploy
            Port 2222
        Host db db-*  DB2
            HostName %h.internal.example.com
            User postgres
        Host *
            User nobody
            Compression yes
        """,
        *("web", "db", "db-3", "DB2", "db2", "other"),
    ),
    "negation": one(
        """
        Host *.example.com !secret.example.com !*.lab.example.com
            User staff
        Host !web *
            Port 2022
        Host !web
            Port 1
        Host web? w*b
            ConnectTimeout 7
        """,
        *("a.example.com", "secret.example.com", "x.lab.example.com", "web", "web1", "wb"),
    ),
    "first value wins": one(
        """
        Port 1001
        Host web
          Port 1002
          User first
          User second
        Host *
          User last
          ServerAliveInterval 1m30s
          ServerAliveInterval 5
        """,
        *("web", "x"),
    ),
    "spelling": one(
        'hOsT=web\nPORT = 2222\n\tuser\t= "some one"\nHostName "quoted.example.com"   # why\n'
        "identityfile '~/my keys/id'\nIdentityFile ~/a\\ b\nCompression=yes\r\n"
        'BindAddress "10.0.0.1"# not a comment\\"\n'.replace('# not a comment\\"', "")
        + '"ConnectTimeout" 5 \f\n   #Port 1\n',
        *("web", "other"),
    ),
    "match host": one(
        """
        Host web
          HostName web.corp.example
        Match host *.corp.example
          User corp
          ProxyJump gate.example
        Match originalhost web
          Port 2022
        Match originalhost WEB,db*,!db9
          ConnectTimeout 3
        Match !host *.corp.example
          User outside
        """,
        *("web", "db1", "db9", "x.corp.example", "WEB"),
    ),
    "match user": one(
        f"""
        Match user root,adm*
          IdentityFile ~/.ssh/admin
        Match localuser {ME}
          HashKnownHosts yes
        Match localuser nobody-else
          Port 1
        Host web
          User admin
        Match user admin host web
          Port 2222
        """,
        *("web", "other"),
    ),
    "match user typed": one(
        "Match user git\n  IdentityFile ~/.ssh/git\n  IdentitiesOnly yes\nMatch all\n  Port 77\n",
        user="git",
    ),
    "match exec": one(
        """
        Match exec "test %n = web"
          User by-exec
        Match host web exec "test '%h:%p:%r' = 'web:2022:by-exec'" !exec false
          ConnectTimeout 4
        Host *
          Port 2022
        Match exec "test '%h:%p:%r' = 'web:2022:by-exec'"
          ServerAliveCountMax 9
        Match exec "test -d '%d' && test -n '%u%i%L%l%k%C'"
          BindInterface lo
        Match !exec "exit 3"
          AddressFamily inet
        """,
        *("web", "db"),
    ),
    "match final": one(
        """
        Host web
          HostName web.corp.example
        Host web.corp.example
          User seen-in-second-pass
          IdentityFile ~/.ssh/second
        Match final host web.corp.example
          Port 2200
        Match !final
          ServerAliveInterval 11
        Match canonical
          ServerAliveCountMax 8
        Match final all
          IdentityFile ~/.ssh/second
          IdentityFile ~/.ssh/third
        """,
        *("web", "db"),
    ),
    "no final pass without asking": one(
        "Host web\n HostName Real.example\nMatch canonical\n Port 5\nHost real.example\n User x\n"
    ),
    "include": one(
        """
        Include @DIR@/conf.d/*.conf @DIR@/missing @DIR@/missing-*.conf
        Host *
          User last
          Port 2999
        """,
        *("web", "db", "x"),
        **{
            "conf.d__10-web.conf": "Host web\n  User included\n",
            "conf.d__20-db.conf": "Host db\n  Include @DIR@/deep/[ab]\n  Port 2001\n",
            "conf.d__30-not.txt": "Port 1\n",
            "conf.d__.hidden.conf": "Port 2\n",
            "deep__a": "User deep\nHost web\n  Port 2002\n",
            "deep__b": "ConnectTimeout 6\nMatch all\n ServerAliveInterval 3\n",
        },
    ),
    "include keeps the block": one(
        """
        Host web
          Include @DIR@/inner
          Port 2100
        Host db
          Include @DIR@/inner
          ConnectTimeout 1m
        """,
        *("web", "db", "other"),
        inner="IdentityFile ~/.ssh/inner\nHost other\n  User never\nHost *\n  User inner\nMatch final\n Port 7\n",
    ),
    "include relative": one(
        "Include work.conf\nInclude ~/.ssh/more/*\n",
        "web",
        **{
            ".ssh__work.conf": "User at-work\n",
            ".ssh__more__x": "Port 2345\n",
            ".ssh__more__d__y": "Port 1\n",
        },
    ),
    "jump chain": one(
        """
        Host inner
          HostName 10.1.2.3
          ProxyJump bob@gate.example:2222,ssh://alice@second.example:2022,third
        Host near
          ProxyJump gate # one hop
        Host v6
          ProxyJump [2001:db8::1]:2022
        Host dotted
          ProxyJump 10.9.8.7
        Host apart
          ProxyJump None
        Host *
          ProxyJump default.example
          ProxyCommand never
        """,
        *("inner", "near", "v6", "dotted", "apart", "else"),
    ),
    "command before jump": one(
        """
        Host web
          ProxyCommand nc -X connect -x "proxy:3128" %h %p  # goes to the shell
          ProxyJump never
        Host direct
          ProxyCommand none
          ProxyJump never
        Host after-none
          ProxyJump none
          ProxyCommand never
        Host eq
          ProxyCommand=ssh -W [%h]:%p gate
        """,
        *("web", "direct", "after-none", "eq"),
    ),
    "several keys": one(
        """
        Host web
          IdentityFile ~/.ssh/web_ed25519
          IdentityFile /srv/keys/%h/%r_%p
          IdentityFile ~/.ssh/web_ed25519
          IdentitiesOnly yes
        Host none
          IdentityFile none
        Host *
          IdentityFile ~/.ssh/common
        """,
        *("web", "none", "x"),
    ),
    "tokens": one(
        """
        Host web
          HostName %h.Example.com
          User someone
          Port 2022
          IdentityFile %d/.ssh/%n-%h-%p-%r-%u-%i-%L-%l-%k-%%
          IdentityFile ${KEYS}/id
          CertificateFile ~/.ssh/%h-cert.pub
          UserKnownHostsFile ~/.ssh/known_%h %d/kh2 ${KEYS}/%k.%C "with blank"
          GlobalKnownHostsFile /etc/hosts.a /etc/hosts.b
          IdentityAgent ~/%r.agent.${KEYS}
        """,
        *("web", "plain"),
    ),
    "key alias": one(
        "HostKeyAlias Shared.Example\nUserKnownHostsFile ~/kh-%k\nIdentityFile ~/%k\nCheckHostIP yes\n"
    ),
    "certificates": one(
        """
        CertificateFile ~/.ssh/all-cert.pub
        Host web
          CertificateFile ~/.ssh/web-cert.pub
          CertificateFile ~/.ssh/all-cert.pub
          IdentityFile ~/.ssh/web
        """,
        *("web", "x"),
    ),
    "agent": one(
        """
        Host one
          IdentityAgent none
        Host two
          IdentityAgent SSH_AUTH_SOCK
        Host three
          IdentityAgent $OTHER_AGENT
        Host four
          IdentityAgent $NOT_SET_AT_ALL
        Host five
          IdentityAgent "~/Library/Group Containers/t/agent.sock"
        """,
        *("one", "two", "three", "four", "five", "six"),
    ),
    "algorithms": one(
        """
        Host plus
          Ciphers +aes256-cbc,3des-cbc
          MACs +hmac-md5
          KexAlgorithms +diffie-hellman-group1-sha1
          HostKeyAlgorithms +ssh-rsa
          PubkeyAcceptedKeyTypes +ssh-rsa
        Host minus
          Ciphers -chacha20*,aes128-ctr
          MACs -hmac-sha1*,umac-64*
          KexAlgorithms -diffie-*
          HostKeyAlgorithms -ecdsa*
          PubkeyAcceptedAlgorithms -*cert*
        Host head
          Ciphers ^aes128-gcm@openssh.com
          MACs ^hmac-sha2-512
          KexAlgorithms ^ecdh-sha2-nistp521
          HostKeyAlgorithms ^rsa-sha2-512
        Host exact
          Ciphers aes128-ctr,aes256-ctr
          MACs hmac-sha2-256
          KexAlgorithms curve25519-sha256
          HostKeyAlgorithms ssh-ed25519
          PubkeyAcceptedAlgorithms ssh-ed25519,rsa-sha2-512
        """,
        *("plus", "minus", "head", "exact", "default"),
    ),
    "known hosts": one(
        """
        Host web
          StrictHostKeyChecking accept-new
          UserKnownHostsFile /dev/null
        Host lax
          StrictHostKeyChecking off
          UserKnownHostsFile none
          GlobalKnownHostsFile none
        Host no
          StrictHostKeyChecking FALSE
        Host yes
          StrictHostKeyChecking true
        Host *
          HashKnownHosts yes
        """,
        *("web", "lax", "no", "yes", "other"),
    ),
    "times": one(
        """
        Host a
          ConnectTimeout 1m30s
          ServerAliveInterval 2h
        Host b
          ConnectTimeout none
          ConnectTimeout 1M5
          ServerAliveInterval 1w2d
        Host *
          ConnectTimeout 0
          ServerAliveCountMax 0
          TCPKeepAlive no
          ConnectionAttempts 4
        """,
        *("a", "b", "c"),
    ),
    "batch": one("BatchMode yes\nHost web\n ServerAliveInterval 0\n", "web", "db"),
    "authentication": one(
        """
        PreferredAuthentications publickey,keyboard-interactive
        PasswordAuthentication no
        ChallengeResponseAuthentication no
        Host web
          PubkeyAuthentication host-bound
        Host db
          PubkeyAuthentication no
        """,
        *("web", "db"),
    ),
    "network": one("AddressFamily inet6\nBindAddress ::1\nBindInterface lo\nPort ssh\n"),
    "unknown ignored": one(
        "IgnoreUnknown Use*,Foo?,foobar\nUseKeychains yes\nFooX 1 2 3\nFOOBAR 'a b'\nPort 2\n"
    ),
    "obsolete": one("Protocol 2\nCipher blowfish\nRSAAuthentication yes\nUseRoaming no\nPort 3\n"),
    "corporate": one(
        """
        Include @DIR@/vendor/*.conf

        Match originalhost *.corp,*.corp.example !exec "test -e @DIR@/on-the-vpn"
            ProxyJump %r@bastion-eu.corp.example:443

        Host *.corp
            HostName %hp.example

        Host bastion-*.corp.example
            ProxyCommand /usr/bin/corkscrew proxy.corp.example 8080 %h %p
            ControlMaster auto
            ControlPath ~/.ssh/cm-%C
            ControlPersist 10m

        Host *.corp *.corp.example !bastion-*
            User jdoe
            IdentityFile ~/.ssh/corp_ed25519
            CertificateFile ~/.ssh/corp_ed25519-cert.pub
            IdentitiesOnly yes
            UserKnownHostsFile ~/.ssh/known_hosts ~/.ssh/known_hosts.corp
            ForwardAgent yes
            DynamicForward 1080
            LocalForward 8080 localhost:80

        Host *
            ServerAliveInterval 30
            ServerAliveCountMax 4
            AddKeysToAgent yes
            HashKnownHosts no
            LogLevel ERROR
            SendEnv LANG LC_*
            GSSAPIAuthentication yes
        """,
        *("git.corp", "db7.corp.example", "bastion-eu.corp.example", "github.com"),
        **{
            "vendor__ca.conf": "Host *.corp.example\n  StrictHostKeyChecking yes\n  Ciphers ^aes256-gcm@openssh.com\n"
        },
    ),
    "cloud": one(
        """
        Host i-* mi-*
          ProxyCommand sh -c "aws ssm start-session --target %h --document-name AWS-StartSSHSession \
--parameters 'portNumber=%p'"
          User ec2-user
        Host github.com gitlab.com
          User git
          IdentitiesOnly yes
          IdentityFile ~/.ssh/%h
        Host 10.* 192.168.?.*
          StrictHostKeyChecking no
          UserKnownHostsFile /dev/null
        """,
        *("i-0abc", "github.com", "10.3.2.1", "192.168.1.77", "192.168.10.7"),
    ),
    "canonicalize": one(
        "CanonicalizeHostname no\nCanonicalDomains example.com\nHost web\n HostName w.example.com\n", "web"
    ),
}


def environment(directory: Path) -> dict[str, str]:
    return {
        "HOME": str(directory),  # only Include takes it from here
        "PATH": os.environ["PATH"],
        "SHELL": "/bin/sh",
        "KEYS": "/srv/keys",
        "SSH_AUTH_SOCK": "/run/agent.main",
        "OTHER_AGENT": "/run/agent.other",
    }


def write(case: Case, directory: Path) -> str:
    for name, text in case.files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("@DIR@", str(directory)))
        path.chmod(0o600)
    return str(directory / "config")


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
        *("-v", "-o", "ProxyCommand=exit 1", "-o", "BatchMode=yes", "-F", config, *login(case), host),
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


def cases() -> Iterator[Any]:
    for name, case in CORPUS.items():
        for host in case.hosts:
            yield pytest.param(case, host, id=f"{name}: {host}")


@pytest.mark.parametrize(("case", "host"), tuple(cases()))
def test_it_says_what_ssh_says(case: Case, host: str, ssh: str, tmp_path: Path) -> None:
    config, environ = write(case, tmp_path), environment(tmp_path)
    ours = agrees(config, host, case, environ)
    assert ours is not None
    keys, certificates = oracle_files(config, host, case, environ)
    assert list(ours.identity_files) == keys
    assert list(ours.certificate_files) == certificates


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len(CORPUS) >= 25
    assert sum(len(case.hosts) for case in CORPUS.values()) >= 75


def test_a_proxy_command_gets_its_tokens_as_ssh_fills_them(ssh: str, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    config = tmp_path / "config"
    config.write_text(
        "Host web\n HostName Web.Example\n User me\n Port 2022\n HostKeyAlias Key.Example\n"
        f" ProxyCommand sh -c 'echo \"%h %n %p %r %k %% $HOME\" > {seen}' # tail\n"
    )
    environ = environment(tmp_path)
    run_ssh("-F", str(config), "web", environ=environ)
    by_ssh = seen.read_text()
    seen.unlink()
    command = resolve("web", files=[str(config)], environ=environ).proxy_command
    assert command is not None
    subprocess.run(["/bin/sh", "-c", command], env=environ)
    assert seen.read_text() == by_ssh
    assert by_ssh.startswith("web.example web 2022 me key.example % /")


REFUSED = {
    "unknown keyword": (
        "Host web\n  Foo bar\n",
        2,
        "unknown option 'Foo'; remove it, or put IgnoreUnknown Foo",
    ),
    "near keyword": ("IdentityFiles ~/.ssh/id\n", 1, "did you mean IdentityFile?"),
    "unknown ignored too late": ("Foo bar\nIgnoreUnknown Foo\n", 1, "unknown option 'Foo'"),
    "no value": ("\n\nPort\n", 3, "Port has no value"),
    "only a comment": ("User # me\n", 1, "User: the value is missing"),
    "empty value": ('User ""\n', 1, "User: the value is missing"),
    "extra words": ("HostName a b\n", 1, "extra words after 'a'"),
    "open quote": ('User "me\n', 1, "a quote is not closed"),
    "port 0": ("Port 0\n", 1, "Port: '0' is no port"),
    "port 70000": ("Port 70000\n", 1, "is no port"),
    "bad port where it doesn't apply": ("Host elsewhere\n Port no-such-service\n", 2, "is no port"),
    "bad flag": ("Compression maybe\n", 1, "use one of yes, no"),
    "bad time": ("ConnectTimeout 5x\n", 1, "is no time"),
    "bad number": ("ServerAliveCountMax few\n", 1, "is no whole number"),
    "bad jump": ("ProxyJump a,,b\n", 1, "is no jump host"),
    "jump with blanks": ("ProxyJump a, b\n", 1, "is no jump host"),
    "jump port": ("ProxyJump a:0\n", 1, "is no port"),
    "jump to a path": ("ProxyJump ssh://a/b\n", 1, "is no jump host"),
    "jump to itself": ("Host *\n  ProxyJump web\n", 2, "ProxyJump leads from web to itself"),
    "bad match": ("Match colour red\n", 1, "unknown Match criterion 'colour'"),
    "match without criteria": ("Match # nothing\n", 1, "Match lacks a criterion"),
    "match without value": ("Match host\n", 1, "Match host lacks its value"),
    "match all and more": ("Match all host x\n", 1, "Match all stands alone"),
    "empty pattern": ('Host web ""\n', 1, "Host has an empty pattern"),
    "none among files": ("UserKnownHostsFile a none\n", 1, "'none' must stand alone"),
    "unknown token": ("Host web\n HostName %z.example\n", 2, "no token %z here"),
    "unknown token in a key": ("UserKnownHostsFile ~/%q\n", 1, "no token %q here"),
    "variable not set": ("UserKnownHostsFile ${NOPE}/k\n", 1, "${NOPE} is not set"),
    "agent variable": ("Host elsewhere\n IdentityAgent ${NOPE}\n", 2, "${NOPE} is not set"),
    "agent name": ("IdentityAgent $a/b\n", 1, "is no variable"),
    "no attempts": ("ConnectionAttempts 0\n", 1, "would never connect"),
    "include of itself": ("Include @DIR@/config\n", 1, "Include goes deeper than 16 files"),
    "include with tilde user": ("UserKnownHostsFile ~no-such-user-here/x\n", 1, "there is no user"),
}


@pytest.mark.parametrize(("text", "line", "words"), tuple(REFUSED.values()), ids=REFUSED)
def test_it_refuses_what_ssh_refuses_and_says_where(
    text: str, line: int, words: str, ssh: str, tmp_path: Path
) -> None:
    case = one(text)
    config, environ = write(case, tmp_path), environment(tmp_path)
    assert oracle(config, "web", case, environ) is None, "ssh accepts this"
    with pytest.raises(ConfigError) as caught:
        resolve("web", files=[config], environ=environ)
    assert str(caught.value).startswith(f"{config}:{line}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["", "-oProxyCommand=x", "a b", "a;b", "$(x)", "a\nb", "a'b"])
def test_a_host_that_a_shell_could_misread_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="is no host name"):
        resolve(host, files=["none"])


def test_a_login_that_a_shell_could_misread_is_refused() -> None:
    with pytest.raises(ConfigError, match="could misread"):
        resolve("web", user="me;id", files=["none"])


def test_a_missing_file_is_an_error_only_where_it_was_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere: can't read it: No such file"):
        resolve("web", files=[str(tmp_path / "nowhere")])
    config = tmp_path / "config"
    config.write_text(f"Include {tmp_path}/nowhere\nPort 5\n")
    assert resolve("web", files=[str(config)]).port == 5


@pytest.mark.parametrize("mode", [0o666, 0o602])
def test_an_included_file_that_others_can_write_is_refused(mode: int, ssh: str, tmp_path: Path) -> None:
    case = one("Include @DIR@/inner\n", inner="Port 5\n")
    config = write(case, tmp_path)
    (tmp_path / "inner").chmod(mode)
    assert oracle(config, "web", case, environment(tmp_path)) is None
    with pytest.raises(ConfigError, match=r"inner: others can write it; chown"):
        resolve("web", files=[config])


def test_a_failing_match_exec_names_its_line(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text('Match exec "kill -9 $$"\n')
    with pytest.raises(ConfigError, match=r"config:1: Match exec .* was ended by signal 9"):
        resolve("web", files=[str(config)], environ={"SHELL": "/bin/sh", "PATH": os.environ["PATH"]})


def test_an_alias_is_named_by_patterns_without_wildcards_only(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host web db*\n User a\nMatch originalhost mail\n User b\nHost * !ftp\n User c\n")
    named = {host: resolve(host, files=[str(config)]).named for host in ("web", "db1", "mail", "ftp", "x")}
    assert named == {"web": True, "db1": False, "mail": True, "ftp": False, "x": False}


def test_what_is_not_honoured_is_named_once_and_only_where_it_matters(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        "Host web\n controlmaster AUTO\n DynamicForward 1080\n DynamicForward 1081\n Tunnel no\n"
        " ControlPath none\n LogLevel DEBUG\n VisualHostKey yes\n RemoteCommand tmux attach\n"
        "Host *\n ControlMaster no\n Tunnel yes\n CanonicalizeHostname yes\nHost other\n ForwardX11 yes\n"
    )
    assert resolve("web", files=[str(config)]).ignored == (
        *("ControlMaster", "DynamicForward", "RemoteCommand", "CanonicalizeHostname"),
    )
    assert resolve("db", files=[str(config)]).ignored == ("Tunnel", "CanonicalizeHostname")


def test_newer_criteria_than_this_ssh_knows(tmp_path: Path) -> None:
    """OpenSSH 9.4 and later: Tag, Match tagged and localnetwork."""
    config = tmp_path / "config"
    config.write_text(
        "Host web\n Tag lab\nMatch tagged l*\n User lab\nMatch localnetwork 127.0.0.0/8\n Port 2\n"
        "Match localnetwork 192.0.2.0/24\n Port 3\nMatch sessiontype none\n ConnectTimeout 4\n"
    )
    ours = resolve("web", files=[str(config)])
    assert (ours.user, ours.connect_timeout) == ("lab", 4)
    if sys.platform == "linux":
        assert (ours.port, ours.ignored) == (2, ())
    config.write_text("Match localnetwork 10.0.0.1/8\n Port 3\n")
    with pytest.raises(ConfigError, match=r"config:1: Match localnetwork: .*host bits"):
        resolve("web", files=[str(config)])


# --- the default files: in a mount namespace of their own, so that nobody's ~/.ssh is touched --------------

IN_NAMESPACE = """
mkdir "$1/old" && mount --rbind "$2" "$1/old" || exit 77
for there in "$1/old"/* "$1/old"/.[!.]*; do  # python itself may live in the home directory
    case "$there" in */.ssh) ;; *) ln -s "$there" "$1/home/" ;; esac
done
mount --rbind "$1/home" "$2" && mount --bind "$1/etc" /etc/ssh || exit 77
ssh -G web 2>/dev/null | sed 's/^/ssh: /'
exec "$3" -c 'import sys; from gotunnel.upstream.ssh_config import resolve
s = resolve("web"); print("us:", s.user, s.port, s.connect_timeout, s.hash_known_hosts, *s.identity_files)'
"""


def in_namespace(directory: Path) -> subprocess.CompletedProcess[str]:
    words = ["unshare", "-m"] if os.getuid() == 0 else ["unshare", "-rm"]
    script = ["sh", "-c", IN_NAMESPACE, "sh", str(directory), HOME, sys.executable]
    try:
        done = subprocess.run([*words, *script], capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        done = subprocess.CompletedProcess([], 77, "", "no unshare command")
    if done.returncode == 77 or "unshare:" in done.stderr:
        assert os.environ.get("CI") != "true", done.stderr
        pytest.skip(f"needs a mount namespace: {done.stderr.strip()}")
    return done


@pytest.fixture
def boxed(tmp_path: Path) -> Path:
    (tmp_path / "home/.ssh").mkdir(parents=True)
    (tmp_path / "etc/ssh_config.d").mkdir(parents=True)
    (tmp_path / "home/.ssh/config").write_text(
        "Include work\nHost web\n User mine\n IdentityFile ~/.ssh/one\n"
    )
    (tmp_path / "home/.ssh/work").write_text("Port 2022\n")
    (tmp_path / "etc/ssh_config").write_text(
        "Include ssh_config.d/*.conf\nUser system\nPort 1\nHashKnownHosts yes\nIdentityFile ~/.ssh/one\n"
    )
    (tmp_path / "etc/ssh_config.d/a.conf").write_text("ConnectTimeout 8\n")
    for path in tmp_path.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o600)
    return tmp_path


def test_the_users_file_comes_before_the_systems(ssh: str, boxed: Path) -> None:
    done = in_namespace(boxed)
    said = [line.removeprefix("ssh: ") for line in done.stdout.splitlines() if line.startswith("ssh: ")]
    assert {"user mine", "port 2022", "connecttimeout 8", "hashknownhosts yes"} <= set(said)
    keys = [line.split()[1].replace("~", HOME) for line in said if line.startswith("identityfile ")]
    assert f"us: mine 2022 8 True {' '.join(keys)}" in done.stdout, done.stderr


def test_the_users_file_must_not_be_writable_by_others(ssh: str, boxed: Path) -> None:
    (boxed / "home/.ssh/config").chmod(0o666)
    done = in_namespace(boxed)
    assert "ssh: " not in done.stdout, "ssh refuses it"
    assert f"{HOME}/.ssh/config: others can write it" in done.stderr
    assert "us: " not in done.stdout


# --- random configurations ---------------------------------------------------------------------------------

HOSTS = ["web", "db1", "db1.example.com", "Mixed", "10.0.0.7"]
PATTERNS = st.sampled_from(
    ["web", "db?", "db*", "*.example.com", "!db1", "*", "!web", "mixed", "Mixed", "10.*", "d*b1"]
)
OPTIONS = st.sampled_from(
    """Port 2022|Port=22|User alice|User = bob|HostName real.example.com|HostName %h.corp|HostName 10.0.0.9
    ProxyJump gate|ProxyJump a@b:22,c|ProxyJump none|ProxyCommand nc %h %p|ProxyCommand none
    IdentityFile ~/.ssh/a|IdentityFile none|IdentitiesOnly yes|UserKnownHostsFile ~/x ~/y%h|UserKnownHostsFile none
    StrictHostKeyChecking accept-new|StrictHostKeyChecking off|HostKeyAlias Key|Compression yes|Compression no
    ServerAliveInterval 1m|ServerAliveInterval none|ConnectTimeout 9|ConnectTimeout none|BatchMode yes
    Ciphers +aes128-cbc|Ciphers -aes*|MACs ^hmac-sha2-512|KexAlgorithms -diffie*|TCPKeepAlive no
    AddressFamily inet|BindAddress "::1"|IdentityAgent none|IdentityAgent ~/%r|PubkeyAuthentication no
    ControlMaster auto|LocalForward 1 a:2|SendEnv LANG|Bogus 1|IgnoreUnknown bog*|Port x|# nothing|User "a b" # c""".replace(
        "\n", "|"
    ).split("|")
).map(str.strip)
CRITERIA = st.sampled_from(
    """all|host web|host *.corp,real*|host=db*|!host web|originalhost web,db1|originalhost MIXED|user alice
    !user alice|localuser root|exec true|!exec "exit 1"|final|!final|canonical|final host real*""".replace(
        "\n", "|"
    ).split("|")
).map(str.strip)
BLOCK = st.one_of(
    st.lists(PATTERNS, min_size=1, max_size=3).map(lambda words: "Host " + " ".join(words)),
    st.lists(CRITERIA, min_size=1, max_size=2).map(lambda words: "Match " + " ".join(words)),
    OPTIONS,
    OPTIONS,
    OPTIONS,
    st.just("Include @DIR@/inner"),
)
CONFIG = st.lists(BLOCK, max_size=14).map("\n".join)
FEW = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FEW
@given(config=CONFIG, inner=st.lists(BLOCK, max_size=4).map("\n".join), host=st.sampled_from(HOSTS))
def test_random_configurations_agree_with_ssh(
    ssh: str, tmp_path: Path, config: str, inner: str, host: str
) -> None:
    case = one(config, inner=inner.replace("Include @DIR@/inner", ""))
    agrees(write(case, tmp_path), host, case, environment(tmp_path))


LINES = st.one_of(
    st.text(max_size=30),
    st.builds(
        "{}{}{}".format,
        st.sampled_from(
            "Host Match Include Port User HostName ProxyJump IdentityFile IdentityAgent Ciphers".split()
        ),
        st.sampled_from([" ", "=", "\t", '"', " = ", ""]),
        st.text(
            alphabet=st.one_of(st.sampled_from(list("!*?,%${}\"'\\~:@[]/#-0a ")), st.characters()),
            max_size=20,
        ),
    ),
)


@FEW
@given(text=st.lists(LINES, max_size=8).map("\n".join), raw=st.binary(max_size=40))
def test_random_text_raises_nothing_but_our_error(tmp_path: Path, text: str, raw: bytes) -> None:
    config = tmp_path / "config"
    config.write_bytes(
        text.replace("exec", "user").encode("utf-8", "surrogatepass") + raw.replace(b"exec", b"")
    )
    try:
        ours = resolve("web", files=[str(config)], environ={"HOME": str(tmp_path)})
    except ConfigError as error:
        assert "\n" not in str(error)
    else:
        assert 1 <= ours.port <= 65535


@given(text=st.text(alphabet="ab.", max_size=8), pattern=st.text(alphabet="ab.*?", max_size=8))
def test_patterns_match_as_their_regular_expression(text: str, pattern: str) -> None:
    import re

    regex = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern)
    assert matches(text, pattern) == (re.fullmatch(regex, text) is not None)


def test_a_pattern_of_many_stars_is_quick() -> None:
    assert not matches("a" * 2000, "a*" * 500 + "b")
