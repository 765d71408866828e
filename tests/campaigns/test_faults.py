"""Operations on the disk fail: the short form, and planted faults that the campaign has to find."""

from __future__ import annotations

import json

import pytest

import pkt.store
from campaigns import faults
from campaigns.trials import Verdict, bad, run
from pkt.manifest import MANIFEST
from pkt.training import snapshot

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_temporary_folder")]


def test_whatever_fails_the_same_work_ends_in_the_same_result():
    outcomes = run(faults.trials(count=30, seed=0))
    assert bad(outcomes) == []
    assert {outcome.verdict for outcome in outcomes} == {Verdict.WORKS, Verdict.REFUSED}


def test_artifacts_that_are_neither_synchronised_nor_verified_are_found(monkeypatch):
    monkeypatch.setattr(pkt.store, "sync_tree", lambda folder: None)
    monkeypatch.setattr(pkt.store, "verified", lambda path: json.loads((path / MANIFEST).read_text()))
    trials = [trial for trial in faults.trials(count=200, seed=0) if "power cut" in trial.name]
    assert Verdict.WRONG in {outcome.verdict for outcome in bad(run(trials[-25:]))}


def test_a_snapshot_that_cannot_be_written_has_to_be_told_in_words(monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("nobody foresaw this")

    golden = faults.trials(count=40, seed=0)  # made before the fault is planted
    trials = list(golden)
    monkeypatch.setattr(snapshot, "sync_tree", fail)
    assert {outcome.verdict for outcome in bad(run(trials[-2:]))} == {Verdict.TRACEBACK}
