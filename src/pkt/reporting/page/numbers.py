"""The scores of a section: its tables, what they say in words, and one `Number` per arm and task."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pkt.evaluation.paired import Interval
from pkt.evaluation.statistics import Estimate, mean_estimate
from pkt.reporting.comparison import Comparison
from pkt.reporting.page.model import Number
from pkt.reporting.runs import Arm, Run
from pkt.reporting.study import (
    BUDGET,
    gap_cell,
    gap_estimate,
    ranked,
    score_estimate,
    tasks_of,
    unit_of,
)
from pkt.reporting.table import SHARES, Table

MEAN = "mean"


@dataclass(frozen=True, kw_only=True)
class Study:
    """The runs of one model pair and benchmark, compared.

    Attributes:
        pair, benchmark: what the runs have in common.
        runs: as they were read.
        comparison: of the arms on the same rows.
        arms: best first.
        tasks: in the order of the columns.
    """

    pair: str
    benchmark: str
    runs: tuple[Run, ...]
    comparison: Comparison
    arms: tuple[Arm, ...]
    tasks: tuple[str, ...]

    @classmethod
    def of(cls, runs: Sequence[Run], comparison: Comparison) -> Study:
        """Take the runs of one model pair and benchmark."""
        return cls(
            pair=str(runs[0]["model"]),
            benchmark=str(runs[0]["benchmark"]),
            runs=tuple(runs),
            comparison=comparison,
            arms=tuple(ranked(runs)),
            tasks=tuple(tasks_of(runs)),
        )

    @property
    def averaged(self) -> bool:
        """Whether a mean over tasks makes sense: all scores are shares of right answers."""
        return all(self.metric(task) in SHARES for task in self.tasks)

    def metric(self, task: str) -> str:
        """Return what a task is scored by."""
        return str(self.arms[0].runs[0]["scores"]["transferred"][task]["metric"])

    def gap(self, arm: Arm, tasks: Sequence[str]) -> Interval | None:
        """Return an arm's share of the gap closed; tasks without a gap are left out, as in the table."""
        shares = arm.runs[0].get("gap_closed")
        known = [task for task in tasks if shares and not math.isnan(shares[task]["value"])]
        return self.comparison.gap(arm.label, known) if known else None

    def difference(self, arm: Arm, tasks: Sequence[str] | None = None) -> Interval | None:
        """Return an arm's difference to the reference, which has none to itself."""
        if arm.label == self.comparison.reference:
            return None
        return self.comparison.difference(arm.label, self.comparison.reference, tasks)


def scores_and_budget(study: Study, whole: Table) -> tuple[Table, Table]:
    """Return the study's table as two: what was scored, and what each arm cost.

    Args:
        study: whose table it is.
        whole: the table.
    """
    cost = [index for index, column in enumerate(whole.columns) if column in BUDGET]
    rest = [index for index in range(len(whole.columns)) if index not in cost]
    arms = {arm.label for arm in study.arms}
    costs = [row for row in whole.rows if row[0] in arms and any(row[i] not in ("", "–") for i in cost)]
    filled = [i for i in cost if any(row[i] not in ("", "–") for row in costs)]
    return (
        _columns(whole, rest, whole.rows, whole.title),
        _columns(whole, [0, *filled], costs, "cost of an arm, mean over its seeds (evaluation left out)"),
    )


def _columns(table: Table, chosen: Sequence[int], rows: Sequence[tuple[str, ...]], title: str) -> Table:
    return Table(
        title=title,
        columns=tuple(table.columns[i] for i in chosen),
        rows=tuple(tuple(row[i] for i in chosen) for row in rows),
    )


def gap_table(study: Study) -> Table | None:
    """Return the share of the gap that each arm closed, task by task; None where there is none."""
    if not any(arm.runs[0].get("gap_closed") for arm in study.arms):
        return None
    columns = [*([task] for task in study.tasks), list(study.tasks)]
    rows = tuple(
        (arm.label, *(gap_cell(arm, tasks, study.comparison) for tasks in columns)) for arm in study.arms
    )
    title = "share of teacher minus student, with its 95 % interval on the same rows"
    return Table(title=title, columns=("", *study.tasks, MEAN), rows=rows)


def numbers(study: Study) -> Iterator[Number]:
    """Yield one number per arm and task, teacher first and student last, and their means."""
    groups = [(task, [task]) for task in study.tasks]
    groups += [(MEAN, list(study.tasks))] if study.averaged else []
    yield from _fixed(study, "teacher", groups)
    for arm in study.arms:
        for name, tasks in groups:
            yield _number(study, arm, name, tasks)
    yield from _fixed(study, "student", groups)


def _number(study: Study, arm: Arm, name: str, tasks: list[str]) -> Number:
    score = score_estimate(arm, tasks)
    return Number(
        pair=study.pair,
        benchmark=study.benchmark,
        role="transferred",
        arm=arm.label,
        task=name,
        metric=study.metric(tasks[0]) if len(tasks) == 1 else MEAN,
        value=score.value,
        stderr=score.stderr,
        seeds=len(arm.runs),
        **_gap(study, arm, tasks),
        **_difference(study, arm, tasks),
    )


def _gap(study: Study, arm: Arm, tasks: list[str]) -> dict[str, Any]:
    if found := study.gap(arm, tasks):
        return {"gap_closed": found.value, "gap_closed_low": found.low, "gap_closed_high": found.high}
    if not arm.runs[0].get("gap_closed"):
        return {}
    share = gap_estimate(arm, tasks)
    return {} if math.isnan(share.value) else {"gap_closed": share.value, "gap_closed_stderr": share.stderr}


def _difference(study: Study, arm: Arm, tasks: list[str]) -> dict[str, Any]:
    found = study.difference(arm, tasks)
    if found is None:
        return {}
    return {
        "against": study.comparison.reference,
        "difference": found.value,
        "difference_low": found.low,
        "difference_high": found.high,
        "inside_noise": found.holds_zero,
    }


def _fixed(study: Study, role: str, groups: list[tuple[str, list[str]]]) -> Iterator[Number]:
    scores = study.runs[0]["scores"].get(role)
    for name, tasks in groups if scores else ():
        found = mean_estimate(
            [Estimate(value=scores[task]["value"], stderr=scores[task]["stderr"]) for task in tasks]
        )
        yield Number(
            pair=study.pair,
            benchmark=study.benchmark,
            role=role,
            arm=role,
            task=name,
            metric=study.metric(tasks[0]) if len(tasks) == 1 else MEAN,
            value=found.value,
            stderr=found.stderr,
            seeds=1,
        )


def findings(study: Study) -> tuple[str, ...]:
    """Return what the scores say, in plain words, and what they do not."""
    return (*_ranking(study), *_verdicts(study), *_tasks_without_change(study), *_tasks_without_gap(study))


def _ranking(study: Study) -> Iterator[str]:
    best = study.arms[0]
    if not (best.runs[0].get("gap_closed") and gap_cell(best, study.tasks, study.comparison) != "–"):
        return
    share = gap_cell(best, study.tasks, study.comparison)
    first = "Of these arms, " if len(study.arms) > 1 else ""
    verb = "closes most of the gap" if first else "closes this share of the gap"
    yield f"{first}{best.label} {verb} between student and teacher: {share}."


def _verdicts(study: Study) -> Iterator[str]:
    """Yield who differs from the reference, and who cannot be told apart from it."""
    found = {arm.label: study.difference(arm) for arm in study.arms}
    known = {label: difference for label, difference in found.items() if difference}
    if not known:
        return
    compared = study.comparison.compared
    score = study.runs[0]["scores"]["transferred"][compared[0]]
    sign = 1 if score.get("higher_is_better", True) else -1
    noise = [label for label, each in known.items() if each.holds_zero]
    better = [label for label, each in known.items() if not each.holds_zero and sign * each.value > 0]
    worse = [label for label, each in known.items() if not each.holds_zero and sign * each.value < 0]
    what = "mean over tasks" if len(compared) > 1 else f"{compared[0]}{unit_of(study.runs[0], compared[0])}"
    rows = f"(95 % interval on the same test rows, {what})"
    reference = study.comparison.reference
    if noise:
        yield f"≈ Inside the noise against {reference} {rows}: {', '.join(noise)}."
    if better:
        yield f"Better than {reference} beyond the noise {rows}: {', '.join(better)}."
    if worse:
        yield f"Worse than {reference} beyond the noise {rows}: {', '.join(worse)}."
    if len(known) > 1:
        yield "The intervals are not corrected for the number of comparisons."


def _tasks_without_change(study: Study) -> Iterator[str]:
    """Yield, for a single arm, the tasks on which the student cannot be told from what it was."""
    if len(study.arms) > 1:
        return
    gaps = {task: study.gap(study.arms[0], [task]) for task in study.tasks}
    same = [task for task, gap in gaps.items() if gap and gap.holds_zero]
    lost = [task for task, gap in gaps.items() if gap and gap.high < 0]
    if same:
        yield f"Inside the noise (the interval of the gap holds 0): {', '.join(same)}."
    if lost:
        yield f"Worse than the untouched student beyond the noise: {', '.join(lost)}."


def _tasks_without_gap(study: Study) -> Iterator[str]:
    shares = study.arms[0].runs[0].get("gap_closed") or {}
    none = [task for task in study.tasks if task in shares and math.isnan(shares[task]["value"])]
    if none:
        yield f"No gap to close (teacher and student within two standard errors): {', '.join(none)}."
