"""The result of an evaluation: scores with standard errors, the answers behind them, and versions."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pkt import saving


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """One metric of one task over `n` test rows; `stderr` is the standard error over rows."""

    task: str
    metric: str
    value: float
    stderr: float
    n: int
    higher_is_better: bool


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One model's scores; a task's first score is its headline.

    Attributes:
        scores: in the order of the tasks asked for.
        samples: task -> one record per test row: id, prompt, output, target, correct, and fields of its metric.
        versions: of lm-eval and of each task.
        cut: task -> number of rows whose prompt exceeded the context and was cut on the left, where there are any.
        decoding: task -> the settings under which its answers were generated, and the model's own, which may have been
            left out.
    """

    scores: tuple[TaskScore, ...]
    samples: dict[str, list[dict[str, Any]]]
    versions: dict[str, str]
    cut: dict[str, int] = field(default_factory=dict)
    decoding: dict[str, dict[str, Any]] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write everything as JSON."""
        saving.save(self, path)

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        """Read what `save` wrote; see `pkt.saving.load`."""
        return saving.load(cls, path)
