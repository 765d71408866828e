"""The short form of the campaign of tables, and that it notices faults."""

from __future__ import annotations

import pytest

from campaigns.tables import trials
from campaigns.trials import bad, run
from pkt.reporting import gaps
from pkt.reporting.gaps import Share


@pytest.mark.slow
def test_what_tables_say_follows_from_the_numbers():
    assert bad(run(trials(count=12, seed=0))) == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["sign", "gap"])
def test_a_planted_fault_is_found(fault: str, monkeypatch):
    if fault == "sign":  # whatever the best arm did, it is said to close the gap
        monkeypatch.setattr(Share, "sign", property(lambda _self: 1))
    else:  # a teacher below the student counts as one above it
        monkeypatch.setattr(
            "pkt.reporting.study.no_gap", lambda **given: gaps.no_gap(**given | {"rises": False})
        )
    assert bad(run(trials(count=12, seed=0)))
