"""What a tracker takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


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

    def artifact(self, name: str, kind: str, path: Path) -> None:
        """Take a file or a folder, such as a manifest."""

    def close(self) -> None:
        """Finish; nothing is taken afterwards."""


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

    def artifact(self, name: str, kind: str, path: Path) -> None:
        """Tell every member."""
        for member in self.members:
            member.artifact(name, kind, path)

    def close(self) -> None:
        """Close every member."""
        for member in reversed(self.members):
            member.close()
