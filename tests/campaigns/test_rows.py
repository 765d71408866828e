"""The short form of the campaign of files of rows, and that it notices faults of its subject."""

from __future__ import annotations

import re

import pytest

from campaigns import rows
from campaigns.trials import Verdict, bad, run
from pkt.data import files


@pytest.mark.slow
def test_valid_files_are_read_exactly_and_others_refused():
    assert bad(run(rows.trials(count=30, seed=0))) == []


def forms(name: str, count: int = 8):
    return {rows.valid("custom", name, seed)[0] for seed in range(count)}


def test_lines_that_end_at_every_separator_of_unicode_are_noticed(monkeypatch):
    assert forms("plain") == {Verdict.WORKS}
    monkeypatch.setattr(files, "_LINE_END", re.compile(r"\r\n|[\n\r\u2028\u2029\x85\x0b\x0c]"))
    assert Verdict.WRONG in forms("plain")


def test_texts_that_are_read_in_another_way_are_noticed(monkeypatch):
    monkeypatch.setattr(files, "_text", lambda path, data: data.decode("utf-8", "ignore").replace("\x00", ""))
    assert Verdict.WRONG in forms("UTF-16", 3)


@pytest.mark.slow
def test_a_fault_that_is_passed_over_is_noticed(monkeypatch):
    assert rows.faulty("custom", "Latin-1", 0)[0] is Verdict.REFUSED
    monkeypatch.setattr(files, "_text", lambda path, data: data.decode("utf-8", "replace"))
    assert rows.faulty("custom", "Latin-1", 0)[0] in (Verdict.WRONG, Verdict.TRACEBACK)
