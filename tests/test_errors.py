"""What an error says to those above it without their reading its text."""

from __future__ import annotations

import pytest

from gotunnel.errors import Blame, CommandError, ConfigError, DialError, NoWayOut, UsageError


def test_exit_statuses_are_the_contract_s() -> None:
    assert (UsageError.status, ConfigError.status, DialError.status) == (2, 78, 69)
    assert CommandError("x", 127).status == 127


@pytest.mark.parametrize(
    ("blame", "charged"),
    [(Blame.HOP, True), (Blame.CREDENTIALS, True), (Blame.TARGET, False), (Blame.POLICY, False)],
)
def test_only_the_hop_s_own_faults_charge_it(blame: Blame, charged: bool) -> None:
    assert DialError("tcp.refused", "no", blame=blame).charges_hop is charged


def test_no_way_out_names_each_way_and_speaks_for_the_one_that_may_pass() -> None:
    key = DialError("ssh.auth-failed", "key refused", blame=Blame.CREDENTIALS, another_way=False)
    slow = DialError("tcp.timeout", "no answer", blame=Blame.HOP)
    error = NoWayOut("h:443", [("a", key), ("b", slow)])
    assert str(error) == (
        "no way out reached h:443: a: ssh.auth-failed: key refused; b: tcp.timeout: no answer"
    )
    assert (error.finding, error.blame, error.another_way) == ("tcp.timeout", Blame.HOP, True)
    assert NoWayOut("h:443", [("a", key)]).another_way is False
    assert "none is usable now" in str(NoWayOut("h:443", []))
