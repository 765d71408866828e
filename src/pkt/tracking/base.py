"""What a tracker takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class TrackedArtifact:
    """A stage's result as a tracker knows it: what it is, what it was made from, and whether this run made it.

    Attributes:
        name: what versions of the same thing share, such as ``alignment-nano``.
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


class Tracker(Protocol):
    """Takes the numbers, tables and figures of one run; no method raises because a service is down."""

    def config(self, values: Mapping[str, Any]) -> None:
        """Take the resolved request."""

    def log(self, metrics: Mapping[str, float], step: int, stage: str) -> None:
        """Take metrics of one step; they are called `<stage>/<name>`."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Take a table."""

    def figure(self, name: str, path: Path) -> None:
        """Take a picture file."""

    def summary(self, values: Mapping[str, float]) -> None:
        """Take the run's final numbers."""

    def artifact(self, item: TrackedArtifact) -> None:
        """Take a stage's result; its inputs are told before it."""

    def close(self, exit_code: int = 0) -> None:
        """Finish; nothing is taken afterwards. An exit code other than 0 says that the run failed."""


@dataclass(frozen=True)
class Trackers:
    """Several trackers as one.

    Attributes:
        members: told in this order; closed in reverse.
    """

    members: tuple[Tracker, ...]

    def config(self, values: Mapping[str, Any]) -> None:
        """Tell every member."""
        for member in self.members:
            member.config(values)

    def log(self, metrics: Mapping[str, float], step: int, stage: str) -> None:
        """Tell every member."""
        for member in self.members:
            member.log(metrics, step, stage)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Tell every member."""
        for member in self.members:
            member.table(name, columns, rows)

    def figure(self, name: str, path: Path) -> None:
        """Tell every member."""
        for member in self.members:
            member.figure(name, path)

    def summary(self, values: Mapping[str, float]) -> None:
        """Tell every member."""
        for member in self.members:
            member.summary(values)

    def artifact(self, item: TrackedArtifact) -> None:
        """Tell every member."""
        for member in self.members:
            member.artifact(item)

    def close(self, exit_code: int = 0) -> None:
        """Close every member."""
        for member in reversed(self.members):
            member.close(exit_code)
