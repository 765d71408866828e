"""`pkt run` is killed at random moments: the short form, and a planted fault that the campaign has to find."""

from __future__ import annotations

import pytest

from campaigns import kills
from campaigns.trials import Verdict, bad, run
from pkt.training import resumable

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_temporary_folder")]


def test_a_killed_run_ends_in_the_same_result():
    assert bad(run(kills.trials(count=5, seed=1))) == []


def test_a_training_that_starts_elsewhere_after_a_kill_is_found(monkeypatch):
    real = resumable.Resumable.load
    trials = list(kills.trials(count=1, seed=1))
    monkeypatch.setattr(resumable.Resumable, "load", lambda self, optimiser: real(self, optimiser) + 1)
    assert [outcome.verdict for outcome in bad(run(trials))] == [Verdict.WRONG]
