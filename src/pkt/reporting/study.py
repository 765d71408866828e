"""Many runs in one table: seeds averaged, methods side by side, with what each cost.

    runs -> arms (the same settings, different seeds) -> one table per model and benchmark, best arm first

Standard errors cover both the draw of seeds and that of test rows (`evaluation.statistics.over_seeds`). Where the
answers behind the scores are at hand, arms are compared on the same rows (`evaluation.paired`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pkt.errors import RequestError, nearest
from pkt.evaluation.statistics import Estimate, mean_estimate, over_seeds
from pkt.reporting.comparison import Comparison, compare, pairs_table
from pkt.reporting.runs import Arm, Run, arms
from pkt.reporting.table import SHARES, Table, difference_cell, share_cell, share_interval_cell

# column -> (key in a run's budget, unit); the mean over the seeds of an arm is shown
BUDGET = {
    "trained": ("trained_parameters", 1),
    "steps": ("optimiser_steps", 1),
    "rows": ("train_rows", 1),
    "student ktokens": ("student_forward_tokens", 1000),
    "teacher ktokens": ("teacher_forward_tokens", 1000),
    "seconds": ("seconds", 1),
    "peak MB": ("peak_mb", 1),
    "stored MB": ("stored_bytes", 2**20),
}


def study_tables(runs: Sequence[Run], *, against: str | None = None, pairs: bool = False) -> list[Table]:
    """Return one table per model pair and benchmark.

    Args:
        runs: of any models and benchmarks.
        against: method or label of the arm that the others are compared with (default: `sft`, or the first arm).
        pairs: add a table of every arm against every other.

    Raises:
        RequestError: no run is of the method `against`.
    """
    tables = []
    for group in grouped(runs, against):
        heading = f"{group[0]['model']}, {group[0]['benchmark']}: "
        comparison = comparison_of(group, against)
        tables.append(study_table(group, heading, comparison))
        if pairs and (table := pairs_table(comparison, [arm.label for arm in ranked(group)], heading)):
            tables.append(table)
    return tables


def grouped(runs: Sequence[Run], against: str | None = None) -> list[list[Run]]:
    """Return the runs of each model pair and benchmark (with equal tasks), in the order in which they first come.

    Args:
        runs: of any models and benchmarks.
        against: method or label of an arm that has to be among them.

    Raises:
        RequestError: no run is of the method `against`.
    """
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault((run["model"], run["benchmark"], *tasks_of([run])), []).append(run)
    if against is not None:
        _check(against, groups.values())
    return list(groups.values())


def _check(against: str, groups: Iterable[Sequence[Run]]) -> None:
    found = [arm for group in groups for arm in arms(group)]
    known = sorted({str(arm.runs[0]["method"]) for arm in found} | {arm.label for arm in found})
    if against not in known:
        raise RequestError(
            f"no run to compare with is called {against!r}{nearest(against, known)}: there are {', '.join(known)}"
        )


def comparison_of(runs: Sequence[Run], against: str | None = None) -> Comparison:
    """Compare the arms of one pair and benchmark with the one called `against`, else `sft`, else the first."""
    found, tasks = arms(runs), tasks_of(runs)
    named = [arm for arm in found if arm.label == against]
    named += [arm for arm in found if arm.runs[0]["method"] == against]
    named += [arm for arm in found if arm.runs[0]["method"] == "sft"]
    metrics = [found[0].runs[0]["scores"]["transferred"][task]["metric"] for task in tasks]
    averaged = all(metric in SHARES for metric in metrics)  # else the first task's own score is compared
    return compare(
        found,
        tasks,
        [*named, *found][0],
        compared=tasks if averaged else tasks[:1],
        points=metrics[0] in SHARES,
        what="mean over tasks, in points" if averaged else f"{tasks[0]}{unit_of(runs[0], tasks[0])}",
    )


def tasks_of(runs: Sequence[Run]) -> list[str]:
    """Return the tasks of runs of one pair and benchmark."""
    return list(next(iter(runs[0]["scores"].values())))


def study_table(runs: Sequence[Run], heading: str = "", comparison: Comparison | None = None) -> Table:
    """Return the table of one pair and benchmark: teacher, one row per arm by share of the gap closed, student.

    Args:
        runs: of one model pair and benchmark.
        heading: what the title starts with.
        comparison: of the arms, on the same rows; None shows no differences.
    """
    tasks, ordered = tasks_of(runs), ranked(runs)
    against = _against(comparison, tasks) if comparison and len(ordered) > 1 else ()
    blank = 2 + len(against) + len(BUDGET)
    rows = [_fixed_row("teacher", runs[0]["scores"].get("teacher"), tasks, blank)]
    rows += [_arm_row(arm, tasks, comparison, compared=bool(against)) for arm in ordered]
    rows.append(_fixed_row("student", runs[0]["scores"].get("student"), tasks, blank))
    heads = [f"{task}{unit_of(runs[0], task)}" for task in tasks]
    return Table(
        title=heading + _title(comparison, ordered),
        columns=("", *heads, "mean", "gap closed", *against, "seeds", *BUDGET),
        rows=tuple(row for row in rows if row),
    )


def ranked(runs: Sequence[Run]) -> list[Arm]:
    """Return the arms, best first; those without a gap come last."""
    found, tasks = arms(runs), tasks_of(runs)
    known = [arm for arm in found if arm.runs[0].get("gap_closed")]
    best_first = sorted(known, key=lambda arm: -_sortable(gap_estimate(arm, tasks).value))
    return best_first + [arm for arm in found if not arm.runs[0].get("gap_closed")]


def _against(comparison: Comparison, tasks: Sequence[str]) -> tuple[str, ...]:
    """Return the head of the column of differences, if there are any."""
    if comparison.difference(comparison.reference, comparison.reference) is None:
        return ()
    which = f": {comparison.what}" if len(comparison.compared) < len(tasks) else ""
    return (f"against {comparison.reference}{which}",)


def _title(comparison: Comparison | None, ordered: Sequence[Arm]) -> str:
    title = "mean ± standard error over seeds and rows; best first"
    if comparison is None:
        return title
    if not comparison.sampled:
        return (
            f"{title}; no differences: no graded answers of {comparison.reference} found"
            " (its store is elsewhere, or its tasks keep none)"
        )
    title += "; [95 % interval on the same rows], ≈ where it holds 0"
    if lacking := [task for task in comparison.compared if task not in comparison.tasks]:
        title += f"; no differences: no graded answers to {', '.join(lacking)}"
    missing = [arm.label for arm in ordered if arm.label not in comparison.sampled]
    return title + (f"; no answers to the same rows found of {', '.join(missing)}" if missing else "")


def _sortable(share: float) -> float:
    return -math.inf if math.isnan(share) else share


def unit_of(run: Run, task: str) -> str:
    """Return what the head of a task's column adds to its name."""
    score = next(iter(run["scores"].values()))[task]
    return "" if score["metric"] in SHARES or score.get("higher_is_better", True) else " (↓)"


def _arm_row(
    arm: Arm, tasks: Sequence[str], comparison: Comparison | None, *, compared: bool
) -> tuple[str, ...]:
    first = arm.runs[0]["scores"]["transferred"]
    shares = all(first[task]["metric"] in SHARES for task in tasks)
    return (
        arm.label,
        *(score_cell(score_estimate(arm, [task]), first[task]["metric"]) for task in tasks),
        score_cell(score_estimate(arm, tasks), first[tasks[0]]["metric"]) if shares else "–",
        gap_cell(arm, tasks, comparison),
        *([_difference_cell(arm, comparison)] if compared and comparison else []),
        str(len(arm.runs)),
        *(_budget_cell(arm, key, unit) for key, unit in BUDGET.values()),
    )


def score_estimate(arm: Arm, tasks: Sequence[str]) -> Estimate:
    """Return an arm's score, averaged over tasks and seeds."""
    scores = [run["scores"]["transferred"] for run in arm.runs]
    return over_seeds([mean_estimate([_estimate(one[task]) for task in tasks]) for one in scores])


def gap_cell(arm: Arm, tasks: Sequence[str], comparison: Comparison | None) -> str:
    """Return the share of the gap with its interval, or with its standard error where the answers are not there."""
    shares = arm.runs[0].get("gap_closed")
    if not shares:
        return ""
    known = [task for task in tasks if not math.isnan(shares[task]["value"])]
    found = comparison.gap(arm.label, known) if comparison else None
    return share_interval_cell(found) if found else share_cell(gap_estimate(arm, tasks))


def _difference_cell(arm: Arm, comparison: Comparison) -> str:
    if arm.label == comparison.reference:
        return ""
    found = comparison.difference(arm.label, comparison.reference)
    return difference_cell(found, points=comparison.points) if found else "–"


def _budget_cell(arm: Arm, key: str, unit: int) -> str:
    values = [float(run["budget"][key]) for run in arm.runs if key in run.get("budget", {})]
    return f"{statistics.fmean(values) / unit:,.0f}" if values else "–"


def gap_estimate(arm: Arm, tasks: Sequence[str]) -> Estimate:
    """Return an arm's mean share of the gap closed; the error takes teacher, student and arm as independent."""
    return over_seeds(
        [mean_estimate([_estimate(run["gap_closed"][task]) for task in tasks]) for run in arm.runs]
    )


def _fixed_row(
    label: str, scores: Mapping[str, Any] | None, tasks: Sequence[str], blank: int
) -> tuple[str, ...]:
    if scores is None:
        return ()
    estimates = [_estimate(scores[task]) for task in tasks]
    shares = all(scores[task]["metric"] in SHARES for task in tasks)
    mean = score_cell(mean_estimate(estimates), scores[tasks[0]]["metric"]) if shares else "–"
    cells = [score_cell(e, scores[task]["metric"]) for e, task in zip(estimates, tasks, strict=True)]
    return (label, *cells, mean, *[""] * blank)


def _estimate(data: Mapping[str, Any]) -> Estimate:
    return Estimate(value=data["value"], stderr=data["stderr"])


def score_cell(estimate: Estimate, metric: str) -> str:
    """Return per cent for shares of right answers, the plain number otherwise."""
    if metric in SHARES:
        return f"{100 * estimate.value:.1f} ± {100 * estimate.stderr:.1f}"
    return f"{estimate.value:.3f} ± {estimate.stderr:.3f}"
