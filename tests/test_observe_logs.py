"""Logs as a person, journald and filebeat read them; and no planted secret in any of them."""

from __future__ import annotations

import array
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from gotunnel.observe import logs
from gotunnel.observe.eventlines import EventLogger
from gotunnel.observe.events import (
    RUN,
    Alert,
    Attempt,
    BreakerChange,
    Dial,
    Event,
    Exit,
    Failover,
    Fetch,
    Ready,
    Resume,
)
from gotunnel.observe.journal import Journal, entry, is_journal
from gotunnel.observe.logs import LogHandler, mask, register_secret

SECRET = 'pl4nted "s%cret"'
KEY = "-----BEGIN KEY-----\nb3BlbnNzaC1rZXk\nAAAAEjUuMTIz\n-----END KEY-----\n"


@pytest.fixture(name="secrets")
def planted() -> Iterator[None]:
    forget = [register_secret(SECRET), register_secret(KEY)]
    yield
    for one in forget:
        one()


@pytest.fixture(name="log")
def logger() -> Iterator[Callable[[LogHandler], logging.Logger]]:
    made = logging.Logger("gotunnel.test", logging.DEBUG)
    handlers: list[LogHandler] = []

    def with_handler(handler: LogHandler) -> logging.Logger:
        handlers.append(handler)
        made.addHandler(handler)
        return made

    yield with_handler
    for handler in handlers:
        handler.close()


def parse(data: bytes) -> dict[str, str]:
    """An entry as journald reads it."""
    fields = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(data[:8], "little")
            value, data = data[8 : 8 + length], data[8 + length + 1 :]
        fields[name.decode()] = value.decode()
    return fields


class Journald:
    """Its socket; `read` gives the next entry."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(5)

    def read(self) -> dict[str, str]:
        data, rights, _, _ = self._socket.recvmsg(1 << 20, 100)
        for _, _, passed in rights:
            descriptor = array.array("i", passed)[0]
            with os.fdopen(descriptor, "rb") as file:
                file.seek(0)
                data += file.read()
        return parse(data)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    made = Journald(tmp_path / "socket")
    yield made
    made.close()


def say_everything(log: logging.Logger) -> None:
    """The planted secrets in every place of a record."""
    log.info("words %s", SECRET)
    log.warning("a mapping %(a)s", {"a": SECRET})
    log.error("in a list %s and a repr %r", [SECRET], SECRET)
    log.info("as %s", json.dumps({"k": SECRET}))
    log.info("http://user:%s@h/ and https://u:hush@h", "pl4nted%20%22s%25cret%22")
    log.info("the key: %s", KEY)
    log.info("facts", extra={"facts": {"event": "x", "detail": SECRET, "list": [SECRET], SECRET: {"a": KEY}}})
    log.info("extra", extra={"note": SECRET})
    try:
        try:
            raise ValueError(SECRET)
        except ValueError as error:
            raise KeyError(SECRET) from error
    except KeyError as error:
        error.add_note(f"a note: {KEY}")
        log.exception("it broke: %s", SECRET)
    log.info("stack", stack_info=True)
    log.info("%d", SECRET)  # can't be formatted: Python would print the arguments


def assert_clean(text: str) -> None:
    for part in ("pl4nted", "s%cret", "b3Blbn", "AAAAEj", "hush"):
        assert part not in text
    assert "***" in text


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("format", ["text", "json"])
def test_no_secret_leaves(
    format: logs.Format, log: Callable[[LogHandler], logging.Logger], capsys: pytest.CaptureFixture[str]
) -> None:
    out: list[str] = []
    say_everything(log(LogHandler(format, {}, write=out.append)))
    assert_clean("".join(out))
    assert "was lost" in out[-1]
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "")
    if format == "json":
        assert all(json.loads(line)["ecs.version"] for line in out[:-1])
    else:
        assert all(line.startswith("gotunnel: ") for line in "".join(out).splitlines())


@pytest.mark.usefixtures("secrets")
def test_no_secret_goes_to_journald(journald: Journald, log: Callable[[LogHandler], logging.Logger]) -> None:
    written: list[str] = []
    say_everything(log(LogHandler("text", {}, write=written.append, journal=Journal(journald.path))))
    assert_clean("".join(str(journald.read()) for _ in range(10)))
    assert ["was lost" in line for line in written] == [True]


def test_secrets_are_forgotten_and_short_ones_are_not_looked_for() -> None:
    first, second, short = register_secret("abcdef"), register_secret("abcdef"), register_secret("go")
    first()
    first()
    assert mask("abcdef go") == "*** go"
    second()
    short()
    assert mask("abcdef go") == "abcdef go"


# --- text and journald -------------------------------------------------------------------------------


def test_text_is_a_line_for_a_person(log: Callable[[LogHandler], logging.Logger]) -> None:
    out: list[str] = []
    told = log(LogHandler("text", {}, write=out.append))
    told.info("two\nlines %d", 1)
    told.debug("detail")
    try:
        raise OSError("no")
    except OSError:
        told.exception("failed")
    assert out[0] == "gotunnel: two lines 1\n"
    assert out[1] == "gotunnel: test: detail\n"
    lines = out[2].splitlines()
    assert lines[:2] == ["gotunnel: failed: OSError: no", "gotunnel:   Traceback (most recent call last):"]


def test_journald_gets_priority_and_fields(
    journald: Journald, log: Callable[[LogHandler], logging.Logger]
) -> None:
    told = log(LogHandler("text", {}, journal=Journal(journald.path)))
    token = RUN.set("r1")
    EventLogger(told)(BreakerChange("tokyo", "open", "tcp.refused", "no"))
    RUN.reset(token)
    got = journald.read()
    assert got["MESSAGE"] == "way out tokyo is down: tcp.refused: no"
    assert (got["PRIORITY"], got["SYSLOG_IDENTIFIER"], got["LOGGER"]) == ("4", "gotunnel", "gotunnel.test")
    assert got["GOTUNNEL_EVENT"] == "breaker"
    assert (got["GOTUNNEL_FINDING"], got["GOTUNNEL_UPSTREAM"]) == ("tcp.refused", "tokyo")
    assert got["GOTUNNEL_RUN"] == "r1"
    try:
        raise OSError("x" * 400_000)  # more than a datagram holds
    except OSError:
        told.exception("failed")
    got = journald.read()
    assert got["PRIORITY"] == "3"
    assert got["TRACEBACK"].startswith("Traceback")
    assert len(got["TRACEBACK"]) > 400_000


def test_an_entry_s_names_and_values_can_t_be_broken() -> None:
    assert parse(entry({"a.b": "x\nPRIORITY=0\n", "_TRUSTED": "y", "9z": "", "-": "none"})) == {
        "A_B": "x\nPRIORITY=0\n", "TRUSTED": "y", "Z": ""
    }  # fmt: skip


def stderr_is_journal() -> dict[str, str]:
    about = os.fstat(2)
    return {"JOURNAL_STREAM": f"{about.st_dev}:{about.st_ino}"}


def test_without_its_socket_journald_gets_prefixes(
    tmp_path: Path, log: Callable[[LogHandler], logging.Logger], capsys: pytest.CaptureFixture[str]
) -> None:
    environ = stderr_is_journal()
    assert is_journal(environ)
    for other in ({}, {"JOURNAL_STREAM": "1:2"}, {"JOURNAL_STREAM": "x"}):
        assert not is_journal(other)
    told = log(LogHandler("text", environ, journal=Journal(str(tmp_path / "none"))))
    told.error("bad")
    told.info("good")
    assert capsys.readouterr().err == "<3>gotunnel: bad\n<6>gotunnel: good\n"


def test_a_log_that_can_t_be_written_disturbs_nobody(
    log: Callable[[LogHandler], logging.Logger], capsys: pytest.CaptureFixture[str]
) -> None:
    def full(text: str) -> None:
        raise OSError(28, "No space left on device")

    log(LogHandler("text", {}, write=full)).error("x")
    assert capsys.readouterr().err == ""


# --- ECS ---------------------------------------------------------------------------------------------


def test_json_is_the_common_schema(log: Callable[[LogHandler], logging.Logger]) -> None:
    out: list[str] = []
    told = log(LogHandler("json", {}, run="r0", write=out.append))
    emit = EventLogger(told)
    emit(Dial("tokyo", "h:443", 12.5, False, "tcp.refused", "no"))
    emit(Failover("tokyo", "paris", "h:443", "tcp.refused", "no"))
    emit(Alert("request_rate", 12.0, 1.0, 4.5, "tokyo"))
    try:
        raise OSError("no")
    except OSError:
        told.exception("failed")
    dial, failover, alert, failed = (json.loads(line) for line in out)
    assert dial["service"]["name"] == "gotunnel"
    assert dial["event"] == {
        "action": "dial", "category": ["network"], "dataset": "gotunnel.log", "duration": 12_500_000,
        "kind": "event", "outcome": "failure",
    }  # fmt: skip
    assert dial["error"] == {"code": "tcp.refused", "message": "no"}
    assert dial["destination"]["address"] == "h:443"
    assert dial["labels"] == {"run": "r0", "upstream": "tokyo"}
    assert list(dial)[:3] == ["@timestamp", "log.level", "message"]
    assert dial["log.level"] == "warning"
    assert failover["labels"] == {"run": "r0", "from": "tokyo", "to": "paris"}
    assert (alert["event"]["kind"], alert["labels"]["sigma"]) == ("alert", 4.5)
    assert failed["error"]["type"] == "OSError"
    assert "test_observe_logs.py" in failed["error"]["stack_trace"]
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in out)


# --- events as lines ---------------------------------------------------------------------------------


def lines_of(*events: Event) -> list[str]:
    out: list[str] = []
    told = logging.Logger("gotunnel.events", logging.DEBUG)

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            out.append(f"{record.levelname} {record.getMessage()}")

    told.addHandler(Keep())
    emit = EventLogger(told)
    for event in events:
        emit(event)
    return out


def test_what_is_new_is_told_once_and_again_after_it_was_over() -> None:
    dead = Dial("a", "h:1", 1.0, False, "tcp.refused", "no")
    move = Failover("a", "b", "h:1", "tcp.refused", "no")
    down, up = BreakerChange("a", "open", "tcp.refused", "no"), BreakerChange("a", "closed")
    levels = [line.split()[0] for line in lines_of(dead, dead, move, move, down, down, up, dead, move)]
    assert levels == ["WARNING", "DEBUG", "INFO", "DEBUG", "WARNING", "DEBUG", "INFO", "WARNING", "INFO"]
    levels = [line.split()[0] for line in lines_of(dead, Dial("a", "h:1", 1.0, True), dead)]
    assert levels == ["WARNING", "DEBUG", "WARNING"]


def test_every_event_has_its_line() -> None:
    assert lines_of(
        Ready("127.0.0.1:1", None, ("a", "b")),
        Fetch("m/@v/list", "proxy", "a", 10, 2.0, False),
        Fetch("m/@v/v1.zip", "proxy", "a", 0, 2.0, False, "module.not-found", "404"),
        Fetch("m/@v/v1.zip", "proxy", "a", 0, 2.0, False, "http.timeout", "slow"),
        Resume("m", "v1.0.0", 7, "a", "b"),
        Attempt(1, "go", 1, "dns.timeout", "x"),
        Attempt(2, "go", 0),
        Alert("failure_rate", 40.0, 1.0, 5.0, "a"),
        BreakerChange("a", "half-open"),
        Exit(0, 2, 1500.0),
    ) == [
        "INFO ready: proxy on 127.0.0.1:1; by a, b",
        "DEBUG m/@v/list from proxy: 10 bytes in 2 ms",
        "DEBUG m/@v/v1.zip: module.not-found: 404",
        "WARNING m/@v/v1.zip: http.timeout: slow",
        "INFO m@v1.0.0 goes on at byte 7 by b, since a broke off",
        "WARNING attempt 1 of go ended with 1: dns.timeout: x",
        "DEBUG attempt 2 of go ended with 0",
        "WARNING 40% of what goes by a fails, 1.0% is usual (5.0 deviations above)",
        "DEBUG way out a is half-open",
        "INFO ended with 0 after 2 attempts, 1.5 s",
    ]


# --- set-up ------------------------------------------------------------------------------------------


@pytest.fixture(name="root")
def root_as_it_was() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    chatty: Mapping[str, int] = {name: logging.getLogger(name).level for name in logs._CHATTY}
    yield root
    for handler in [h for h in root.handlers if h not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    for name, was in chatty.items():
        logging.getLogger(name).setLevel(was)


def test_set_up_twice_writes_once_and_the_level_changes_while_it_runs(root: logging.Logger) -> None:
    out: list[str] = []
    logs.set_up("text", "info", {}, write=lambda text: None)
    logs.set_up("text", "info", {}, write=out.append)
    told = logging.getLogger("gotunnel.test")
    told.debug("no")
    told.info("yes")
    logging.getLogger("asyncssh").info("chatter")
    logs.set_level("debug")
    told.debug("now")
    logging.getLogger("asyncssh").info("chatter")
    assert "".join(out) == "gotunnel: yes\ngotunnel: test: now\ngotunnel: asyncssh: chatter\n"
    with pytest.raises(ValueError, match="want one of error"):
        logs.set_level("loud")
    assert sum(isinstance(handler, LogHandler) for handler in root.handlers) == 1
