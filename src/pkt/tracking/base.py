"""The tracker of a run: takes its numbers, tables and figures, and hands each as one record to every sink.

    stages ──log, table, ...──> Tracker ──take(kind, record)──> `metrics.jsonl`, W&B

A record has the fields of a line of `metrics.jsonl`, so that lines that were read back can be handed to a sink again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class TrackedArtifact:
    """A stage's result as a tracker knows it: what it is, what it was made from, and whether this run made it.

    Attributes:
        name: the same for all versions, such as ``alignment-nano``.
        kind: ``model``, ``extraction``, ``alignment``, ``checkpoint`` or ``scores``.
        key: content key; two runs that name the same one mean the same thing.
        content: what determines it, as plain data; equal content is the same version.
        facts: what else is known of it, such as seconds and the command.
        inputs: ``<name>:<key>`` of what it was made from.
        made: whether this run computed it; it was reused otherwise.
        folder: where its files are, if it has any.
    """

    name: str
    kind: str
    key: str
    content: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    made: bool = True
    folder: Path | None = None

    @property
    def address(self) -> str:
        """How other artifacts name it."""
        return f"{self.name}:{self.key}"


class Sink(Protocol):
    """Where records go; it raises nothing because a service is down."""

    def take(self, kind: str, record: Record) -> None:
        """Take one record: ``config``, ``metrics``, ``table``, ``figure``, ``page``, ``summary`` or ``artifact``."""

    def close(self, exit_code: int) -> None:
        """Finish; nothing is taken afterwards. An exit code other than 0 marks the run as failed."""


class Tracker:
    """Takes what one run has to show.

    Args:
        sinks: get every record in this order; closed in reverse.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self.sinks = tuple(sinks)

    def config(self, values: Mapping[str, Any]) -> None:
        """Take the resolved request."""
        self._tell("config", values=values)

    def log(self, metrics: Mapping[str, float], step: int, stage: str) -> None:
        """Take metrics of one step; they are called `<stage>/<name>`."""
        if metrics:
            values = {f"{stage}/{name}": value for name, value in metrics.items()}
            self._tell("metrics", step=step, values=values)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Take a table."""
        self._tell("table", name=name, columns=columns, rows=rows)

    def figure(self, name: str, path: Path) -> None:
        """Take a picture file."""
        self._tell("figure", name=name, path=path)

    def page(self, name: str, path: Path) -> None:
        """Take an HTML file."""
        self._tell("page", name=name, path=path)

    def summary(self, values: Mapping[str, float]) -> None:
        """Take the run's final numbers."""
        self._tell("summary", values=values)

    def artifact(self, item: TrackedArtifact) -> None:
        """Take a stage's result; its inputs have to come before it."""
        self._tell("artifact", item=item)

    def close(self, exit_code: int = 0) -> None:
        """Finish; nothing is taken afterwards. An exit code other than 0 marks the run as failed."""
        for sink in reversed(self.sinks):
            sink.close(exit_code)

    def _tell(self, kind: str, **record: Any) -> None:
        for sink in self.sinks:
            sink.take(kind, record)
