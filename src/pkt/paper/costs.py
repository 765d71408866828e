"""What each method costs, beside what it reaches: parameters, tokens, seconds, memory and disk."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from pkt.reporting.runs import Arm, Run, arms
from pkt.reporting.study import BUDGET, comparison_of, gap_cell, tasks_of
from pkt.reporting.table import Table


def cost_table(runs: Sequence[Run]) -> Table:
    """Return one row per arm, the cheapest in seconds first.

    Args:
        runs: of one model pair and benchmark.
    """
    tasks, comparison = tasks_of(runs), comparison_of(runs)
    found = sorted(arms(runs), key=lambda arm: statistics.fmean(_values(arm, "seconds") or [0.0]))
    rows = tuple(
        (
            arm.label,
            *(_cell(_values(arm, key), unit) for key, unit in BUDGET.values()),
            gap_cell(arm, tasks, comparison),
        )
        for arm in found
    )
    title = "extract, align and transfer together, no evaluation; mean over seeds [lowest, highest] where they differ"
    return Table(title=title, columns=("", *BUDGET, "gap closed"), rows=rows)


def costs(runs: Sequence[Run]) -> dict[str, dict[str, list[float]]]:
    """Return arm -> cost -> its value of every seed, in the units of a run's budget."""
    return {arm.label: {key: _values(arm, key) for key, _ in BUDGET.values()} for arm in arms(runs)}


def _values(arm: Arm, key: str) -> list[float]:
    return [float(run["budget"][key]) for run in arm.runs if key in run.get("budget", {})]


def _cell(values: Sequence[float], unit: int) -> str:
    """Return ``108 [104, 113]``, or the mean alone where the seeds agree to the digits shown."""
    if not values:
        return "–"
    low, mean, high = (
        f"{value / unit:,.0f}" for value in (min(values), statistics.fmean(values), max(values))
    )
    return mean if low == high else f"{mean} [{low}, {high}]"
