"""Which rows are looked at, and the mean over them with its standard error.

Shape suffixes: R rows, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pkt.late import Tensor


def first_per_task(ids: Sequence[str], tasks: Sequence[str], count: int) -> list[int]:
    """Return the indices of the first rows of each task.

    Args:
        ids: of the rows; with several tasks, an id begins with its task's name and a slash.
        tasks: names of the tasks, which may have slashes of their own. Rows of none of them count as one more task.
        count: rows per task.
    """
    seen: dict[str, int] = {}
    chosen = []
    for index, row_id in enumerate(ids):
        fitting = [task for task in tasks if row_id.startswith(f"{task}/")] if len(tasks) > 1 else []
        task = max(fitting, key=len, default="")
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
