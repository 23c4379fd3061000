"""CHAINs: every form, what each error says, and that no password comes out of either."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gotunnel.address import HostPort
from gotunnel.errors import ConfigError
from gotunnel.upstream.spec import (
    Chain,
    ConnectHop,
    DirectHop,
    HopSpec,
    Secret,
    SocksHop,
    SshHop,
    masked,
    parse_chain,
)
from gotunnel.upstream.ssh_plan import plan

HOME = os.path.expanduser("~")


@pytest.mark.parametrize(
    ("text", "hop", "shown"),
    [
        ("direct:", DirectHop(), "direct:"),
        ("direct", DirectHop(), "direct:"),
        ("direct:?interface=wg0", DirectHop(interface="wg0"), "direct:?interface=wg0"),
        ("direct:?source=fd00::2", DirectHop(source="fd00::2"), "direct:?source=fd00::2"),
        ("bastion", SshHop("bastion"), "ssh://bastion"),
        ("Dev@Bastion:2222", SshHop("Bastion", "Dev", 2222), "ssh://Dev@Bastion:2222"),
        ("ssh://me@[2001:db8::1]:22", SshHop("2001:db8::1", "me", 22), "ssh://me@[2001:db8::1]:22"),
        ("SSH://corp%5Cme@jump", SshHop("jump", "corp\\me"), "ssh://corp\\me@jump"),
        ("ssh://a%40b%3Ac@jump", SshHop("jump", "a@b:c"), "ssh://a%40b%3Ac@jump"),
        ("we%2Cird", SshHop("we,ird"), "ssh://we%2Cird"),
        ("ssh://b?identity=~/k&identity=/l&known_hosts=~/h&host_key_checking=accept-new"
         "&config=/c&compression=yes&connections=3",
         SshHop("b", identity=(f"{HOME}/k", "/l"), known_hosts=f"{HOME}/h", host_key_checking="accept-new",
                config="/c", compression=True, connections=3), "ssh://b"),
        ("http://we%2Cird:1", ConnectHop(HostPort("we,ird", 1)), "http://we%2Cird:1"),
        ("http://proxy", ConnectHop(HostPort("proxy", 80)), "http://proxy:80"),
        ("https://proxy?ca=/ca&cert=/c&key=/k&server_name=other",
         ConnectHop(HostPort("proxy", 443), True, ca="/ca", cert="/c", key="/k", server_name="other"),
         "https://proxy:443"),
        ("http://u:p%40%2C%2Fs@proxy:3128/", ConnectHop(HostPort("proxy", 3128), user="u",
                                                       password=Secret("p@,/s")), "http://u:***@proxy:3128"),
        ("http://u:a:b@c@proxy:3128", ConnectHop(HostPort("proxy", 3128), user="u", password=Secret("a:b@c")),
         "http://u:***@proxy:3128"),
        ("http://u@proxy?password_env=PW", ConnectHop(HostPort("proxy", 80), user="u",
                                                     password=Secret(env="PW")), "http://u:***@proxy:80"),
        ("socks5h://u:p@s", SocksHop(HostPort("s", 1080), user="u", password=Secret("p")),
         "socks5h://u:***@s:1080"),
        ("socks5://[::1]:9", SocksHop(HostPort("::1", 9), remote_names=False), "socks5://[::1]:9"),
        ("socks4://me@s:1", SocksHop(HostPort("s", 1), 4, False, "me"), "socks4://me@s:1"),
        ("socks4a://s:1", SocksHop(HostPort("s", 1), 4), "socks4a://s:1"),
    ],
)  # fmt: skip
def test_every_form(text: str, hop: HopSpec, shown: str) -> None:
    chain = parse_chain(text)
    assert chain.hops == (hop,)
    assert str(chain) == shown
    if "***" not in shown:
        assert str(parse_chain(shown)) == shown


def test_a_chain_is_in_order_and_resolves_where_its_last_hop_does() -> None:
    chain = parse_chain(" direct:?interface=eth0 , http://proxy:3128,ssh://a@b,socks5://c:1 ")
    assert str(chain) == "direct:?interface=eth0,http://proxy:3128,ssh://a@b,socks5://c:1"
    assert not chain.resolves_far
    assert not parse_chain("direct:").resolves_far
    for far in ("b", "http://p", "socks5h://s", "socks4a://s"):
        assert parse_chain(far).resolves_far


def test_only_a_typed_password_is_one_that_ps_shows() -> None:
    assert parse_chain("b,http://u:p@x").has_typed_password
    assert not parse_chain("http://u@x?password_file=/f,socks5h://y").has_typed_password


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a way out is empty"),
        (" , ", "a way out is empty"),
        ("a,,b", "an empty hop"),
        ("a,direct:", "must stand first"),
        ("ftp://x", "unknown scheme 'ftp'"),
        ("srv://x", "stands alone"),
        ("ssh://", "the host is missing"),
        ("ssh://me@", "the host is missing"),
        ("http://:3128", "the host is missing"),
        ("b:0", "a port from 1 to 65535"),
        ("b:65536", "a port from 1 to 65535"),
        ("b:x", "a port from 1 to 65535"),
        ("2001:db8::1", "in brackets"),
        ("[2001:db8::1", "in brackets"),
        ("ssh://b/path", "a path has no meaning"),
        ("ssh://b#x", "a fragment"),
        ("ssh://-oProxyCommand=x", "can't start with '-'"),
        ("me:pw@b", "ssh takes no password"),
        ("ssh://b?idenity=x", "did you mean 'identity'?"),
        ("ssh://b?identity", "wants a value"),
        ("ssh://b?connections=0", "want auto or 1 to 64"),
        ("ssh://b?connections=65", "want auto or 1 to 64"),
        ("ssh://b?host_key_checking=maybe", "want yes, accept-new, no"),
        ("ssh://b?compression=on", "want yes or no"),
        ("ssh://b?config=a&config=b", "given twice"),
        ("http://p?key=/k", "unknown option 'key'"),
        ("https://p?key=/k", "cert= beside it"),
        ("http://u:p@x?password_env=Y", "more than one password"),
        ("socks4://u:p@x", "knows no passwords"),
        ("socks5://u:" + "p" * 256 + "@x", "at most 255 bytes"),
        ("direct:eth0", "want direct:"),
        ("direct:?source=eth0", "is no IP address"),
        ("direct:?mtu=1", "known: interface, source"),
        ("ssh://a%00b", "control characters"),
        ("ssh://a%0Ab", "control characters"),
        ("ssh://me%e2%80%a8x@b", "control characters"),
        ("b\udcff", "control characters"),
    ],
)
def test_every_error_is_one_line_that_says_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_chain(text)
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "http://u:{0}@x:99999",
        "http://u:{0}@",
        "http://u:{0}",
        "http:u:{0}@x",
        "u:{0}",
        "bastion,u:{0}",
        "u:{0}@bastion",
        "ssh://u:{0}@bastion",
        "gopher://u:{0}@x",
        "http://u:a,{0}@x:y",
        "http://u:a/{0}@x",
        "http://u:a?{0}@x",
        "http://u@y:a?{0}&{0}=@x",
        "http://u:a#{0}@x",
        "http://u:a@{0}@x:y",
        "http://x?password={0}",
        "http://x?auth=u:{0}&ca=/f",
        "http://u:{0}@x,,bastion",
        "http://u:{0}@x,direct:",
        "socks4://u:{0}@x",
        "http://u:{0}@x?password_env=Y",
        "ssh://b?identity=/k,http://u:{0}@x:y",
    ],
)
@pytest.mark.parametrize(
    "password", ["hunter2hunter2", "99999999", "-hunter2", "h%75nter2hunter2", "hünter2%ff"]
)
def test_no_error_holds_a_piece_of_a_password(text: str, password: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_chain(text.format(password))
    assert password not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert password not in masked(text.format(password))


def test_where_a_password_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("from file\n")
    assert Secret(file=str(file)).read({}) == "from file"
    assert Secret(env="PW").read({"PW": "from env"}) == "from env"
    assert Secret(credential="password").read({"CREDENTIALS_DIRECTORY": str(tmp_path)}) == "from file"
    assert Secret("typed").read({}) == "typed"
    assert Secret().read({}) == ""
    assert "typed" not in repr(parse_chain("http://u:typed@x"))


def test_where_a_password_does_not_come_from(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for secret in (Secret(file=str(tmp_path / "none")), Secret(file=str(binary)), Secret(env="PW"),
                   Secret(credential="x"), Secret(file=str(tmp_path))):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            secret.read({})
        assert str(caught.value).isprintable()


def assert_one_line(error: Exception) -> None:
    assert str(error).isprintable()


_BITS = st.sampled_from(
    ["ssh://", "http://", "https://", "socks5h://", "socks4://", "direct:", "u:", "@", ":", ",", "?", "&",
     "=", "%", "%2C", "[", "]", "::1", "#", "/", "identity=", "connections=", "host", ":22", "-", "\n",
     "\udcff", "password_env=", " ", "srv://", "~", "²", ",http://"]
)  # fmt: skip


@given(st.lists(st.one_of(_BITS, st.text(max_size=6)), max_size=12).map("".join))
def test_nothing_but_a_config_error_leaves_the_parser(text: str) -> None:
    try:
        chain = parse_chain(text)
    except ConfigError as error:
        assert_one_line(error)
    else:
        assert isinstance(chain, Chain)
        assert str(chain).isprintable()
        if not any(isinstance(hop, ConnectHop | SocksHop) and hop.password for hop in chain.hops):
            assert str(parse_chain(str(chain))) == str(chain)


@given(st.text(st.characters(codec="utf-8", exclude_characters=","), min_size=4, max_size=20))
def test_no_password_comes_out_however_it_is_written(password: str) -> None:
    assume(password not in "http://user:***@proxy.example:3128,ssh://bastion")
    text = f"http://user:{password}@proxy.example:3128,bastion"
    try:
        shown = str(parse_chain(text))
    except ConfigError as error:
        shown = str(error).partition("': ")[0]  # the chain as it is shown; the words after it are fixed
    assert password not in shown
    assert password not in masked(text)


def test_a_key_and_known_hosts_may_be_credentials_of_systemd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (hop,) = parse_chain("ssh://jump?identity_credential=key&known_hosts_credential=known").hops
    assert isinstance(hop, SshHop)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(ConfigError, match="identity_credential=key: no CREDENTIALS_DIRECTORY here"):
        plan(hop)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(ConfigError, match="No such file"):
        plan(hop)
    for name in ("key", "known"):
        (tmp_path / name).write_text("")
    found = plan(hop)
    assert found.identities == (str(tmp_path / "key"),)
    assert found.explicit_identities
    assert found.known_hosts_files == (str(tmp_path / "known"),)
    for wrong in ("identity_credential=../etc/shadow", "known_hosts=/a&known_hosts_credential=b"):
        with pytest.raises(ConfigError, match="credential"):
            parse_chain(f"ssh://jump?{wrong}")
