"""What an evaluation gives: scores with standard errors, the answers behind them, and versions; JSON both ways."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


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
        samples: task -> one record per test row: id, prompt, output, target, correct, and what the metric adds.
        versions: lm-eval's, and each task's.
        cut: task -> rows whose prompt was too long for the context and was cut on the left; absent where none was.
    """

    scores: tuple[TaskScore, ...]
    samples: dict[str, list[dict[str, Any]]]
    versions: dict[str, str]
    cut: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return everything as JSON text."""
        scores = [asdict(score) for score in self.scores]
        content = {"scores": scores, "versions": self.versions, "cut": self.cut, "samples": self.samples}
        return json.dumps(content, ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Evaluation:
        """Read what `to_json` wrote."""
        content = json.loads(text)
        return cls(
            scores=tuple(TaskScore(**score) for score in content["scores"]),
            samples=content["samples"],
            versions=content["versions"],
            cut=content.get("cut", {}),
        )

    def save(self, path: Path) -> None:
        """Write `to_json` to a file."""
        path.write_text(self.to_json() + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        """Read what `save` wrote."""
        return cls.from_json(path.read_text(encoding="utf-8"))
