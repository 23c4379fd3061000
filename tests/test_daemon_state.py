"""The two small files: who may read them, whose are believed, what a broken one counts as."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gotunnel.daemon.state import (
    Kept,
    Running,
    Unwritable,
    forget_running,
    load_kept,
    load_running,
    runtime_directory,
    save_kept,
    save_running,
    state_directory,
)
from gotunnel.errors import ConfigError

RUNNING = Running(os.getpid(), 1.5, "0.1", "http://u:s@127.0.0.1:1", "http://127.0.0.1:2/s", "http://x", "t")


def test_what_is_kept_comes_back_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    place = tmp_path / "state" / "gotunnel"
    assert load_kept(place) == Kept()
    save_kept(place, Kept("s", "t", 1, 2, 3))
    assert load_kept(place) == Kept("s", "t", 1, 2, 3)
    assert load_kept(place, "other") == Kept()
    assert (place / "serve.json").stat().st_mode & 0o777 == 0o600
    assert place.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in place.iterdir()] == ["serve.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"secret": 5}', '{"proxy": "x"}', '{"more": 1}', "\x00"])
def test_a_broken_file_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "serve.json").write_text(text)
    (tmp_path / "server.json").write_text(text)
    assert load_kept(tmp_path) == Kept()
    assert load_running(tmp_path) is None


def test_a_running_service_is_found_until_it_ends(tmp_path: Path) -> None:
    save_running(tmp_path, RUNNING, "team")
    assert load_running(tmp_path) is None
    assert load_running(tmp_path, "team") == RUNNING
    forget_running(tmp_path, "team")
    assert load_running(tmp_path, "team") is None


def test_a_file_that_others_could_have_written_is_not_believed(tmp_path: Path) -> None:
    save_running(tmp_path, RUNNING)
    file = tmp_path / "server.json"
    file.chmod(0o666)
    assert load_running(tmp_path) is None
    file.chmod(0o600)
    assert load_running(tmp_path) == RUNNING
    os.chown(file, 12345, 12345)
    assert load_running(tmp_path) is None
    file.rename(tmp_path / "real.json")
    file.symlink_to(tmp_path / "real.json")
    assert load_running(tmp_path) is None


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "gotunnel-0"
    place.mkdir()
    os.chown(place, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to somebody else"):
        save_running(place, RUNNING)
    os.chown(place, os.getuid(), os.getgid())
    place.chmod(0o777)
    with pytest.raises(ConfigError, match="chmod 700"):
        save_running(place, RUNNING)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="belongs to somebody else"):
        save_running(link, RUNNING)


def test_systemd_s_directories_come_first(tmp_path: Path) -> None:
    assert state_directory({"STATE_DIRECTORY": "/s:/t"}) == Path("/s")
    assert runtime_directory({"RUNTIME_DIRECTORY": "/r"}) == Path("/r")
    assert state_directory({"HOME": "/home/me"}) == Path("/home/me/.local/state/gotunnel")
    assert state_directory({"HOME": "/home/me", "XDG_STATE_HOME": "/x"}) == Path("/x/gotunnel")
    assert runtime_directory({"XDG_RUNTIME_DIR": "/run/user/7"}) == Path("/run/user/7/gotunnel")
    assert str(os.getuid()) in str(runtime_directory({}))


def test_a_full_disk_or_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(json.dumps({}))
    with pytest.raises(Unwritable, match="is the directory writable"):
        save_kept(tmp_path / "file" / "below", Kept())


def test_who_has_no_home_keeps_it_with_what_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a uid that nobody knows
    assert state_directory({"XDG_RUNTIME_DIR": str(tmp_path)}) == tmp_path / "gotunnel"
    monkeypatch.setattr("gotunnel.daemon.state.tempfile.gettempdir", _nowhere)
    monkeypatch.setattr("os.getuid", lambda: 54321)
    assert runtime_directory({}) == Path("/tmp/gotunnel-54321")


def _nowhere() -> str:
    raise FileNotFoundError("no usable temporary directory")
