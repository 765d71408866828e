"""What the scores of a study say in plain words, and what they do not."""

from __future__ import annotations

from collections.abc import Iterator

from pkt.reporting.study import Study


def findings(study: Study) -> tuple[str, ...]:
    """Return one sentence per finding."""
    return (*_ranking(study), *_verdicts(study), *_unchanged_tasks(study), *_tasks_without_gap(study))


def _ranking(study: Study) -> Iterator[str]:
    best = study.arms[0]
    share = study.share(best, study.tasks)
    if share and (share.interval or share.known):
        first = "Of these arms, " if len(study.arms) > 1 else ""
        verb = "closes most of the gap" if first else "closes this share of the gap"
        yield f"{first}{best.label} {verb} between student and teacher: {share.cell}."


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
    noise = [label for label, each in known.items() if each.holds_zero]
    better = [label for label, each in known.items() if not each.holds_zero and sign * each.value > 0]
    worse = [label for label, each in known.items() if not each.holds_zero and sign * each.value < 0]
    if noise:
        yield f"≈ Inside the noise against {reference} {rows}: {', '.join(noise)}."
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
    intervals = {task: share.interval for task, share in shares.items() if share and share.interval}
    if same := [task for task, interval in intervals.items() if interval.holds_zero]:
        yield f"Inside the noise (the interval of the gap holds 0): {', '.join(same)}."
    if lost := [task for task, interval in intervals.items() if interval.high < 0]:
        yield f"Worse than the untouched student beyond the noise: {', '.join(lost)}."


def _tasks_without_gap(study: Study) -> Iterator[str]:
    shares = {task: study.share(study.arms[0], [task]) for task in study.tasks}
    if none := [task for task, share in shares.items() if share and not (share.interval or share.known)]:
        yield f"No gap to close (teacher and student within two standard errors): {', '.join(none)}."
