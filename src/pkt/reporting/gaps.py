"""The share of the gap that one run closed, with its interval on the same rows.

teacher, student, transferred ──answers──> resampled together ──gap_interval──> per task, and over the tasks
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from pkt.evaluation.paired import Answers, Interval, Sampled, gap_interval, resample
from pkt.evaluation.results import Evaluation, TaskScore
from pkt.reporting.answers import Answered, answered

ENDS = ("teacher", "student", "transferred")
MEAN = "mean"


def gap_intervals(
    evaluations: Mapping[str, Evaluation],
    scores: Mapping[str, Mapping[str, TaskScore]],
    tasks: Sequence[str],
) -> dict[str, Interval]:
    """Return task -> share of the gap closed with its 95 % interval, and under ``mean`` that over all tasks.

    Args:
        evaluations: role -> scores with the answers behind them.
        scores: role -> task -> score, by the names that the headline shows.
        tasks: those with a gap above the noise.

    Returns:
        Nothing for tasks whose answers are not graded row by row, or whose interval has no ends; the mean only where
        every task is known.
    """
    if not tasks or not set(ENDS) <= set(evaluations):
        return {}
    found = {role: _answers(evaluations[role], scores[role], tasks) for role in ENDS}
    known = [task for task in tasks if _same_rows([found[role].get(task) for role in ENDS])]
    if not known:
        return {}
    sampled = {role: _sampled([found[role][task] for task in known]) for role in ENDS}
    intervals = {task: _gap(sampled, [column]) for column, task in enumerate(known)}
    if len(known) == len(tasks):
        intervals[MEAN] = _gap(sampled, range(len(known)))
    return {name: interval for name, interval in intervals.items() if not math.isnan(interval.low)}


def _answers(
    evaluation: Evaluation, scores: Mapping[str, TaskScore], tasks: Sequence[str]
) -> dict[str, Answered]:
    found = {}
    for task in tasks:
        one = answered(evaluation.samples.get(scores[task].task, []), asdict(scores[task]))
        if one is not None:
            found[task] = one
    return found


def _same_rows(answers: Sequence[Answered | None]) -> bool:
    rows = [one.rows if one is not None else None for one in answers]
    return rows[0] is not None and all(other == rows[0] for other in rows)


def _sampled(tasks: Sequence[Answered]) -> Sampled:
    return resample([Answers(value_KN=one.value_N[None], weight_KN=one.weight_N[None]) for one in tasks])


def _gap(sampled: Mapping[str, Sampled], columns: Sequence[int]) -> Interval:
    teacher, student, transferred = (sampled[role].only(columns) for role in ENDS)
    return gap_interval(teacher=teacher, student=student, transferred=transferred)
