"""What the harness and a task tell each other: lm-eval configs one way, lm-eval's answers the other.

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
"""What lm-eval logs of one document under one filter."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One lm-eval task; a task of pkt's has one or more.

    Attributes:
        name: lm-eval's.
        config: its complete configuration, or lm-eval's own task object.
        ids: ids of its rows, in order; none where the rows are lm-eval's.
    """

    name: str
    config: Any
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Logged:
    """What lm-eval returned.

    Attributes:
        samples: part -> what it logged.
        hits: (context, continuation) -> `pkt.evaluation.scorer.Hits`.
        results: part -> lm-eval's own scores.
        higher_is_better: part -> metric -> whether it is.
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
    """Scores, and a record per row under the name that the scores have."""

    scores: list[TaskScore]
    samples: dict[str, list[Record]]


class Scorable(Protocol):
    """A task as the harness sees it."""

    @property
    def name(self) -> str:
        """What scores call it."""

    def check(self, sampling: Sampling) -> None:
        """Refuse ways of answering that make no sense for it (RequestError)."""

    def parts(self, rows: Rows, *, limit: int | None = None, samples: int = 1) -> list[Part]:
        """Return its lm-eval tasks, with at most `limit` rows, each as often as it is to be answered."""

    def grade(self, parts: Sequence[Part], logged: Logged) -> Graded:
        """Judge the answers."""
