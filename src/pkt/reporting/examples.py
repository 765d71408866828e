"""Answered rows for people to read: one row of a task, what each model made of it, and whether that was right."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pkt.evaluation.results import Evaluation

WHO = {"student": "student before", "transferred": "student after", "teacher": "teacher"}
Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ExampleTable:
    """Rows of one task with a column per model for its output, and one for whether it was right (None: not graded)."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def is_right(record: Record) -> bool | None:
    """Return whether a row counts as right: of several drawn answers half or more; None where there is no mark."""
    mark = record.get("correct")
    return None if mark is None else float(mark) >= 0.5


def records_by_row(by_role: Mapping[str, Sequence[Record]]) -> dict[str, dict[str, Record]]:
    """Return row id -> role -> its first record of that row, rows in the order in which they first come."""
    rows: dict[str, dict[str, Record]] = {}
    for role, records in by_role.items():
        for record in records:
            rows.setdefault(str(record["id"]), {}).setdefault(role, record)
    return rows


def example_tables(evaluations: Mapping[str, Evaluation], most: int) -> dict[str, ExampleTable]:
    """Return task -> answered rows.

    Which rows are shown depends on their ids alone (the smallest SHA-256), so every run and every model shows the
    same ones, whatever was right or wrong; they are in the order of the task.

    Args:
        evaluations: role -> scores with the answers behind them.
        most: rows per task.
    """
    roles = [role for role in WHO if role in evaluations]
    columns = [
        "id",
        "prompt",
        "target",
        *(head for role in roles for head in (WHO[role], f"{WHO[role]}: right")),
    ]
    tables = {}
    for task in evaluations[roles[0]].samples if roles and most else ():
        rows = records_by_row({role: evaluations[role].samples.get(task, []) for role in roles})
        rows = {row_id: own for row_id, own in rows.items() if roles[0] in own}
        chosen = set(sorted(rows, key=lambda row_id: hashlib.sha256(row_id.encode()).hexdigest())[:most])
        cells = []
        for row_id, own in rows.items():
            given = [own.get(role, {}) for role in roles]
            outputs = [cell for one in given for cell in (one.get("output", ""), one.get("correct"))]
            cells.append((row_id, own[roles[0]]["prompt"], own[roles[0]]["target"], *outputs))
        shown = tuple(row for row in cells if row[0] in chosen)
        tables[task] = ExampleTable(columns=tuple(columns), rows=shown)
    return tables
