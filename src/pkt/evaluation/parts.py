"""The data that pass between the harness and a task: lm-eval configs one way, lm-eval's answers the other.

task.parts(rows) -> Part, Part, ... -> lm-eval -> Logged -> task.grade(parts, logged) -> Graded
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pkt.evaluation.results import TaskScore
from pkt.evaluation.sampling import Sampling

Record = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]
Sample = Mapping[str, Any]
"""lm-eval's log of one document under one filter."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One lm-eval task; a task of pkt's consists of one or more.

    Attributes:
        name: its name in lm-eval.
        config: its complete configuration, or lm-eval's task object.
        ids: ids of its rows, in order; empty where lm-eval reads the rows itself.
    """

    name: str
    config: Any
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Logged:
    """The answers of a model, as lm-eval logged them.

    Attributes:
        samples: part -> the logged samples.
        hits: (context, continuation) -> `pkt.evaluation.scorer.Hits`.
        results: part -> lm-eval's own scores.
        higher_is_better: part -> metric -> whether a higher score is better.
        timeout: seconds per generated program.
    """

    samples: Mapping[str, Sequence[Sample]]
    hits: Mapping[Any, Any] = field(default_factory=dict)
    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    higher_is_better: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    timeout: float = 5.0

    def of(self, part: Part) -> list[tuple[str, Sample]]:
        """Return (row id, sample) of a part, in the order of its rows."""
        ordered = sorted(self.samples[part.name], key=lambda sample: int(sample["doc_id"]))
        return [(part.ids[int(sample["doc_id"])], sample) for sample in ordered]


@dataclass(frozen=True, kw_only=True)
class Graded:
    """Scores, and for each task that the scores name a record per row."""

    scores: list[TaskScore]
    samples: dict[str, list[Record]]


class Scorable(Protocol):
    """A task as the harness sees it."""

    @property
    def name(self) -> str:
        """The task's name in scores."""

    @property
    def decoding(self) -> str | None:
        """Whether answers are made as the model's generation settings say (``model``) or not (``neutral``).

        None: no answer is generated.
        """

    def check(self, sampling: Sampling) -> None:
        """Raise a RequestError where the task cannot be answered in this way."""

    def parts(self, rows: Rows, *, limit: int | None = None, samples: int = 1) -> list[Part]:
        """Return its lm-eval tasks with at most `limit` rows, each row `samples` times."""

    def grade(self, parts: Sequence[Part], logged: Logged) -> Graded:
        """Grade the answers."""
