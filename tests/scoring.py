"""Tasks, their rows and their scores by name, for the tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pkt.config import BenchmarkConfig, DataConfig
from pkt.evaluation.harness import evaluate
from pkt.evaluation.results import Evaluation
from pkt.tasks.base import Given
from pkt.tasks.find import find

NANO = ("nano_knowledge", "nano_math", "nano_code", "nano_program")
SUITES = ("mmlu", "gsm8k", "humaneval", "mbpp", "humaneval_instruct", "mbpp_instruct")
Rows = list[dict[str, Any]]


def rows_of(
    name: str, split: str = "test", benchmark: BenchmarkConfig | None = None, data: DataConfig | None = None
) -> Rows:
    """Return a task's rows."""
    given = Given(benchmark=benchmark or BenchmarkConfig(name=name, tasks=[name]), data=data or DataConfig())
    return find(name).rows(split, given)


def scored(
    model: Any,
    tokenizer: Any,
    names: Sequence[str],
    rows: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    *,
    task_path: str | None = None,
    **options: Any,
) -> Evaluation:
    """Score a model on the test rows of some tasks, or on rows that are given."""
    tasks = [find(name, task_path) for name in names]
    rows = rows or {}
    asked = {task.name: rows.get(task.name) or task.scored("test", Given()) for task in tasks}
    return evaluate(model, tokenizer, tasks, asked, **options)
