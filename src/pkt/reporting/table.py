"""The headline table: who scored what, and how much of the gap a transfer closed.

Plain rows of text go to the console, to Markdown and to W&B alike, so that the three agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pkt.evaluation.paired import Interval
from pkt.evaluation.results import Evaluation, TaskScore
from pkt.evaluation.statistics import Estimate, gap_closed, mean_estimate

SHARES = ("acc", "exact_match", "pass@1", "token_accuracy")  # metrics that are shares of right answers
ROLES = {"teacher": "teacher", "student": "student"}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A title, column names and rows of text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Return the table as GitHub Markdown, numbers aligned right."""
        rule = "|---|" + "---:|" * (len(self.columns) - 1)
        lines = [_line(self.columns), rule, *map(_line, self.rows)]
        return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    """Return a row; a bar or a line break in a cell would make another one."""
    return "| " + " | ".join(" ".join(cell.replace("|", r"\|").split("\n")) for cell in cells) + " |"


def headline(
    evaluations: Mapping[str, Evaluation],
    method: str,
    *,
    intervals: Mapping[str, Interval] | None = None,
    split: str = "test",
) -> Table:
    """Return one row per role and, where all three are there, one for the share of the gap closed.

    Args:
        evaluations: role -> scores.
        method: name shown for the transferred student.
        intervals: of the shares on the same rows, per task and for the ``mean`` (`gaps.gap_intervals`).
        split: whose rows were scored; another than the test rows is said in the title.
    """
    primary = {role: primary_scores(evaluation) for role, evaluation in evaluations.items()}
    tasks = list(next(iter(primary.values())))
    rows = []
    for role, scores in primary.items():
        name = ROLES.get(role, f"student + {method}")
        cells = [percent(scores[task]) for task in tasks]
        rows.append((name, *cells, _mean_cell([scores[task] for task in tasks])))
    if gaps := gap_row(primary, intervals):
        rows.append(("gap closed", *gaps))
    units = {task: unit(next(iter(primary.values()))[task]) for task in tasks}
    columns = ("", *(f"{task}{units[task]}" for task in tasks), "mean")
    title = "scores ± standard error; gap closed: share of teacher minus student"
    if intervals:
        title += " [95 % interval on the same rows]"
    return Table(title=split_heading(split) + title, columns=columns, rows=tuple(rows))


def split_heading(split: str) -> str:
    """Return what a title starts with, so that nobody takes another split's numbers for those of the test rows."""
    return "" if split == "test" else f"{split.upper()} rows, not test: "


def primary_scores(evaluation: Evaluation) -> dict[str, TaskScore]:
    """Return each task's first score, which is the one that the headline shows."""
    scores: dict[str, TaskScore] = {}
    for score in evaluation.scores:
        name = score.task if score.task not in scores else f"{score.task} ({score.metric})"
        scores[name] = score
    return scores


def gap_estimates(primary: Mapping[str, Mapping[str, TaskScore]]) -> dict[str, Estimate] | None:
    """Return the share of the gap closed per task, or None where a role is missing."""
    if not {"teacher", "student", "transferred"} <= set(primary):
        return None
    return {
        task: _gap(*(_estimate(primary[role][task]) for role in ("teacher", "student", "transferred")))
        for task in primary["teacher"]
    }


def _gap(teacher: Estimate, student: Estimate, transferred: Estimate) -> Estimate:
    """Return the share of the gap closed; NaN where the gap itself is inside two standard errors."""
    noise = math.hypot(teacher.stderr, student.stderr)
    if not abs(teacher.value - student.value) > 2 * noise:
        return Estimate(value=math.nan, stderr=math.nan)
    return gap_closed(teacher=teacher, student=student, transferred=transferred)


def gap_row(
    primary: Mapping[str, Mapping[str, TaskScore]], intervals: Mapping[str, Interval] | None = None
) -> list[str] | None:
    """Return the cells of the last row: a share per task and their mean, with intervals where they are known."""
    estimates = gap_estimates(primary)
    if estimates is None:
        return None
    shares = {**estimates, "mean": mean_estimate(list(estimates.values()))}
    known = intervals or {}
    return [
        share_interval_cell(known[task]) if task in known else share_cell(share)
        for task, share in shares.items()
    ]


def _estimate(score: TaskScore) -> Estimate:
    return Estimate(value=score.value, stderr=score.stderr)


def is_share(score: TaskScore) -> bool:
    """Whether a score is a share of right answers (shown in per cent)."""
    return score.metric in SHARES


def unit(score: TaskScore) -> str:
    """Return what the column head adds to the task's name."""
    return "" if is_share(score) else " (↓)" if not score.higher_is_better else ""


def percent(score: TaskScore) -> str:
    """Return ``72.4 ± 1.2`` for shares, ``1.234 ± 0.012`` for the rest."""
    if is_share(score):
        return f"{100 * score.value:.1f} ± {100 * score.stderr:.1f}"
    return f"{score.value:.3f} ± {score.stderr:.3f}"


def share_cell(share: Estimate) -> str:
    """Return a share of the gap in per cent, or a dash where there is no gap above the noise."""
    return "–" if math.isnan(share.value) else f"{100 * share.value:.0f} % ± {100 * share.stderr:.0f}"


def share_interval_cell(share: Interval) -> str:
    """Return ``49 % [47, 52]`` for a share of the gap and its interval."""
    value, low, high = (f"{round(100 * number)}" for number in (share.value, share.low, share.high))
    return f"{value} % [{low}, {high}]"


def difference_cell(found: Interval, *, points: bool, ends: bool = True) -> str:
    """Return ``+1.2 [+0.3, +2.1]``, marked with ``≈`` where the interval holds zero.

    Args:
        found: a difference of scores.
        points: the scores are shares, shown in per cent.
        ends: show the interval.
    """
    scale, digits = (100, 1) if points else (1, 3)
    value, low, high = (
        f"{round(scale * number, digits) + 0.0:+.{digits}f}"  # + 0.0: no -0.0
        for number in (found.value, found.low, found.high)
    )
    return ("≈ " if found.holds_zero else "") + value + (f" [{low}, {high}]" if ends else "")


def _mean_cell(scores: Sequence[TaskScore]) -> str:
    if not all(is_share(score) for score in scores):
        return "–"
    mean = mean_estimate([_estimate(score) for score in scores])
    return f"{100 * mean.value:.1f} ± {100 * mean.stderr:.1f}"
