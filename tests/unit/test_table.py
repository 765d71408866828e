"""Headline and study tables: what is shown is what was measured."""

from __future__ import annotations

import pytest

from pkt.errors import RequestError
from pkt.reporting.study import arms, load_runs, study_table
from pkt.reporting.table import Table

TASKS = ("a", "b")


def run(seed: int, method: str = "semalign", semantics: str = "cosine", lift: float = 0.1) -> dict:
    def scores(value: float) -> dict:
        return {t: {"task": t, "metric": "acc", "value": value, "stderr": 0.01, "n": 100} for t in TASKS}

    return {
        "method": method,
        "seed": seed,
        "settings": {"method": method, "semantics": semantics, "mapping": "depth", "output": "ce"},
        "scores": {"teacher": scores(0.9), "student": scores(0.4), "transferred": scores(0.4 + lift)},
        "gap_closed": {t: {"value": lift / 0.5, "stderr": 0.03} for t in TASKS},
        "budget": {"trained_parameters": 1234, "optimiser_steps": 10, "seconds": 5.0},
    }


def test_arms_group_seeds_and_name_only_what_differs():
    runs = [run(0), run(1), run(1), run(0, semantics="ridge"), run(0, method="sft")]
    assert {arm.label: len(arm.runs) for arm in arms(runs)} == {
        "semalign (semantics cosine)": 2,
        "semalign (semantics ridge)": 1,
        "sft": 1,
    }


def test_study_table_sorts_by_gap_between_student_and_teacher():
    table = study_table([run(0, "semalign", lift=0.3), run(1, "semalign", lift=0.1), run(0, "sft", lift=0.1)])
    assert [row[0] for row in table.rows] == ["student", "sft", "semalign", "teacher"]
    semalign = next(row for row in table.rows if row[0] == "semalign")
    assert semalign[1].startswith("60.0 ±")
    assert semalign[table.columns.index("seeds")] == "2"
    assert semalign[table.columns.index("gap closed")].startswith("40 %")


def test_markdown_has_one_line_per_row():
    text = Table(title="t", columns=("", "x"), rows=(("a", "1"), ("b", "2"))).markdown()
    assert text.splitlines() == ["|  | x |", "|---|---:|", "| a | 1 |", "| b | 2 |"]


def test_no_runs_is_refused(tmp_path):
    with pytest.raises(RequestError, match="run `pkt run` first"):
        load_runs([tmp_path])
