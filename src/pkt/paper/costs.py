"""What each method costs, beside what it reaches: parameters, tokens, seconds, memory and disk."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from pkt.reporting.study import Study
from pkt.reporting.study_tables import BUDGET, cost_values, share_cell
from pkt.table import Table


def cost_table(study: Study) -> Table:
    """Return one row per arm, the cheapest in seconds first."""
    order = sorted(study.arms, key=lambda arm: statistics.fmean(cost_values(arm, "seconds") or [0.0]))
    rows = []
    for arm in order:
        cells = [_cell(cost_values(arm, key), unit) for key, unit in BUDGET.values()]
        rows.append((arm.label, *cells, share_cell(study, arm, study.tasks)))
    title = "extract, align and transfer together, no evaluation; mean over seeds [lowest, highest] where they differ"
    return Table(title=title, columns=("", *BUDGET, "gap closed"), rows=tuple(rows))


def costs(studies: Sequence[Study]) -> dict[str, dict[str, list[float]]]:
    """Return arm -> cost -> its value of every seed, in the units of a run's budget."""
    return {
        arm.label: {key: cost_values(arm, key) for key, _ in BUDGET.values()}
        for study in studies
        for arm in study.arms
    }


def _cell(values: Sequence[float], unit: int) -> str:
    """Return ``108 [104, 113]``, or the mean alone where the seeds agree to the digits shown."""
    if not values:
        return "–"
    low, mean, high = (
        f"{value / unit:,.0f}" for value in (min(values), statistics.fmean(values), max(values))
    )
    return mean if low == high else f"{mean} [{low}, {high}]"
