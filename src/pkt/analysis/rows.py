"""Which rows are looked at, and the mean over them with its standard error.

Shape suffixes: R rows, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor


def first_per_task(ids: Sequence[str], tasks: Sequence[str], count: int) -> list[int]:
    """Return the indices of the first rows of each task.

    Args:
        ids: of the rows; that of a task among several begins with ``<task>/``.
        tasks: names of the tasks. Rows whose ids name none of them count as one more.
        count: rows per task.
    """
    seen: dict[str, int] = {}
    chosen = []
    for index, row_id in enumerate(ids):
        prefix = row_id.partition("/")[0]
        task = prefix if len(tasks) > 1 and prefix in tasks else ""
        seen[task] = seen.get(task, 0) + 1
        if seen[task] <= count:
            chosen.append(index)
    return chosen


def over_rows(values_RL: Tensor) -> tuple[list[float], list[float] | None]:
    """Return the mean over the rows per layer, and its standard error (None for a single row).

    se = sqrt(sum_r (x_r - mean)^2 / (R - 1) / R)
    """
    values, rows = values_RL.double(), len(values_RL)
    means: list[float] = values.mean(0).tolist()
    if rows < 2:
        return means, None
    errors: list[float] = (values.std(0) / math.sqrt(rows)).tolist()
    return means, errors
