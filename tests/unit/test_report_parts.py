"""Shares of the gap with paired intervals, and the rows that a table of examples shows."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from pkt.evaluation.results import Evaluation, TaskScore
from pkt.reporting.examples import example_tables
from pkt.reporting.gaps import Share
from pkt.reporting.headline import headline, named_scores
from pkt.reporting.study import shares_of

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


def scores(found: dict[str, Evaluation]):
    return {role: named_scores(one) for role, one in found.items()}


Shares = Callable[[dict[str, Evaluation]], dict[str, Share]]


@pytest.fixture
def shares(tmp_path: Path) -> Shares:
    """Return what gives the shares of a run that has left these answers in its store."""

    def of(found: dict[str, Evaluation]) -> dict[str, Share]:
        (tmp_path / "run").mkdir(exist_ok=True)
        for role, one in found.items():
            (tmp_path / "store" / "eval" / role).mkdir(parents=True, exist_ok=True)
            one.save(tmp_path / "store" / "eval" / role / "scores.json")
        stages = [{"stage": f"eval {role}", "key": role} for role in found]
        run = {
            "folder": str(tmp_path / "run"),
            "store": "../store",
            "stages": stages,
            "scores": scores(found),
        }
        return shares_of(run | {"method": "sft", "seed": 0, "settings": {}})

    return of


def test_the_interval_is_closer_than_that_of_independent_errors(shares: Shares):
    # the three agree on most rows, which independent errors know nothing of
    share = shares(roles(evaluation("1110"), evaluation("1000"), evaluation("1100")))["t0"]
    assert share.interval.value == pytest.approx(share.estimate.value) == pytest.approx(0.5)
    assert share.interval.low < 0.5 < share.interval.high
    assert share.interval.high - share.interval.low < 0.8 * 2 * 1.96 * share.estimate.stderr
    assert share.numbers().keys() == {"value", "stderr", "low", "high"}


def test_the_mean_is_over_all_tasks_or_has_no_interval(shares: Shares):
    both = shares(roles(evaluation("1", "1110"), evaluation("0", "1000"), evaluation("1", "1100")))
    assert both["mean"].estimate.value == both["mean"].interval.value == pytest.approx((1 + 0.5) / 2)
    ungraded = shares(roles(evaluation("1"), evaluation("0"), evaluation("1", graded=False)))
    assert [share.interval for share in ungraded.values()] == [None, None]
    other = evaluation("1", "1100")
    other.samples["t1"].pop()  # does not add up to its score
    partly = shares(roles(evaluation("1", "1110"), evaluation("0", "1000"), other))
    assert [name for name, share in partly.items() if share.interval] == ["t0"]
    assert shares({"student": evaluation("0")}) == {}


def test_a_task_without_a_gap_counts_neither_in_the_mean_nor_in_its_interval(shares: Shares):
    found = shares(roles(evaluation("1", "10"), evaluation("0", "10"), evaluation("1", "11")))
    assert (found["t1"].known, found["t1"].cell, found["t1"].interval) == (False, "–", None)
    assert found["mean"].interval == found["t0"].interval


def test_models_that_answered_other_rows_have_no_interval(shares: Shares):
    other = evaluation("1100")
    for record in other.samples["t0"]:
        record["id"] = f"other {record['id']}"
    assert shares(roles(evaluation("1110"), evaluation("1000"), other))["t0"].interval is None


def test_the_headline_shows_the_interval_and_whose_rows_were_scored(shares: Shares):
    found = roles(evaluation("1110"), evaluation("1000"), evaluation("1100"))
    table = headline(scores(found), shares(found), "sft", split="validation")
    assert table.title.startswith("VALIDATION rows, not test: ")
    assert [row[0] for row in table.rows] == ["teacher", "student", "student + sft", "gap closed"]
    assert all("[" in cell for cell in table.rows[-1][1:])
    ungraded = roles(evaluation("1110"), evaluation("1000"), evaluation("1100", graded=False))
    plain = headline(scores(ungraded), shares(ungraded), "sft")
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
