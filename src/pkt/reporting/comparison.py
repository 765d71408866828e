"""Arms against arms on the rows that all of them answered.

arms ──read_answers──> answers ──resample──> scores of resampled rows ──> differences, intervals of gaps closed
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pkt.evaluation.paired import Answers, Interval, Sampled, difference, gap_interval, mcnemar, resample
from pkt.reporting.answers import read_answers, stack
from pkt.reporting.runs import Arm
from pkt.reporting.table import Table, difference_cell


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is known of the arms whose answers were found, on the rows of the reference.

    Attributes:
        reference: label of the arm that the others are compared with.
        tasks: tasks with answers, in the order of the columns of what was resampled.
        compared: the tasks that a difference is the mean of.
        what: how a title calls that.
        points: whether these are shares of right answers, shown in points.
        answers: label -> answers per task. The reference is there, or nobody is.
        sampled: label -> the same, resampled.
        ends: ``teacher`` and ``student``, resampled, where they are known.
    """

    reference: str
    tasks: tuple[str, ...]
    compared: tuple[str, ...]
    what: str
    points: bool
    answers: Mapping[str, list[Answers]]
    sampled: Mapping[str, Sampled]
    ends: Mapping[str, Sampled]

    def difference(self, first: str, second: str, tasks: Sequence[str] | None = None) -> Interval | None:
        """Return `first - second` of two arms by label; None where one has no answers.

        Args:
            first: label of an arm.
            second: label of another.
            tasks: that the difference is the mean of (default: `compared`).
        """
        tasks = self.compared if tasks is None else tasks
        if not {first, second} <= set(self.sampled) or not set(tasks) <= set(self.tasks):
            return None
        columns = self._columns(tasks)
        return difference(self.sampled[first].only(columns), self.sampled[second].only(columns))

    def gap(self, label: str, tasks: Sequence[str]) -> Interval | None:
        """Return an arm's mean share of the gap closed over some tasks; None where the answers do not say."""
        if label not in self.sampled or len(self.ends) < 2 or not tasks or not set(tasks) <= set(self.tasks):
            return None
        columns = self._columns(tasks)
        found = gap_interval(
            teacher=self.ends["teacher"].only(columns),
            student=self.ends["student"].only(columns),
            transferred=self.sampled[label].only(columns),
        )
        return None if math.isnan(found.low) else found

    def chance(self, first: str, second: str) -> float | None:
        """Return McNemar's exact p-value of two arms of one seed each whose answers are right or wrong."""
        both = [self.answers[label] for label in (first, second)]
        chosen = [[arm[column] for column in self._columns(self.compared)] for arm in both]
        if not self.points or any(len(task.value_KN) > 1 for arm in chosen for task in arm):
            return None
        if any((task.weight_KN != 1).any() for arm in chosen for task in arm):
            return None  # shares of tokens
        right = [[bool(value) for task in arm for value in task.value_KN[0]] for arm in chosen]
        return mcnemar(*right).p_value

    def _columns(self, tasks: Sequence[str]) -> list[int]:
        return [self.tasks.index(task) for task in tasks]


def compare(
    arms: Sequence[Arm],
    tasks: Sequence[str],
    reference: Arm,
    *,
    compared: Sequence[str],
    points: bool,
    what: str,
) -> Comparison:
    """Read and resample the answers of all arms.

    Args:
        arms: of one model pair and benchmark.
        tasks: its tasks.
        reference: the arm whose rows count.
        compared: the tasks that a difference is the mean of.
        points: whether these are shares of right answers.
        what: how a title calls what is compared.
    """
    like = read_answers(reference.runs[0], "transferred")
    like = {task: like[task] for task in tasks if task in like}
    answers: dict[str, list[Answers]] = {}
    for arm in arms if like else ():
        if found := stack([read_answers(run, "transferred") for run in arm.runs], like):
            answers[arm.label] = found
    if reference.label not in answers:
        answers = {}
    ends = {}
    for role in ("teacher", "student") if answers else ():
        if role in reference.runs[0]["scores"] and (
            found := stack([read_answers(reference.runs[0], role)], like)
        ):
            ends[role] = resample(found)
    return Comparison(
        reference=reference.label,
        tasks=tuple(like),
        compared=tuple(compared),
        what=what,
        points=points,
        answers=answers,
        sampled={label: resample(found) for label, found in answers.items()},
        ends=ends,
    )


def pairs_table(comparison: Comparison, labels: Sequence[str], heading: str = "") -> Table | None:
    """Return every arm against every other, or None where there are no two to compare.

    Args:
        comparison: of the arms.
        labels: of the arms, in the order of the rows; those without answers are left out.
        heading: what the title starts with.
    """
    labels = [label for label in labels if comparison.difference(label, label)]
    if len(labels) < 2:
        return None
    title = f"{heading}row minus column: {comparison.what}; ≈ where the 95 % interval holds 0"
    if any(comparison.chance(labels[0], label) is not None for label in labels[1:]):
        title += "; p: McNemar's exact test over all rows (one seed each)"
    rows = tuple((row, *(_pair_cell(comparison, row, column) for column in labels)) for row in labels)
    return Table(title=title, columns=("", *labels), rows=rows)


def _pair_cell(comparison: Comparison, row: str, column: str) -> str:
    found = comparison.difference(row, column)
    if row == column or found is None:
        return ""
    chance = comparison.chance(row, column)
    p_value = "" if chance is None else " (p < 0.001)" if chance < 0.001 else f" (p {chance:.3f})"
    return difference_cell(found, points=comparison.points, ends=False) + p_value
