"""Configurations as people have them, to be resolved for several hosts each and compared with `ssh -G`."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ME = pwd.getpwuid(os.getuid()).pw_name


@dataclass(frozen=True)
class Case:
    """`files` by name; "config" is the one given to -F, @DIR@ the directory that they are in."""

    files: Mapping[str, str]
    hosts: tuple[str, ...]
    user: str | None = None
    port: int | None = None

    def write(self, directory: Path) -> str:
        """Write the files; the path of "config"."""
        for name, text in self.files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("@DIR@", str(directory)))
            path.chmod(0o600)
        return str(directory / "config")


def one(
    config: str,
    *hosts: str,
    user: str | None = None,
    port: int | None = None,
    files: Mapping[str, str] | None = None,
) -> Case:
    return Case({"config": config, **(files or {})}, hosts or ("web",), user, port)


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
        'BindAddress "10.0.0.1"\n"ConnectTimeout" 5 \f\n   #Port 1\n',
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
        files={
            "conf.d/10-web.conf": "Host web\n  User included\n",
            "conf.d/20-db.conf": "Host db\n  Include @DIR@/deep/[ab]\n  Port 2001\n",
            "conf.d/30-not.txt": "Port 1\n",
            "conf.d/.hidden.conf": "Port 2\n",
            "deep/a": "User deep\nHost web\n  Port 2002\n",
            "deep/b": "ConnectTimeout 6\nMatch all\n ServerAliveInterval 3\n",
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
        files={
            "inner": "IdentityFile ~/.ssh/inner\nHost other\n  User never\nHost *\n  User inner\n"
            "Match final\n Port 7\n"
        },
    ),
    "include relative": one(
        "Include work.conf\nInclude ~/.ssh/more/*\n",
        "web",
        files={
            ".ssh/work.conf": "User at-work\n",
            ".ssh/more/x": "Port 2345\n",
            ".ssh/more/d/y": "Port 1\n",
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
        files={
            "vendor/ca.conf": "Host *.corp.example\n  StrictHostKeyChecking yes\n"
            "  Ciphers ^aes256-gcm@openssh.com\n"
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
