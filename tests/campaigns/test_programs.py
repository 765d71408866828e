"""The short form of the campaign `programs`, and that it notices what it is for."""

from __future__ import annotations

import sys

import pytest

from campaigns import hostile, ordinary, programs
from campaigns.trials import Verdict, bad, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc"),
]


def test_a_few_programs_by_each_user(monkeypatch: pytest.MonkeyPatch):
    some = ("nothing", "seccomp", "every layer of the kernel")
    monkeypatch.setattr(programs, "MISSING", {name: programs.MISSING[name] for name in some})
    monkeypatch.delitem(programs.FAULTS, "busy processors")  # tests/unit/test_sandbox.py tries it
    outcomes = run(programs.trials(count=8, seed=0))
    assert bad(outcomes) == []
    assert sum(outcome.verdict is Verdict.WORKS for outcome in outcomes) > 40


def test_no_name_is_in_two_tables():
    tables = (hostile.PROGRAMS, hostile.ADMITTED, ordinary.PASSES, ordinary.FAILS, ordinary.DEVIATES)
    names = [name for table in tables for name in table]
    assert len(names) == len(set(names))


def test_a_program_that_succeeds_and_a_wrong_verdict_are_reported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(programs, "MISSING", {"nothing": ()})
    monkeypatch.setattr(programs, "FAULTS", {})
    harmless = "no_input_is_an_error"
    party = programs._party("ordinary user", "nothing", (), (harmless,))
    assert not isinstance(party, str)
    assert party[harmless][0] == []
    monkeypatch.setitem(ordinary.FAILS, harmless, ordinary.PASSES.pop(harmless))
    try:
        (outcome,) = bad(run(t for t in programs.trials(None, 0) if t.name == f"as code_eval: {harmless}"))
    finally:
        ordinary.PASSES[harmless] = ordinary.FAILS[harmless]
    assert outcome.verdict is Verdict.WRONG
    found = {"write": (["pass", "left files"], [])}
    monkeypatch.setattr(programs, "_party", lambda *_: found)
    monkeypatch.setattr(hostile, "PROGRAMS", {"write": "", "delete": ""})
    monkeypatch.setattr(ordinary, "PASSES", {})
    monkeypatch.setattr(ordinary, "FAILS", {})
    monkeypatch.setattr(ordinary, "DEVIATES", {})
    monkeypatch.setattr(hostile, "ADMITTED", {})
    outcomes = run(programs.trials(None, 0))
    assert {outcome.verdict for outcome in outcomes} == {Verdict.WRONG, Verdict.LOST}
