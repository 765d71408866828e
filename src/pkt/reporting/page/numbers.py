"""One `Number` per arm and task, teacher first and student last: the lines of `report.jsonl`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pkt.reporting.gaps import MEAN
from pkt.reporting.page.report import Number
from pkt.reporting.runs import Arm
from pkt.reporting.study import Study


def numbers(study: Study) -> Iterator[Number]:
    """Yield every arm's score of each task and, where scores can be averaged, of their mean."""
    columns: dict[str, Sequence[str]] = {task: (task,) for task in study.tasks}
    if study.averaged:
        columns[MEAN] = study.tasks
    fixed = {arm.role: [arm] for arm in study.fixed}
    for arm in (*fixed.get("teacher", ()), *study.arms, *fixed.get("student", ())):
        for name, tasks in columns.items():
            score = study.score(arm, tasks)
            yield Number(
                pair=study.pair,
                benchmark=study.benchmark,
                role=arm.role,
                arm=arm.label,
                task=name,
                metric=study.metric(tasks[0]) if len(tasks) == 1 else MEAN,
                value=score.value,
                stderr=score.stderr,
                seeds=len(arm.runs),
                **(_gap(study, arm, tasks) | _difference(study, arm, tasks) if arm in study.arms else {}),
            )


def _gap(study: Study, arm: Arm, tasks: Sequence[str]) -> dict[str, Any]:
    share = study.share(arm, tasks)
    if share is None or not (share.interval or share.known):
        return {}
    if share.interval is None:
        return {"gap_closed": share.estimate.value, "gap_closed_stderr": share.estimate.stderr}
    return {
        "gap_closed": share.interval.value,
        "gap_closed_low": share.interval.low,
        "gap_closed_high": share.interval.high,
    }


def _difference(study: Study, arm: Arm, tasks: Sequence[str]) -> dict[str, Any]:
    difference = study.difference(arm, tasks=tasks)
    if difference is None or arm.label == study.reference.label:
        return {}
    return {
        "against": study.reference.label,
        "difference": difference.value,
        "difference_low": difference.low,
        "difference_high": difference.high,
        "inside_noise": difference.holds_zero,
    }
