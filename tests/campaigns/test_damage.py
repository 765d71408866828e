"""Files of pkt's state are damaged: the short form, and planted faults that the campaign has to find."""

from __future__ import annotations

import pytest

from campaigns import damage
from campaigns.trials import bad, run
from pkt import durable
from pkt.reporting import runs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_temporary_folder")]


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # the campaign names its own


def test_what_is_damaged_is_made_anew_or_refused():
    assert bad(run(damage.trials(count=22, seed=0))) == []


def test_scores_that_nobody_compares_with_their_checksum_are_found(monkeypatch):
    # most bits of JSON are found anyhow, since it cannot be read then; those of digits are not
    trials = [trial for trial in damage.trials(count=600, seed=3) if "scores of a run" in trial.name]
    trials = [trial for trial in trials if "flipped bit" in trial.name]
    monkeypatch.setattr(runs, "read_json", lambda file: durable._parsed(file.read_bytes()))
    assert bad(run(trials))
