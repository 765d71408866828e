"""The runs of one model pair and benchmark: seeds averaged into arms, and arms compared on the rows that all answered.

    runs -> studies (one per model pair and benchmark) -> arms (the same settings, different seeds), best first
    arms ──read_answers──> answers ──resample──> scores of resampled rows ──> differences, intervals of shares

Standard errors cover both the draw of seeds and that of test rows (`evaluation.statistics.over_seeds`); intervals are
those of `evaluation.paired`, where the answers behind the scores are at hand.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pkt.errors import RequestError, nearest
from pkt.evaluation.paired import Answers, Interval, Sampled, difference, gap_interval, mcnemar, resample
from pkt.evaluation.statistics import Estimate, gap_closed, mean_estimate, over_seeds
from pkt.reporting.answers import read_answers, stack
from pkt.reporting.cells import SHARES, score_head
from pkt.reporting.gaps import MEAN, ROLES, Share, estimate_of
from pkt.reporting.runs import Arm, Run, arms


@dataclass(frozen=True, kw_only=True)
class Study:
    """The runs of one model pair and benchmark.

    Attributes:
        runs: as they were read.
        tasks: in the order of the columns.
        arms: best first; those without a gap come last.
        reference: the arm that the others are compared with, on the rows that it answered.
        fixed: the teacher and the untouched student, where they were scored.
    """

    runs: tuple[Run, ...]
    tasks: tuple[str, ...]
    arms: tuple[Arm, ...]
    reference: Arm
    fixed: tuple[Arm, ...]

    @classmethod
    def of(cls, runs: Sequence[Run], against: str | None = None) -> Study:
        """Make the study of some runs of one pair and benchmark.

        Args:
            runs: with equal tasks.
            against: label or method of the reference (default: `sft`, or the first arm).
        """
        as_read, tasks = arms(runs), tasks_of(runs[0])
        named = [arm for arm in as_read if arm.label == against]
        named += [arm for name in (against, "sft") for arm in as_read if arm.method == name]
        reference = [*named, *as_read][0]
        fixed = []
        for role in ("teacher", "student"):
            scored = [run for run in (*reference.runs, *runs) if role in run["scores"]]
            fixed += [Arm(label=role, role=role, runs=(run,)) for run in scored[:1]]
        ranked = sorted(as_read, key=lambda arm: _place(_closed(arm, tasks)))
        return cls(runs=tuple(runs), tasks=tasks, arms=tuple(ranked), reference=reference, fixed=tuple(fixed))

    @property
    def rows(self) -> tuple[Arm, ...]:
        """The arms as tables show them: teacher, transferred students, student."""
        roles = ("teacher", "transferred", "student")
        return tuple(sorted((*self.fixed, *self.arms), key=lambda arm: roles.index(arm.role)))

    @property
    def pair(self) -> str:
        """Name of the model pair."""
        return str(self.runs[0]["model"])

    @property
    def benchmark(self) -> str:
        """Name of the benchmark."""
        return str(self.runs[0]["benchmark"])

    @property
    def columns(self) -> dict[str, Sequence[str]]:
        """Name -> tasks: every task by itself, and all of them under ``mean``."""
        return {**{task: (task,) for task in self.tasks}, MEAN: self.tasks}

    def metric(self, task: str) -> str:
        """Return what a task is scored by."""
        return str(self.reference.runs[0]["scores"]["transferred"][task]["metric"])

    def rises(self, task: str) -> bool:
        """Whether more is better."""
        return bool(self.reference.runs[0]["scores"]["transferred"][task]["higher_is_better"])

    def head(self, task: str) -> str:
        """Return the head of a task's column."""
        return score_head(task, self.metric(task), higher_is_better=self.rises(task))

    @property
    def averaged(self) -> bool:
        """Whether a mean over tasks makes sense: all scores are shares of right answers."""
        return all(self.metric(task) in SHARES for task in self.tasks)

    @property
    def compared(self) -> tuple[str, ...]:
        """The tasks that a difference is the mean of: all, or the first where scores cannot be averaged."""
        return self.tasks if self.averaged else self.tasks[:1]

    @property
    def points(self) -> bool:
        """Whether differences are of shares of right answers, shown in points."""
        return self.metric(self.tasks[0]) in SHARES

    @property
    def measure(self) -> str:
        """What is compared, in words for a title."""
        return "mean over tasks, in points" if self.averaged else self.head(self.tasks[0])

    @cached_property
    def answers(self) -> dict[str, list[Answers]]:
        """Label -> answers per task of `answered`, for the arms that answered the same rows as the reference."""
        answers = {}
        for arm in (*self.fixed, *self.arms) if self._like else ():
            if own := stack([read_answers(run, arm.role) for run in arm.runs], self._like):
                answers[arm.label] = own
        return answers if self.reference.label in answers else {}

    @cached_property
    def _like(self) -> Mapping[str, Any]:
        own = read_answers(self.reference.runs[0], "transferred")
        return {task: own[task] for task in self.tasks if task in own}

    @property
    def answered(self) -> tuple[str, ...]:
        """The tasks whose answers are graded row by row."""
        return tuple(self._like)

    @cached_property
    def sampled(self) -> dict[str, Sampled]:
        """Label -> scores on resampled rows, a column per task of `answered`."""
        return {label: resample(own) for label, own in self.answers.items()}

    def score(self, arm: Arm, tasks: Sequence[str]) -> Estimate:
        """Return an arm's score, averaged over tasks and seeds."""
        scores = [run["scores"][arm.role] for run in arm.runs]
        return over_seeds([mean_estimate([estimate_of(own[task]) for task in tasks]) for own in scores])

    def share(self, arm: Arm, tasks: Sequence[str]) -> Share | None:
        """Return an arm's mean share of the gap over those of the tasks that have one; None where none was measured."""
        estimate = _closed(arm, tasks)
        if estimate is None:
            return None
        known = [task for task in tasks if not math.isnan(_closed_by(arm.runs[0], task).value)]
        labels = ("teacher", "student", arm.label)
        columns = self._columns(known, labels)
        if not columns:
            return Share(estimate=estimate)
        teacher, student, transferred = (self.sampled[label].only(columns) for label in labels)
        interval = gap_interval(teacher=teacher, student=student, transferred=transferred)
        return Share(estimate=estimate, interval=None if math.isnan(interval.low) else interval)

    def difference(
        self, arm: Arm, other: Arm | None = None, tasks: Sequence[str] | None = None
    ) -> Interval | None:
        """Return `arm - other` on the same rows; None where the answers of one are not known.

        Args:
            arm: of this study.
            other: another (default: the reference).
            tasks: that the difference is the mean of (default: `compared`).
        """
        labels = (arm.label, (other or self.reference).label)
        columns = self._columns(self.compared if tasks is None else tasks, labels)
        if not columns:
            return None
        return difference(*(self.sampled[label].only(columns) for label in labels))

    def chance(self, arm: Arm, other: Arm) -> float | None:
        """Return McNemar's exact p-value of two arms of one seed each whose answers are right or wrong."""
        columns = self._columns(self.compared, (arm.label, other.label))
        chosen = [[self.answers[one.label][column] for column in columns] for one in (arm, other)]
        if not self.points or any(len(task.value_KN) > 1 for own in chosen for task in own):
            return None
        if any((task.weight_KN != 1).any() for own in chosen for task in own):
            return None  # shares of tokens
        return mcnemar(*([bool(value) for task in own for value in task.value_KN[0]] for own in chosen))

    def _columns(self, tasks: Sequence[str], labels: Collection[str]) -> list[int]:
        """Return the columns of tasks, or none where one of them has no answers of one of the arms."""
        if not set(labels) <= set(self.sampled) or not set(tasks) <= set(self.answered):
            return []
        return [self.answered.index(task) for task in tasks]


def studies(runs: Sequence[Run], against: str | None = None) -> list[Study]:
    """Return a study per model pair and benchmark (with equal tasks), in the order in which they first come.

    Args:
        runs: of any models and benchmarks.
        against: method or label of the arm that the others are compared with (default: `sft`, or the first arm).

    Raises:
        RequestError: no run is called `against`.
    """
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault((run["model"], run["benchmark"], *tasks_of(run)), []).append(run)
    every = [Study.of(group, against) for group in groups.values()]
    known = sorted({name for study in every for arm in study.arms for name in (arm.label, arm.method)})
    if against is not None and against not in known:
        raise RequestError(
            f"no run to compare with is called {against!r}{nearest(against, known)}: there are {', '.join(known)}"
        )
    return every


def shares_of(run: Run) -> dict[str, Share]:
    """Return the share of the gap that one run closed, by task and under ``mean``; nothing where a model is missing."""
    if not set(ROLES) <= set(run["scores"]):
        return {}
    study = Study.of([run])
    shares = {name: study.share(study.arms[0], tasks) for name, tasks in study.columns.items()}
    return {name: share for name, share in shares.items() if share}


def tasks_of(run: Run) -> tuple[str, ...]:
    """Return the tasks that a run was scored on."""
    return tuple(next(iter(run["scores"].values())))


def _closed(arm: Arm, tasks: Sequence[str]) -> Estimate | None:
    """Return an arm's mean share of the gap, or None where one of the three models was not scored.

    Its error takes those of the three models as independent.
    """
    if not all(set(ROLES) <= set(run["scores"]) for run in arm.runs):
        return None
    return over_seeds([mean_estimate([_closed_by(run, task) for task in tasks]) for run in arm.runs])


def _closed_by(run: Run, task: str) -> Estimate:
    return gap_closed(**{role: estimate_of(run["scores"][role][task]) for role in ROLES})


def _place(share: Estimate | None) -> tuple[int, float]:
    """Return what arms are sorted by: the largest share first, then those with no gap to close, then the rest."""
    if share is None:
        return 2, 0.0
    return (1, 0.0) if math.isnan(share.value) else (0, -share.value)
