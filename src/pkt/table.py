"""A table of text: methods, reports and analyses make it; the console, Markdown, LaTeX and W&B show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Table:
    """A title, column names and rows of text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def from_data(cls, title: str, data: Mapping[str, Any]) -> Table:
        """Read a table back from JSON with ``columns`` and ``rows``; whatever is in a cell becomes text."""
        columns, *rows = (tuple(map(str, cells)) for cells in (data["columns"], *data["rows"]))
        return cls(title=title, columns=columns, rows=tuple(rows))

    def markdown(self) -> str:
        """Return the table as GitHub Markdown, numbers aligned right."""
        rule = "|---|" + "---:|" * (len(self.columns) - 1)
        return "\n".join([_line(self.columns), rule, *map(_line, self.rows)])


def _line(cells: Sequence[str]) -> str:
    """Return a row; a bar or a line break in a cell would make another one."""
    return "| " + " | ".join(" ".join(cell.replace("|", r"\|").split("\n")) for cell in cells) + " |"
