"""Runs that can be compared: seeds averaged into arms, and arms compared on the rows that all answered.

    runs -> studies (equal models, test rows and ways of scoring) -> arms (all equal but the seed), best first
    arms ──read_answers──> answers ──resample──> scores of resampled rows ──> differences, intervals of shares

Standard errors cover both the draw of seeds and that of test rows (`evaluation.statistics.over_seeds`); intervals are
those of `evaluation.paired`, where the answers behind the scores are at hand.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pkt.errors import RequestError, nearest
from pkt.evaluation.paired import (
    Answers,
    Floats,
    Interval,
    Sampled,
    difference,
    differing,
    gap_interval,
    mcnemar,
    resample,
    supported,
)
from pkt.evaluation.statistics import FEWEST, UNKNOWN, Estimate, gap_closed, mean_of_all, over_seeds
from pkt.manifest import content_key
from pkt.reporting.answers import Answered, read_answers, stack
from pkt.reporting.cells import score_head
from pkt.reporting.gaps import MEAN, ROLES, Scores, Share, estimate_of, no_gap
from pkt.reporting.labels import short
from pkt.reporting.metrics import averaged, headlines, is_share
from pkt.reporting.runs import FIXED, Arm, Run, arms, key_of, once, same, study_of, tasks_of


@dataclass(frozen=True, kw_only=True)
class Study:
    """Runs of equal models that were scored on equal rows in the same way.

    Attributes:
        title: its heading; no two studies of a report have the same one.
        runs: as they were read.
        tasks: in the order of the columns.
        as_read: the arms, in the order of their first runs.
        reference: the arm that the others are compared with, on the rows that it answered.
        fixed: the teacher and the untouched student, where they were scored.
        passed_over: a sentence for each run that no arm has.
    """

    title: str
    runs: tuple[Run, ...]
    tasks: tuple[str, ...]
    as_read: tuple[Arm, ...]
    reference: Arm
    fixed: tuple[Arm, ...]
    passed_over: tuple[str, ...]

    @classmethod
    def of(cls, runs: Sequence[Run], against: str | None = None, title: str = "") -> Study:
        """Make the study of some runs with equal `study_of`.

        Args:
            runs: of one study.
            against: label or method of the reference (default: `sft`, or the first arm).
            title: where the pair and the benchmark alone do not tell it from others.
        """
        as_read = tuple(arms(runs))
        named = [arm for arm in as_read if arm.label == against]
        named += [arm for name in (against, "sft") for arm in as_read if arm.method == name]
        reference = [*named, *as_read][0]
        return cls(
            title=title or _name(runs),
            runs=tuple(runs),
            tasks=tasks_of(runs[0]),
            as_read=as_read,
            reference=reference,
            fixed=tuple(_untouched([*reference.runs, *runs])),
            passed_over=tuple(once(runs)[1]),
        )

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        """The arms, best first; those whose score is no number come last."""
        return tuple(sorted(self.as_read, key=self._place))

    @property
    def rows(self) -> tuple[Arm, ...]:
        """The arms as tables show them: teacher, transferred students, student."""
        roles = ("teacher", "transferred", "student")
        return tuple(sorted((*self.fixed, *self.arms), key=lambda arm: roles.index(arm.role)))

    @property
    def pair(self) -> str:
        """Name of the model pair; several where equal models were given several names."""
        return _names(self.runs, "model")

    @property
    def benchmark(self) -> str:
        """Name of the benchmark."""
        return _names(self.runs, "benchmark")

    @property
    def split(self) -> str:
        """Whose rows were scored."""
        return str(self.runs[0]["split"])

    @property
    def columns(self) -> dict[str, Sequence[str]]:
        """Name -> tasks: every task by itself, and those that count as a whole under ``mean``."""
        return {**{task: (task,) for task in self.tasks}, MEAN: self.pooled}

    @cached_property
    def pooled(self) -> tuple[str, ...]:
        """The tasks that a mean is over, once each: further scores of a task are of the same rows.

        Each is there by its first score; where scores cannot be averaged (whole answers, bits per byte), by the first
        on which enough rows differ between arms to tell anything.
        """
        first = headlines(self._scored)
        return first if self.averaged else tuple(map(self._telling, first))

    @property
    def _scored(self) -> Scores:
        """The reference's scores, by task."""
        scores: Scores = self.reference.runs[0]["scores"]["transferred"]
        return scores

    def metric(self, task: str) -> str:
        """Return what a task is scored by."""
        return str(self._scored[task]["metric"])

    def rises(self, task: str) -> bool:
        """Whether more is better."""
        return bool(self._scored[task]["higher_is_better"])

    def head(self, task: str) -> str:
        """Return the head of a task's column."""
        return score_head(task, self._scored)

    @property
    def averaged(self) -> bool:
        """Whether a mean over tasks makes sense: all scores are shares of right answers."""
        return averaged(self._scored.values())

    @property
    def compared(self) -> tuple[str, ...]:
        """The tasks that a difference is the mean of: all, once each; the first where scores cannot be averaged."""
        return self.pooled if self.averaged else self.pooled[:1]

    def _telling(self, first: str) -> str:
        """Return the first of a task's scores on which enough rows differ between two arms; else its first."""
        before = next((arm for arm in self.fixed if arm.role == "student"), self.reference)
        pairs = [(arm.label, other.label) for arm in self.as_read for other in (before, self.reference)]
        task = self._scored[first]["task"]
        for name in [name for name, own in self._scored.items() if own["task"] == task]:
            found = (self._differing([name], labels) for labels in pairs)
            if any(parts is not None and len(parts) >= FEWEST for parts in found):
                return name
        return first

    @property
    def points(self) -> bool:
        """Whether differences are of shares of right answers, shown in points."""
        return is_share(self.metric(self.compared[0]))

    @property
    def measure(self) -> str:
        """What is compared, in words for a title."""
        one = len(self.compared) < min(len(self.tasks), 2)  # beside further scores of the same task
        return self.head(self.compared[0]) if one or not self.averaged else "mean over tasks, in points"

    @cached_property
    def answers(self) -> dict[str, list[Answers]]:
        """Label -> answers per task of `answered`, for the arms that answered the same rows as the reference."""
        answers = {}
        for arm in (
            (*self.fixed, *self.as_read) if self._like else ()
        ):  # `arms` are sorted by what follows from this
            if own := stack([read_answers(run, arm.role) for run in arm.runs], self._like):
                answers[arm.label] = own
        return answers

    @cached_property
    def _like(self) -> Mapping[str, Answered]:
        """Task -> answers to the rows that count: the reference's, else (it has none) those of the next arm."""
        arms = (self.reference, *self.fixed, *self.as_read)
        found = (read_answers(arm.runs[0], arm.role) for arm in arms)
        own = next((answers for answers in found if answers), {})
        return {task: own[task] for task in self.tasks if task in own}

    def _gap_rows(self, task: str) -> int | None:
        """Return on how many rows of a task teacher and student differ; None where their answers are not known."""
        own = [answers.get(task) for answers in self._fixed_answers]
        like = own[0]
        both = [stack([{task: one}], {task: like}) for one in own if one and like]
        if len(both) < len(FIXED) or both[0] is None or both[1] is None:
            return None
        return len(differing(both[0], both[1]))

    @cached_property
    def _fixed_answers(self) -> tuple[Mapping[str, Answered], ...]:
        return tuple(read_answers(arm.runs[0], arm.role) for arm in self.fixed)

    @property
    def answered(self) -> tuple[str, ...]:
        """The tasks whose answers are graded row by row."""
        return tuple(self._like)

    @cached_property
    def sampled(self) -> dict[str, Sampled]:
        """Label -> scores on resampled rows, a column per task of `answered`."""
        return {label: resample(own) for label, own in self.answers.items()}

    def score(self, arm: Arm, tasks: Sequence[str]) -> Estimate:
        """Return an arm's score, averaged over tasks and seeds; NaN where one of the scores is no number."""
        scores = [run["scores"][arm.role] for run in arm.runs]
        return over_seeds([mean_of_all([estimate_of(own.get(task)) for task in tasks]) for own in scores])

    def row_count(self, task: str) -> int | None:
        """Return how many rows of a task were scored; None where an older run does not say."""
        count = self._scored[task].get("n")
        return None if count is None else int(count)

    @cached_property
    def gapless(self) -> Mapping[str, str]:
        """The tasks that have no gap to close, each with the reason; all of them where a model was not scored."""
        by_role = {arm.role: arm for arm in self.fixed}
        if len(by_role) < len(FIXED):
            return dict.fromkeys(self.tasks, "teacher or student not scored")
        found = {}
        for task in self.tasks:
            scores = {role: self.score(arm, [task]) for role, arm in by_role.items()}
            why = no_gap(**scores, rises=self.rises(task), rows=self.row_count(task))
            if why is None and (count := self._gap_rows(task)) is not None and count < FEWEST:
                why = f"teacher and student differ on {count} rows, too few to tell"
            if why:
                found[task] = why
        return found

    def share(self, arm: Arm, tasks: Sequence[str]) -> Share | None:
        """Return an arm's mean share of the gap over those of the tasks that have one; None where none was measured."""
        if len(self.fixed) < len(FIXED):
            return None
        known = [task for task in tasks if task not in self.gapless]
        if not known:
            return Share(estimate=UNKNOWN, why="; ".join(dict.fromkeys(self.gapless[task] for task in tasks)))
        estimate = self._closed(arm, known)
        if math.isnan(estimate.value):
            return Share(estimate=UNKNOWN, why="a score is no number")
        labels = (*FIXED, arm.label)
        columns = self._columns(known, labels)
        if not columns:
            return Share(estimate=estimate)
        teacher, student, transferred = (self.sampled[label].only(columns) for label in labels)
        interval = gap_interval(teacher=teacher, student=student, transferred=transferred)
        interval = self._supported(interval, known, ("student", arm.label))
        return Share(estimate=estimate, interval=None if math.isnan(interval.low) else interval)

    def _closed(self, arm: Arm, tasks: Sequence[str]) -> Estimate:
        """Return the mean share over tasks with a gap, with the error of three independent scores."""
        fixed = {task: {arm.role: self.score(arm, [task]) for arm in self.fixed} for task in tasks}
        scores = [run["scores"]["transferred"] for run in arm.runs]
        return over_seeds(
            [
                mean_of_all(
                    [gap_closed(**fixed[task], transferred=estimate_of(own.get(task))) for task in tasks]
                )
                for own in scores
            ]
        )

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
        chosen = self.compared if tasks is None else tasks
        columns = self._columns(chosen, labels)
        if not columns:
            return None
        found = difference(*(self.sampled[label].only(columns) for label in labels))
        return self._supported(found, chosen, labels)

    def _supported(self, found: Interval, tasks: Sequence[str], labels: Sequence[str]) -> Interval:
        parts = self._differing(tasks, labels)
        return found if parts is None else supported(found, parts)

    def _differing(self, tasks: Sequence[str], labels: Sequence[str]) -> Floats | None:
        """Return what rows add to a difference of two arms, of those that add anything; None: answers not known."""
        if not set(labels) <= set(self.answers) or not set(tasks) <= set(self.answered):
            return None
        columns = [self.answered.index(task) for task in tasks]
        return differing(*([self.answers[label][column] for column in columns] for label in labels))

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

    def _place(self, arm: Arm) -> tuple[int, float]:
        """Return what arms are sorted by: the share of the gap, else the score; what is no number comes last."""
        known = [task for task in self.pooled if task not in self.gapless]
        if known and not math.isnan(share := self._closed(arm, known).value):
            return 0, -share
        score = self.score(arm, self.compared).value
        return (2, 0.0) if math.isnan(score) else (1, -score if self.rises(self.compared[0]) else score)


def _untouched(runs: Sequence[Run]) -> Iterator[Arm]:
    """Yield teacher and student, where they were scored, with a run per result (one, unless answers are drawn)."""
    for role in FIXED:
        scored = [run for run in runs if role in run["scores"]]
        results = {key_of(run, f"eval {role}"): run for run in reversed(scored)}
        if results:
            yield Arm(label=role, role=role, runs=tuple(reversed(results.values())))


def studies(runs: Sequence[Run], against: str | None = None) -> list[Study]:
    """Return the studies that runs belong to, in the order in which they first come.

    Args:
        runs: of any models and benchmarks.
        against: method or label of the arm that the others are compared with (default: `sft`, or the first arm).

    Raises:
        RequestError: no run is called `against`.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(same(study_of(run)), []).append(run)
    titles = _titles(list(groups.values()))
    every = [Study.of(group, against, title) for group, title in zip(groups.values(), titles, strict=True)]
    known = sorted({name for study in every for arm in study.arms for name in (arm.label, arm.method)})
    if against is not None and against not in known:
        raise RequestError(
            f"no run to compare with is called {against!r}{nearest(against, known)}: there are {', '.join(known)}"
        )
    return every


def _titles(groups: Sequence[Sequence[Run]]) -> list[str]:
    """Return a title per study: pair and benchmark, and where these do not tell it from another one, what does."""
    names = [_name(group) for group in groups]
    found: list[str] = []
    for name, group in zip(names, groups, strict=True):
        alike = [study_of(other[0]) for other, own in zip(groups, names, strict=True) if own == name]
        own, words = study_of(group[0]), group[0].get("names", {})
        differ = sorted({key for each in alike for key in each if each.get(key) != own.get(key)})
        told = ", ".join(_told(key, own.get(key), words) for key in differ)
        title = f"{name} ({told})" if told else name
        found.append(title if title not in found else f"{title} #{1 + found.count(title)}")
    return found


def _told(key: str, value: Any, words: Mapping[str, str]) -> str:
    """Return what sets a study apart, with the file or checkpoint where one was named."""
    named = words.get("test") if key.startswith("eval tasks ") else words.get(key)
    shown = short(value if not key.startswith("eval tasks ") else content_key({key: value}))
    return f"{key.removeprefix('eval tasks ')} {f'{named}, ' if named else ''}{shown}"


def _name(runs: Sequence[Run]) -> str:
    return f"{_names(runs, 'model')} on {_names(runs, 'benchmark')}"


def _names(runs: Sequence[Run], part: str) -> str:
    return " = ".join(dict.fromkeys(str(run[part]) for run in runs))


def shares_of(run: Run) -> dict[str, Share]:
    """Return the share of the gap that one run closed, by task and under ``mean``; nothing where a model is missing."""
    if not set(ROLES) <= set(run["scores"]):
        return {}
    study = Study.of([run], title="one run")
    shares = {name: study.share(study.arms[0], tasks) for name, tasks in study.columns.items()}
    return {name: share for name, share in shares.items() if share}
