"""The tasks that rows come from: name -> rows of a split, in the task's own order.

A task is a function of a split ("extract", "align", "train", "validation", "test") that returns its rows;
sizes and shuffling are the business of `pkt.data.splits`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pkt.config import BenchmarkConfig, DataConfig
from pkt.data.custom import custom_rows
from pkt.data.lengths import Fitting
from pkt.data.suites import SUITES, Suite
from pkt.errors import RequestError, nearest

Rows = list[dict[str, Any]]
Task = Callable[[str, int | None], Rows]
"""(split, count or None for all) -> rows; fewer than `count` where the split has fewer."""


def _nano(name: str) -> Callable[[DataConfig], Task]:
    def build(_data: DataConfig) -> Task:
        def rows(split: str, count: int | None) -> Rows:
            from pkt.data import nano

            size = nano.SIZES[name][split]
            return nano.rows(name, split, count=None if count is None else min(count, size))

        return rows

    return build


def _pystdlib(_data: DataConfig) -> Task:
    def rows(split: str, count: int | None) -> Rows:
        from pkt.data import pystdlib

        found: Rows = pystdlib.rows(split, count=None)
        return found if count is None else found[:count]

    return rows


def _custom(data: DataConfig) -> Task:
    return lambda split, count: custom_rows(data, split)[:count]


def _suite(suite: Suite, data: DataConfig, benchmark: BenchmarkConfig, fitting: Fitting | None) -> Task:
    def rows(split: str, count: int | None) -> Rows:
        return suite.rows(split, benchmark, data.sizes, data.shuffle_seed, fitting)[:count]

    return rows


TASKS: dict[str, Callable[[DataConfig], Task]] = {
    "nano_knowledge": _nano("nano_knowledge"),
    "nano_math": _nano("nano_math"),
    "nano_code": _nano("nano_code"),
    "nano_program": _nano("nano_program"),
    "pystdlib": _pystdlib,
    "custom": _custom,
}


def task(
    name: str,
    data: DataConfig,
    benchmark: BenchmarkConfig | None = None,
    fitting: Fitting | None = None,
) -> Task:
    """Return a task by name.

    Args:
        name: one of `TASKS`, or a real benchmark.
        data: sizes, seed and files.
        benchmark: where the real suites' data lies; None is the hub.
        fitting: leaves out those suites' rows that are too long to train on; None keeps all.

    Raises:
        RequestError: no such task.
    """
    if name in SUITES:
        return _suite(SUITES[name], data, benchmark or BenchmarkConfig(name=name, tasks=[name]), fitting)
    if name not in TASKS:
        known = [*TASKS, *SUITES]
        raise RequestError(f"no task '{name}'{nearest(name, known)}; tasks are {', '.join(known)}.")
    return TASKS[name](data)
