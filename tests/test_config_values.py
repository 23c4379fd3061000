"""Kinds of values: what is read, what is refused, what is shown."""

from __future__ import annotations

from typing import Any

import pytest

from gotunnel.config import values
from gotunnel.config.values import Kind


@pytest.mark.parametrize(
    ("text", "seconds", "shown"),
    [
        ("500ms", 0.5, "500ms"),
        ("5s", 5, "5s"),
        ("1m30s", 90, "90s"),
        ("1.5h", 5400, "5400s"),
        ("2h", 7200, "2h"),
    ],
)
def test_a_duration_is_read_and_shown(text: str, seconds: float, shown: str) -> None:
    kind = values.seconds(0, 86400)
    assert kind.parse(text) == seconds
    assert kind.show(seconds) == shown
    assert kind.parse(shown) == seconds


@pytest.mark.parametrize(
    ("given", "count", "shown"),
    [
        ("64KB", 64_000, "64KB"),
        ("64KiB", 65_536, "64KiB"),
        ("1m", 2**20, "1MiB"),
        (777, 777, "777B"),
        ("9B", 9, "9B"),
    ],
)
def test_a_size_is_read_and_shown(given: object, count: int, shown: str) -> None:
    kind = values.bytes_size(0, 2**40)
    assert kind.parse(given) == count
    assert kind.show(count) == shown
    assert kind.parse(shown) == count


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (values.seconds(1, 60), ["5", "", "-5s", "5 s", "90s", "500ms", 5, True, None, "٣s", "1s" * 9999]),
        (values.bytes_size(1, 10**9), ["", "KB", "5XB", "5iB", "1TB", "0", True, 1.5]),
        (values.count(1, 10), [0, 11, "5", 1.0, True, 16**400]),
        (values.number(0.1, 100), [float("nan"), float("inf"), "3", False, 16**400]),
        (values.switch(), ["true", 1, None]),
        (values.span(0.1, 60), ["5s", "5s..1s", "..", "1s..2s..3s", 5]),
        (values.hedge(0.1, 60), ["on", 5, ["auto"]]),
        (values.endpoint(), ["", ":0", "*:80", "::1:0", "h", "h:65536", "h:-1", "a b:1", "h\n:0", 80]),
        (values.path(), ["a/b", "./a", 5, "/a\n"]),
        (values.auth(), ["on", True, {}, {"user": "u"}, {"user": "a:b", "password_file": "/p"}]),
        (values.filters(), ["x", {}, [1], [{"module": "m"}], [{"module": "m", "action": "drop"}]]),
        (values.one_url("https"), ["http://h", "https://", "h", "https://h h", 5]),
    ],
)
def test_wrong_values_are_refused_in_one_line(kind: Kind[Any], wrong: list[object]) -> None:
    for value in wrong:
        with pytest.raises(ValueError, match=r"want|out of range|backwards") as caught:
            kind.parse(value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (values.count(0, 10), " 5 ", 5),
        (values.number(0, 10), "2.5", 2.5),
        (values.switch(), "Yes", True),
        (values.switch(), "0", False),
        (values.words("words", str), "a, b,,c ", ("a", "b", "c")),
        (values.words("words", str), '["a", "b,c"]', ("a", "b,c")),
        (values.words("words", str), "[ab]*.example, c", ("[ab]*.example", "c")),
        (values.auth(), "off", values.Auth("off")),
        (values.auth(), '{ user = "u", password_file = "/p" }', values.Auth("user", "u", "/p")),
        (values.filters(), '[{ module = "m/*", action = "deny" }]', (values.Filter("m/*", "deny"),)),
        (values.endpoint(), "[::1]:0", values.Endpoint("::1", 0)),
    ],
)
def test_the_text_of_a_variable(kind: Kind[Any], text: str, value: object) -> None:
    assert kind.parse(kind.text(text)) == value


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:hunter2@h/p", "https://u:***@h/p"),
        ("https://hunter2@h", "https://***@h"),
        ("https://u:hun/ter2@h", "https://***@h"),
        ("https://u:hunter2@x@h", "https://u:***@h"),
        ("s3://b/p?access_key_id=hunter2&region=eu", "s3://b/p?access_key_id=***&region=eu"),
        ("https://plain.example/path", "https://plain.example/path"),
    ],
)
def test_urls_are_shown_without_secrets(url: str, shown: str) -> None:
    assert values.mask_url(url) == shown
    assert "hunter2" not in values.quote(url)


def test_a_webhook_is_all_secret_but_its_host() -> None:
    kind = values.one_url("https", hide_path=True)
    assert kind.show("https://hooks.example/services/hunter2") == "https://hooks.example/***"
    with pytest.raises(ValueError, match="no URL") as caught:
        kind.parse("hooks.example/services/hunter2")
    assert "hunter2" not in str(caught.value)
