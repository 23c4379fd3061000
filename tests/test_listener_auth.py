"""Who may use the endpoint."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gotunnel.listener.auth import Keys, new_secret


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("header", "user", "right"),
    [
        (basic("gotunnel:s3cret"), "", True),
        (basic("anybody:s3cret"), "", True),
        (basic(":s3cret").replace("Basic", "bAsIc"), "", True),
        (basic("dev:s3cret"), "dev", True),
        (basic("eve:s3cret"), "dev", False),
        (basic("gotunnel:s3cre"), "", False),
        (basic("gotunnel:s3crets"), "", False),
        (basic("s3cret"), "", False),
        (basic("s3cret:"), "", False),
        ("", "", False),
        ("Basic", "", False),
        ("Basic !!!", "", False),
        ("Basic ü", "", False),
        ("Bearer s3cret", "", False),
    ],
)
def test_allowed(header: str, user: str, right: bool) -> None:
    assert (Keys("s3cret", user).whose(header) is not None) is right


def test_a_password_may_hold_colons_and_be_unicode() -> None:
    assert Keys("pä:ss", "u").whose(basic("u:pä:ss")) == ""


def test_without_a_secret_everybody_may() -> None:
    assert Keys().whose("") == ""


@given(st.text(st.characters(max_codepoint=255)))
def test_no_header_breaks_it(header: str) -> None:
    assert Keys("s3cret").whose(header) is None
    assert Keys("s3cret").whose(f"Basic {header}") is None


def test_a_secret_is_long_new_each_time_and_needs_no_escaping() -> None:
    secrets = {new_secret() for _ in range(50)}
    assert len(secrets) == 50
    assert all(len(secret) == 32 and secret.replace("-", "").replace("_", "").isalnum() for secret in secrets)


def test_each_run_of_a_shared_endpoint_has_a_secret_of_its_own_and_is_known_by_it() -> None:
    keys = Keys("main")
    keys.add("r1", "one")
    keys.add("r2", "two")
    offered = ("main", "one", "two", "no", "")
    assert [keys.whose(basic(f"any:{secret}")) for secret in offered] == ["", "r1", "r2", None, None]
    keys.remove("r1")
    assert keys.whose(basic("any:one")) is None
    assert Keys().whose("") == ""
    assert not Keys().wanted
