"""Shares of the gap with paired intervals, and the rows that a table of examples shows."""

from __future__ import annotations

import math

import pytest

from pkt.evaluation.results import Evaluation, TaskScore
from pkt.reporting.examples import example_tables
from pkt.reporting.gaps import gap_intervals
from pkt.reporting.table import gap_estimates, headline, primary_scores

ROWS = 400


def evaluation(*right: str, graded: bool = True) -> Evaluation:
    """One task `t0`, `t1`, ... per string of right (1) and wrong (0) answers, repeated to `ROWS` rows."""
    scores, samples = [], {}
    for number, pattern in enumerate(right):
        marks = [mark == "1" for mark in (pattern * ROWS)[:ROWS]]
        value = sum(marks) / ROWS
        stderr = math.sqrt(value * (1 - value) / (ROWS - 1))
        name = f"t{number}"
        scores.append(
            TaskScore(task=name, metric="acc", value=value, stderr=stderr, n=ROWS, higher_is_better=True)
        )
        samples[name] = [
            {
                "id": f"{name}/{row}",
                "prompt": "p",
                "target": "a",
                "output": "o",
                "correct": mark if graded else None,
            }
            for row, mark in enumerate(marks)
        ]
    return Evaluation(scores=tuple(scores), samples=samples, versions={})


def roles(teacher: Evaluation, student: Evaluation, transferred: Evaluation) -> dict[str, Evaluation]:
    return {"teacher": teacher, "student": student, "transferred": transferred}


def intervals(found: dict[str, Evaluation], *tasks: str):
    return gap_intervals(found, {role: primary_scores(one) for role, one in found.items()}, tasks)


def test_the_interval_is_closer_than_that_of_independent_errors():
    # the three agree on most rows, which independent errors know nothing of
    found = roles(evaluation("1110"), evaluation("1000"), evaluation("1100"))
    paired = intervals(found, "t0")["t0"]
    estimate = gap_estimates({role: primary_scores(one) for role, one in found.items()})["t0"]
    assert paired.value == pytest.approx(estimate.value) == pytest.approx(0.5)
    assert paired.low < 0.5 < paired.high
    assert paired.high - paired.low < 0.8 * 2 * 1.96 * estimate.stderr


def test_the_mean_is_over_all_tasks_or_not_there():
    found = roles(evaluation("1", "1110"), evaluation("0", "1000"), evaluation("1", "1100"))
    both = intervals(found, "t0", "t1")
    assert both["mean"].value == pytest.approx((1 + 0.5) / 2)
    ungraded = roles(evaluation("1"), evaluation("0"), evaluation("1", graded=False))
    assert intervals(ungraded, "t0") == {}
    assert intervals(found) == {}
    assert gap_intervals({"student": evaluation("0")}, {}, ["t0"]) == {}


def test_models_that_answered_other_rows_have_no_interval():
    other = evaluation("1100")
    for record in other.samples["t0"]:
        record["id"] = f"other {record['id']}"
    assert intervals(roles(evaluation("1110"), evaluation("1000"), other), "t0") == {}


def test_the_headline_shows_the_interval_and_whose_rows_were_scored():
    found = roles(evaluation("1110"), evaluation("1000"), evaluation("1100"))
    table = headline(found, "sft", intervals=intervals(found, "t0"), split="validation")
    assert table.title.startswith("VALIDATION rows, not test: ")
    assert table.rows[-1][0] == "gap closed"
    assert all("[" in cell for cell in table.rows[-1][1:])
    plain = headline(found, "sft")
    assert plain.title.startswith("scores")
    assert all("±" in cell for cell in plain.rows[-1][1:])


def test_examples_are_the_same_rows_in_every_run():
    found = roles(evaluation("1110"), evaluation("1000"), evaluation("1100"))
    table = example_tables(found, 5)["t0"]
    others = roles(evaluation("0"), evaluation("0"), evaluation("0"))
    ids = [row[0] for row in table.rows]
    assert [row[0] for row in example_tables(others, 5)["t0"].rows] == ids
    assert len(ids) == 5
    assert ids == sorted(ids, key=lambda row_id: int(row_id.partition("/")[2]))  # in the order of the task
    assert set(ids) < {row[0] for row in example_tables(found, 9)["t0"].rows}  # more rows add to fewer
    head = dict(zip(table.columns, table.rows[0], strict=True))
    row = int(ids[0].partition("/")[2])
    assert head["student before: right"] is ("1000"[row % 4] == "1")
    assert head["teacher: right"] is ("1110"[row % 4] == "1")
    assert len(example_tables(found, 10 * ROWS)["t0"].rows) == ROWS
    assert example_tables(found, 0) == {}
