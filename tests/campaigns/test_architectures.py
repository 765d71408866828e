"""The short form of the campaign over architectures, and faults that it has to report."""

from __future__ import annotations

import pytest

from campaigns.architectures import CUTS, attempt, trials
from campaigns.trials import Verdict, bad, run
from pkt.models import surgery
from pkt.training.trainable import Trainable

pytestmark = pytest.mark.slow


def test_architectures_work_or_are_refused():
    outcomes = run(trials(count=5, seed=3))
    assert len(outcomes) == 5
    assert bad(outcomes) == []


def llama(method: str = "sft", kind: str = "full") -> tuple[Verdict, str]:
    return attempt("llama", method, kind, CUTS[0], "eval")


def test_a_wrong_cut_is_reported(monkeypatch):
    monkeypatch.setattr(
        "pkt.models.load.prune", lambda model, layers, roles: surgery.prune(model, [1, 2, 3, 4], roles=roles)
    )
    verdict, detail = llama()
    assert verdict is Verdict.WRONG
    assert "not the teacher's layers" in detail


def test_weights_that_are_not_those_that_were_trained_are_reported(monkeypatch):
    saved = Trainable.merged

    def spoilt(self):
        model = saved(self)
        model.get_input_embeddings().weight.data.mul_(1.5)
        return model

    monkeypatch.setattr(Trainable, "merged", spoilt)
    verdict, detail = llama()
    assert verdict is Verdict.WRONG
    assert "validation loss" in detail


def test_an_error_that_nobody_foresaw_is_reported(monkeypatch):
    monkeypatch.setattr(Trainable, "merged", lambda self: 1 / 0)
    verdict, detail = llama()
    assert verdict is Verdict.TRACEBACK
    assert "ZeroDivisionError" in detail
