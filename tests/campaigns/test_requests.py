"""The campaign of wrong requests: its short form, and that it would notice what must not happen."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from campaigns import requests
from campaigns.bad_requests import Request, bad, good
from campaigns.trials import Verdict, run
from campaigns.trials import bad as bad_ones
from pkt import console

ONE = Request(name="one", words=("run",), files={"mine": "x"})


@pytest.mark.slow
def test_short_form():
    outcomes = run(requests.trials(count=30, seed=0))
    assert len(outcomes) == 33
    assert bad_ones(outcomes) == []


def test_names_are_unique_and_every_kind_is_drawn():
    names = [request.name for request in (*bad(), *good())]
    assert len(names) == len(set(names))
    kinds = {name.split()[0] for name in names} - {"control:"}
    drawn = {trial.name.split()[0] for trial in requests.trials(count=len(kinds), seed=3)}
    assert kinds <= drawn


def said(message: str, code: int = 2):
    def answer(_words: list[str]) -> int:
        for line in message.split("|"):
            console.note(line)
        return code

    return answer


def leaves(_words: list[str]) -> int:
    Path("left").write_text("x")
    return said("pkt: no")(_words)


def loses(_words: list[str]) -> int:
    Path("mine").unlink()
    return said("pkt: no")(_words)


def accepts(_words: list[str]) -> int:
    raise requests.AcceptedError


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (said("pkt: no"), Verdict.REFUSED),
        (said("pkt: warning: x|pkt: no; `pkt run seed=1`"), Verdict.REFUSED),
        (said("pkt: no", code=0), Verdict.WRONG),
        (said("pkt: no|pkt: again"), Verdict.WRONG),
        (said(""), Verdict.WRONG),
        (said("pkt: unexpected X"), Verdict.WRONG),
        (said("pkt: try `pkt run seed=[1`"), Verdict.WRONG),
        (said("Traceback (most recent call last)"), Verdict.TRACEBACK),
        (leaves, Verdict.WRONG),
        (accepts, Verdict.WRONG),
        (loses, Verdict.LOST),
    ],
)
def test_a_planted_fault_is_noticed(answer, verdict):
    assert requests.attempt(ONE, answer)[0] == verdict
    assert sys.argv
