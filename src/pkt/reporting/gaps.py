"""The gap between student and teacher, and the share of it that a transfer closed.

scores of teacher, student, transferred ──gap_closed──> share with a standard error, or no gap above the noise
their answers to the same rows ──gap_interval──> its 95 % interval

A share is 0 at the untouched student and 1 at the teacher, whichever of the two is better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pkt.evaluation.paired import Interval, Sampled, gap_interval, resample
from pkt.evaluation.results import Evaluation
from pkt.evaluation.statistics import Estimate, gap_closed, mean_estimate
from pkt.reporting.answers import answers_of, stack

ROLES = ("teacher", "student", "transferred")
MEAN = "mean"
Scores = Mapping[str, Mapping[str, Any]]  # task -> a `TaskScore` as plain data


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of the gap.

    Attributes:
        estimate: with the standard error of three independent scores; NaN where there is no gap above the noise.
        interval: on the same rows; None where the answers are not known.
    """

    estimate: Estimate
    interval: Interval | None = None

    @property
    def known(self) -> bool:
        """Whether there is a gap to close."""
        return not math.isnan(self.estimate.value)

    @property
    def cell(self) -> str:
        """``49 % [47, 52]``, ``49 % ± 3`` where there is no interval, a dash where there is no gap."""
        if self.interval:
            ends = (self.interval.value, self.interval.low, self.interval.high)
            return "{} % [{}, {}]".format(*(round(100 * number) for number in ends))
        value, stderr = 100 * self.estimate.value, 100 * self.estimate.stderr
        return f"{value:.0f} % ± {stderr:.0f}" if self.known else "–"

    def numbers(self) -> dict[str, float]:
        """Return ``value``, ``stderr`` and, of a known interval, ``low`` and ``high``."""
        ends = {"low": self.interval.low, "high": self.interval.high} if self.interval else {}
        return asdict(self.estimate) | ends


def shares_of_run(evaluations: Mapping[str, Evaluation], scores: Mapping[str, Scores]) -> dict[str, Share]:
    """Return the share of the gap that one run closed, per task and under ``mean`` over all with a gap.

    The mean has an interval only where every task with a gap has graded answers to the same rows.

    Args:
        evaluations: role -> scores with the answers behind them.
        scores: role -> task -> score, by the names that tables show.

    Returns:
        Nothing where a role is missing.
    """
    if not set(ROLES) <= set(scores):
        return {}
    estimates = {
        task: gap_closed(**{role: estimate_of(scores[role][task]) for role in ROLES})
        for task in scores["teacher"]
    }
    estimates[MEAN] = mean_estimate(list(estimates.values()))
    closed = {task: scores["transferred"][task] for task in scores["teacher"]}
    closed = {task: score for task, score in closed.items() if not math.isnan(estimates[task].value)}
    intervals = _intervals(evaluations, scores, closed)
    return {task: Share(estimate=one, interval=intervals.get(task)) for task, one in estimates.items()}


def _intervals(
    evaluations: Mapping[str, Evaluation], scores: Mapping[str, Scores], closed: Scores
) -> dict[str, Interval]:
    """Return task -> interval, for the tasks whose rows all three models answered."""
    answers = {
        role: answers_of(evaluations[role].samples, {task: scores[role][task] for task in closed})
        for role in ROLES
    }
    like = {
        task: own
        for task, own in answers["transferred"].items()
        if all(task in answers[role] and answers[role][task].rows == own.rows for role in ROLES)
    }
    if not like:
        return {}
    sampled = {role: resample(stack([answers[role]], like) or []) for role in ROLES}
    intervals = {task: share_interval(sampled, [column]) for column, task in enumerate(like)}
    if len(like) == len(closed):
        intervals[MEAN] = share_interval(sampled, list(range(len(like))))
    return {name: interval for name, interval in intervals.items() if interval is not None}


def share_interval(sampled: Mapping[str, Sampled], columns: list[int]) -> Interval | None:
    """Return the interval of the mean share over some tasks; None where it has no ends.

    Args:
        sampled: teacher, student and transferred student on the same resampled rows.
        columns: the tasks.
    """
    teacher, student, transferred = (sampled[role].only(columns) for role in ROLES)
    interval = gap_interval(teacher=teacher, student=student, transferred=transferred)
    return None if math.isnan(interval.low) else interval


def estimate_of(score: Mapping[str, Any]) -> Estimate:
    """Return a score's value and standard error."""
    return Estimate(value=score["value"], stderr=score["stderr"])
