"""The splits of a benchmark: the rows of all tasks that it trains on, checked, at the sizes asked for."""

from __future__ import annotations

from pkt.config import SPLITS, BenchmarkConfig, DataConfig
from pkt.data.rows import RowTable, validate
from pkt.data.sources import hub_name
from pkt.errors import RequestError
from pkt.tasks.base import Given, Row, Task, drawn
from pkt.tasks.find import find
from pkt.tasks.suite import Suite


def trained_on(benchmark: BenchmarkConfig) -> list[str]:
    """Return the names of the tasks whose train rows a transfer sees.

    Raises:
        RequestError: the list is empty.
    """
    names = benchmark.tasks if benchmark.train is None else benchmark.train
    if not names:
        key = "tasks" if benchmark.train is None else "train"
        raise RequestError(f"benchmark.{key} is empty; name at least one task.")
    return names


def load_splits(given: Given) -> dict[str, RowTable]:
    """Return the extract, align, train and validation rows of a benchmark, `data.sizes` of each task per split.

    Raises:
        RequestError: an unknown task, an empty split, or rows that are not valid.
    """
    benchmark, data = given.benchmark, given.data
    names = dict.fromkeys(SPLITS, trained_on(benchmark))
    if data.extract_tasks is not None:
        names["extract"] = data.extract_tasks
    tasks = {name: find(name, benchmark.task_path) for of in names.values() for name in of}
    return {
        split: validate(
            [row for name in names[split] for row in labelled(tasks[name], split, given)],
            source=f"{benchmark.name}/{split}",
        )
        for split in SPLITS
    }


def published(benchmark: BenchmarkConfig, data: DataConfig) -> list[str]:
    """Return the ids on the hub of the sets that the train rows are from, as far as pkt knows them."""
    found = {hub_name(str(data.train or ""))}
    for name in trained_on(benchmark):
        task = find(name, benchmark.task_path)
        found.add(task.train_set(benchmark) if isinstance(task, Suite) else None)
    return sorted(name for name in found if name)


def labelled(task: Task, split: str, given: Given) -> list[Row]:
    """Return the rows of a split with their answers.

    Where `data.sizes.labelled` says how many labels there are, extract and align rows are the first of them too: a
    method that fits a map or finds layers by labels beyond the train rows would have more than it is compared at.
    Validation rows stay, since they only choose settings.
    """
    sizes = given.data.sizes
    if sizes.labelled is None or split == "validation":
        return drawn(task, split, given)
    count = min(sizes.labelled, int(getattr(sizes, split)))
    return [{**row, "split": split} for row in drawn(task, "train", given)[:count]]
