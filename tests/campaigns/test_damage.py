"""Files of pkt's state are damaged: the short form, and planted faults that the campaign has to find."""

from __future__ import annotations

import logging

import pytest

from campaigns import damage
from campaigns.trials import Verdict, bad, run
from pkt import durable
from pkt.training import snapshot

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # the campaign names its own


def test_what_is_damaged_is_made_anew_or_refused():
    assert bad(run(damage.trials(count=22, seed=0))) == []


def test_state_that_nobody_compares_with_its_checksum_is_found(monkeypatch, caplog):
    caplog.set_level(logging.ERROR)
    trials = [trial for trial in damage.trials(count=110, seed=3) if "snapshot: " in trial.name]
    monkeypatch.setattr(snapshot, "check_file", lambda file, *expected: None)
    monkeypatch.setattr(durable, "unsealed", durable._parsed)
    assert Verdict.WRONG in {outcome.verdict for outcome in bad(run(trials))}
