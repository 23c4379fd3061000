"""known_hosts text and what it vouches for; real servers are in test_upstream_ssh."""

from __future__ import annotations

from pathlib import Path

import asyncssh
import pytest

from gotunnel.upstream.host_keys import HostKeyCheck


def made(kind: str = "ssh-ed25519") -> tuple[asyncssh.SSHKey, str]:
    key = asyncssh.generate_private_key(kind)
    return key.convert_to_public(), key.export_public_key().decode().strip()


KEY, TEXT = made()
OTHER, OTHER_TEXT = made()
ECDSA, ECDSA_TEXT = made("ecdsa-sha2-nistp256")


def trusts(text: str, name: str = "jump.example", port: int = 22) -> bool:
    check = HostKeyCheck(name, port, "yes", text=text)
    return KEY in check.lookup()[0]


@pytest.mark.parametrize(
    ("names", "name", "port", "trusted"),
    [
        ("jump.example", "jump.example", 22, True),
        ("Jump.Example", "JUMP.example", 22, True),
        ("other,jump.example", "jump.example", 22, True),
        ("*.example,!jump.example", "jump.example", 22, False),
        ("*.example", "jump.example", 22, True),
        ("[jump.example]:2222", "jump.example", 2222, True),
        ("[jump.example]:2222", "jump.example", 22, False),
        ("[*.example]:2222", "jump.example", 2222, True),
        ("jump.example", "jump.example", 2222, True),
        ("192.0.2.1", "jump.example", 22, False),
        (",jump.example", "jump.example", 22, False),
        (",,", "jump.example", 22, False),
        ("2001:db8::1", "2001:db8::1", 22, True),
    ],
)
def test_which_names_a_line_is_for(names: str, name: str, port: int, trusted: bool) -> None:
    assert trusts(f"{names} {TEXT}\n", name, port) is trusted


def test_lines_that_cannot_be_read_are_passed_over() -> None:
    text = (
        f"# comment\n\n|1|bad|hash {TEXT}\n@unknown x y\njust-a-name\n"
        "jump.example ssh-ed25519 AAAA\n\0\n@revoked\n"
    )
    assert not trusts(text)
    assert trusts(text + f"jump.example {TEXT} a comment\n")


def test_a_key_of_another_port_is_not_taken_when_this_one_has_its_own() -> None:
    check = HostKeyCheck(
        "jump.example", 2222, "yes", text=f"jump.example {TEXT}\n[jump.example]:2222 {OTHER_TEXT}\n"
    )
    assert check.lookup()[0] == [OTHER]


def test_revoked_under_either_name_is_revoked() -> None:
    for names in ("jump.example", "[jump.example]:2222", "*"):
        text = f"@revoked {names} {TEXT}\n[jump.example]:2222 {TEXT}\n"
        assert HostKeyCheck("jump.example", 2222, "yes", text=text).lookup()[2][0] == KEY


def test_the_servers_key_that_we_know_is_asked_for_first() -> None:
    check = HostKeyCheck("jump.example", 22, "yes", text=f"jump.example {ECDSA_TEXT}\n")
    check.lookup()
    assert check.algorithms()[0] == "ecdsa-sha2-nistp256"
    assert not any("-cert-" in name for name in check.algorithms())
    check = HostKeyCheck("jump.example", 22, "yes", text=f"@cert-authority * {ECDSA_TEXT}\n")
    check.lookup()
    assert "-cert-" in check.algorithms()[0]


@pytest.mark.parametrize(
    ("mode", "text", "accepted"),
    [
        ("yes", "", False),
        ("accept-new", "", True),
        ("accept-new", f"jump.example {OTHER_TEXT}\n", False),
        ("accept-new", f"jump.example {ECDSA_TEXT}\n", False),
        ("no", f"jump.example {OTHER_TEXT}\n", True),
    ],
    # keys are new each time, and both processes of a run must know a test by the same name
    ids=["strict", "new", "new-but-another-is-known", "new-but-another-type-is-known", "off"],
)
def test_a_key_that_no_line_vouches_for(mode: str, text: str, accepted: bool) -> None:
    check = HostKeyCheck("jump.example", 22, mode, text=text)
    check.lookup()
    assert check.judge(KEY) is accepted


def test_a_new_key_is_kept_on_a_line_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text("other.example ssh-ed25519 AAAA")  # no newline at its end
    check = HostKeyCheck("jump.example", 2222, "accept-new", [str(file)])
    check.lookup()
    assert check.judge(KEY)
    assert file.read_text().splitlines()[1] == f"[jump.example]:2222 {TEXT}"
    again = HostKeyCheck("jump.example", 2222, "yes", [str(file)])
    assert KEY in again.lookup()[0]


def test_a_home_that_cannot_be_written_to_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check = HostKeyCheck("jump.example", 22, "accept-new", [str(tmp_path / "file" / "known_hosts")])
    check.lookup()
    assert check.judge(KEY)


def test_text_from_the_environment_is_all_there_is(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"jump.example {TEXT}\n")
    check = HostKeyCheck("jump.example", 22, "accept-new", [str(file)], text="# nothing")
    assert check.lookup()[0] == []
    assert check.judge(OTHER)
    assert file.read_text() == f"jump.example {TEXT}\n"
