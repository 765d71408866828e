"""The scores of a study as one `Number` per arm and task, and what they say in plain words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from pkt.reporting.gaps import MEAN
from pkt.reporting.page.report import Number
from pkt.reporting.runs import Arm
from pkt.reporting.study import Study


def numbers(study: Study) -> Iterator[Number]:
    """Yield every arm's score of each task and, where scores can be averaged, of their mean, in the order of rows."""
    columns = {name: tasks for name, tasks in study.columns.items() if name != MEAN or study.averaged}
    for arm in study.rows:
        for name, tasks in columns.items():
            score = study.score(arm, tasks)
            yield Number(
                study=study.title,
                pair=study.pair,
                benchmark=study.benchmark,
                role=arm.role,
                arm=arm.label,
                task=name,
                metric=study.metric(tasks[0]) if len(tasks) == 1 else MEAN,
                value=score.value,
                stderr=score.stderr,
                seeds=len(arm.runs),
                **(
                    _gap(study, arm, tasks) | _difference(study, arm, tasks)
                    if arm.role == "transferred"
                    else {}
                ),
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


def findings(study: Study) -> tuple[str, ...]:
    """Return what the scores say, and what they do not, a sentence each."""
    return (
        *_ranking(study),
        *_verdicts(study),
        *_unchanged_tasks(study),
        *_tasks_without_gap(study),
        *_not_numbers(study),
        *_seeds(study),
    )


def _ranking(study: Study) -> Iterator[str]:
    """Yield how much of the gap the best arm closed, or that it closed none."""
    best, *others = study.arms
    share = study.share(best, study.compared)
    if share is None or not share.known:
        return
    if share.sign < 0:
        whose = (
            f"Every arm ends below the untouched student, {best.label} the least"
            if others
            else (f"{best.label} harms: the student ends below where it began")
        )
        yield f"{whose} (share of the gap: {share.cell})."
    elif share.sign == 0:
        whose = (
            f"No arm closes a share of the gap beyond the noise; the largest is {best.label}'s"
            if others
            else (f"{best.label} closes no share of the gap beyond the noise")
        )
        yield f"{whose}: {share.cell}."
    else:
        first = "Of these arms, " if others else ""
        verb = "closes most of the gap" if first else "closes this share of the gap"
        yield f"{first}{best.label} {verb} between student and teacher: {share.cell}.{_lead(study, best, others)}"


def _lead(study: Study, best: Arm, others: Sequence[Arm]) -> str:
    """Return which arms the best one cannot be told apart from, on the same rows."""
    gaps = {arm.label: study.difference(best, arm) for arm in others}
    if level := [label for label, gap in gaps.items() if gap and gap.holds_zero]:
        return f" Its lead is inside the noise over: {', '.join(level)}."
    untold = [label for label, gap in gaps.items() if gap is None]
    return f" Its lead could not be tested over: {', '.join(untold)}." if untold else ""


def _verdicts(study: Study) -> Iterator[str]:
    """Yield who differs from the reference, and who cannot be told apart from it."""
    reference = study.reference.label
    differences = {arm.label: study.difference(arm) for arm in study.arms if arm.label != reference}
    known = {label: difference for label, difference in differences.items() if difference}
    if not known:
        return
    sign = 1 if study.rises(study.compared[0]) else -1
    what = "mean over tasks" if len(study.compared) > 1 else study.head(study.compared[0])
    rows = f"(95 % interval on the same test rows, {what})"
    noise = [label for label, each in known.items() if each.holds_zero and each.known]
    few = [f"{label} ({each.differing})" for label, each in known.items() if not each.known]
    better = [label for label, each in known.items() if not each.holds_zero and sign * each.value > 0]
    worse = [label for label, each in known.items() if not each.holds_zero and sign * each.value < 0]
    if noise:
        yield f"≈ Inside the noise against {reference} {rows}: {', '.join(noise)}."
    if few:
        yield f"≈ Too few rows on which they differ from {reference} to tell: {', '.join(few)}."
    if better:
        yield f"Better than {reference} beyond the noise {rows}: {', '.join(better)}."
    if worse:
        yield f"Worse than {reference} beyond the noise {rows}: {', '.join(worse)}."
    if len(known) > 1:
        yield "The intervals are not corrected for the number of comparisons."


def _unchanged_tasks(study: Study) -> Iterator[str]:
    """Yield, for a single arm, the tasks on which the student cannot be told from what it was, or got worse."""
    if len(study.arms) > 1:
        return
    shares = {task: study.share(study.arms[0], [task]) for task in study.tasks}
    known = {task: share for task, share in shares.items() if share and share.known}
    if same := [task for task, share in known.items() if share.sign == 0]:
        yield f"Inside the noise (the interval of the gap holds 0): {', '.join(same)}."
    if lost := [task for task, share in known.items() if share.sign < 0]:
        yield f"Worse than the untouched student beyond the noise: {', '.join(lost)}."


def _tasks_without_gap(study: Study) -> Iterator[str]:
    """Yield the tasks on which there is nothing to close, by the reason."""
    if study.share(study.arms[0], study.pooled) is None:
        return
    for why in dict.fromkeys(study.gapless.values()):
        yield f"No gap to close ({why}): {', '.join(task for task, own in study.gapless.items() if own == why)}."


def _not_numbers(study: Study) -> Iterator[str]:
    """Yield the scores that are no numbers: their means are none either, and nothing is said of them."""
    found = [
        f"{arm.label} on {task}"
        for arm in study.rows
        for task in study.tasks
        if math.isnan(study.score(arm, [task]).value)
    ]
    if found:
        yield f"No number, and in no mean or comparison: {', '.join(found)}."


def _seeds(study: Study) -> Iterator[str]:
    """Yield what seeds there are, where one alone or different ones stand behind the arms."""
    seeds = Counter(arm.seeds for arm in study.arms)
    if len(seeds) > 1:
        told = (
            f"{', '.join(map(str, own))} ({count} arm{'s' * (count > 1)})" for own, count in seeds.items()
        )
        yield f"Arms have different seeds: {'; '.join(told)}."
    if len(study.arms) > 1 and all(len(own) == 1 for own in seeds):
        yield "One seed of each arm: the intervals cover the test rows, and not the draw of the seed."
