"""`resolve` says what `ssh -G` says: a corpus of configurations, several hosts each, every honoured option.

The expansions that -G leaves out (keys, certificates, ProxyCommand) are read from `ssh -v` and from a run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gotunnel.errors import ConfigError
from gotunnel.upstream.ssh_config import resolve
from gotunnel.upstream.ssh_match import matches
from tests.ssh_config_corpus import CORPUS, Case, one
from tests.ssh_oracle import HOME, SSH, agrees, environment, oracle, oracle_files, run_ssh


@pytest.fixture(scope="module")
def ssh() -> str:
    if SSH is None:
        assert os.environ.get("CI") != "true", "CI must have openssh-client"
        pytest.skip("needs the OpenSSH client (apt-get install openssh-client)")
    return SSH


def cases() -> Iterator[Any]:
    for name, case in CORPUS.items():
        for host in case.hosts:
            yield pytest.param(case, host, id=f"{name}: {host}")


@pytest.mark.parametrize(("case", "host"), tuple(cases()))
def test_it_says_what_ssh_says(case: Case, host: str, ssh: str, tmp_path: Path) -> None:
    config, environ = case.write(tmp_path), environment(tmp_path)
    ours = agrees(config, host, case, environ)
    assert ours is not None
    keys, certificates = oracle_files(config, host, case, environ)
    gone = {f"{HOME}/.ssh/id_dsa", f"{HOME}/.ssh/id_xmss"} - set(keys)  # newer versions try them no more
    mine = [key for key in ours.identity_files if ours.explicit_identities or key not in gone]
    assert mine == keys
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
    config, environ = case.write(tmp_path), environment(tmp_path)
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
    case = one("Include @DIR@/inner\n", files={"inner": "Port 5\n"})
    config = case.write(tmp_path)
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


def pieces(text: str) -> list[str]:
    return [piece.strip() for line in text.splitlines() for piece in line.split("|")]


HOSTS = ["web", "db1", "db1.example.com", "Mixed", "10.0.0.7"]
PATTERNS = st.sampled_from(
    ["web", "db?", "db*", "*.example.com", "!db1", "*", "!web", "mixed", "Mixed", "10.*", "d*b1"]
)
OPTIONS = st.sampled_from(
    pieces(
        """Port 2022|Port=22|User alice|User = bob|HostName real.example.com|HostName %h.corp
        HostName 10.0.0.9
        ProxyJump gate|ProxyJump a@b:22,c|ProxyJump none|ProxyCommand nc %h %p|ProxyCommand none
        IdentityFile ~/.ssh/a|IdentityFile none|IdentitiesOnly yes|UserKnownHostsFile none
        UserKnownHostsFile ~/x ~/y%h|StrictHostKeyChecking accept-new|StrictHostKeyChecking off
        HostKeyAlias Key|Compression yes|Compression no|ServerAliveInterval 1m|ServerAliveInterval none
        ConnectTimeout 9|ConnectTimeout none|BatchMode yes|Ciphers +aes128-cbc|Ciphers -aes*
        MACs ^hmac-sha2-512|KexAlgorithms -diffie*|TCPKeepAlive no|AddressFamily inet|BindAddress "::1"
        IdentityAgent none|IdentityAgent ~/%r|PubkeyAuthentication no|ControlMaster auto
        LocalForward 1 a:2|SendEnv LANG|Bogus 1|IgnoreUnknown bog*|Port x|# nothing|User "a b" # c"""
    )
)
CRITERIA = st.sampled_from(
    pieces(
        """all|host web|host *.corp,real*|host=db*|!host web|originalhost web,db1|originalhost MIXED
        user alice|!user alice|localuser root|exec true|!exec "exit 1"|final|!final|canonical
        final host real*"""
    )
)
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
    case = one(config, files={"inner": inner.replace("Include @DIR@/inner", "")})
    agrees(case.write(tmp_path), host, case, environment(tmp_path))


LINES = st.one_of(
    st.text(max_size=30),
    st.builds(
        "{}{}{}".format,
        st.sampled_from(
            pieces("Host|Match|Include|Port|User|HostName|ProxyJump|IdentityFile|IdentityAgent|Ciphers")
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
    complaint = ""
    try:
        assert 1 <= resolve("web", files=[str(config)], environ={"HOME": str(tmp_path)}).port <= 65535
    except ConfigError as error:
        complaint = str(error)
    assert "\n" not in complaint


@given(text=st.text(alphabet="ab.", max_size=8), pattern=st.text(alphabet="ab.*?", max_size=8))
def test_patterns_match_as_their_regular_expression(text: str, pattern: str) -> None:
    regex = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern)
    assert matches(text, pattern) == (re.fullmatch(regex, text) is not None)


def test_a_pattern_of_many_stars_is_quick() -> None:
    assert not matches("a" * 2000, "a*" * 500 + "b")
