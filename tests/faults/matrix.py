"""All cases."""

from __future__ import annotations

from tests.faults import answers, config, local, network, ways

CASES = (*config.CASES, *network.CASES, *answers.CASES, *ways.CASES, *local.CASES)
