"""The campaign on losses: its short form, and that it tells a fault from none."""

from __future__ import annotations

from importlib import import_module

import pytest

from campaigns import losses
from campaigns.trials import bad, run


def test_short():
    outcomes = run(losses.trials(count=69, seed=1))
    assert bad(outcomes) == []
    assert {outcome.trial.split(maxsplit=1)[1] for outcome in outcomes} == {*losses.LOSSES, *losses.FITS}


FAULTS = {
    "geometry cka": ("pkt.objectives.geometry", "near_one", lambda x, _dim: x),
    "kl forward tau=1 top_k=None": ("pkt.objectives.divergence", "LOG_ZERO", -60.0),
    "kl reverse tau=1 top_k=None": ("pkt.objectives.divergence", "FLOOR", -60.0),
    "output_cosine": ("pkt.objectives.output_cosine", "CANCELS", 0.0),
    "ridge": ("pkt.semantics.paired", "without_massive", lambda states, _beyond: (states, 0)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name, monkeypatch):
    chosen = [trial for trial in losses.trials(count=600, seed=0) if trial.name.split(maxsplit=1)[1] == name]
    assert bad(run(chosen)) == []
    module, fact, wrong = FAULTS[name]
    monkeypatch.setattr(import_module(module), fact, wrong)
    assert bad(run(chosen)) != []
