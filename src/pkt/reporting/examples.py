"""Answered rows for people to read: one row of a task, what each model made of it, and whether that was right."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pkt.evaluation.results import Evaluation

SHOWN = {"student": "student before", "transferred": "student after", "teacher": "teacher"}


@dataclass(frozen=True, kw_only=True)
class ExampleTable:
    """Rows of one task with a column per model for its output, and one for whether it was right (None: not graded)."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def example_tables(evaluations: Mapping[str, Evaluation], most: int) -> dict[str, ExampleTable]:
    """Return task -> answered rows.

    Which rows are shown depends on their ids alone (the smallest SHA-256), so every run and every model shows the
    same ones, whatever was right or wrong; they are in the order of the task.

    Args:
        evaluations: role -> scores with the answers behind them.
        most: rows per task.
    """
    roles = [role for role in SHOWN if role in evaluations]
    found = {}
    for task, first in evaluations[roles[0]].samples.items() if roles and most else ():
        answers = {role: _by_id(evaluations[role].samples.get(task, [])) for role in roles}
        records = _by_id(first)
        chosen = set(sorted(records, key=_draw)[:most])
        heads = [head for role in roles for head in (SHOWN[role], f"{SHOWN[role]}: right")]
        rows = []
        for row_id, record in records.items():
            if row_id not in chosen:
                continue
            given = [answers[role].get(row_id, {}) for role in roles]
            cells = [cell for one in given for cell in (one.get("output", ""), one.get("correct"))]
            rows.append((row_id, record["prompt"], record["target"], *cells))
        found[task] = ExampleTable(columns=("id", "prompt", "target", *heads), rows=tuple(rows))
    return found


def _by_id(records: Any) -> dict[str, Mapping[str, Any]]:
    """Return the first record of each row."""
    found: dict[str, Mapping[str, Any]] = {}
    for record in records:
        found.setdefault(str(record["id"]), record)
    return found


def _draw(row_id: str) -> str:
    return hashlib.sha256(row_id.encode()).hexdigest()
