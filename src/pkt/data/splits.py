"""The splits of a benchmark: the union of its tasks' rows, checked, at the sizes asked for."""

from __future__ import annotations

from random import Random
from typing import Any

from datasets import Dataset

from pkt.config import BenchmarkConfig, DataConfig
from pkt.data.lengths import Fitting
from pkt.data.rows import validate
from pkt.data.suites import SUITES
from pkt.data.tasks import task
from pkt.errors import RequestError

SPLITS = ("extract", "align", "train", "validation")


def load_splits(
    benchmark: BenchmarkConfig, data: DataConfig, fitting: Fitting | None = None
) -> dict[str, Dataset]:
    """Return the extract, align, train and validation rows of a benchmark.

    Args:
        benchmark: names the tasks; each contributes `data.sizes` rows per split.
        data: sizes, shuffling, and the files of `benchmark=custom`.
        fitting: leaves out the real suites' rows that are too long.

    Raises:
        RequestError: an unknown task, an empty split, or rows that are not valid.
    """
    if not benchmark.tasks:
        raise RequestError("benchmark.tasks is empty; name at least one task.")
    tasks = dict.fromkeys(SPLITS, benchmark.tasks)
    if data.extract_tasks is not None:
        tasks["extract"] = data.extract_tasks
    return {
        split: validate(
            [row for name in tasks[split] for row in _drawn(name, split, data, benchmark, fitting)],
            source=f"{benchmark.name}/{split}",
        )
        for split in SPLITS
    }


def test_rows(
    name: str,
    data: DataConfig,
    benchmark: BenchmarkConfig | None = None,  # noqa: PT028  # not a test
) -> Dataset:
    """Return all test rows of one task; those of a real suite carry the upstream row as JSON (``doc``).

    Raises:
        RequestError: an unknown task, or no test rows.
    """
    return validate(task(name, data, benchmark)("test", None), source=f"{name}/test")


def validation_rows(name: str, data: DataConfig, benchmark: BenchmarkConfig) -> list[dict[str, Any]]:
    """Return one task's rows of the validation split, with what its scorer needs beside prompt and answer.

    Raises:
        RequestError: a real suite, whose validation rows carry no upstream row to score, or an unknown task.
    """
    if name in SUITES:
        raise RequestError(
            f"eval.split=validation: {name} is scored by lm-eval's own task, on test rows only; choose settings on "
            "another benchmark, or by the validation loss."
        )
    rows = _drawn(name, "validation", data, benchmark)
    validate(rows, source=f"{name}/validation")
    return rows


def _drawn(
    name: str, split: str, data: DataConfig, benchmark: BenchmarkConfig, fitting: Fitting | None = None
) -> list[dict[str, Any]]:
    """Return the first rows of a task's split, or with a seed a draw from all of them."""
    count = int(getattr(data.sizes, split))
    if count < 1:
        raise RequestError(f"data.sizes.{split}={count}: a split needs at least one row.")
    source = task(name, data, benchmark, fitting)
    if data.shuffle_seed is None:
        return source(split, count)
    rows = source(split, None)
    Random(f"{data.shuffle_seed}/{name}/{split}").shuffle(rows)
    return rows[:count]
