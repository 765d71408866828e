"""Rows of prompts and answers: their columns, their checks, their fingerprint.

{"id": "task/train/0", "split": "train", "prompt": "...", "answer": " ...", columns of the task, for its scoring}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pkt.data.records import check_texts, records
from pkt.data.shapes import LAST, NAMES, labelled
from pkt.errors import RequestError

COLUMNS = ("prompt", "answer", "id")
SCHEMA = (*COLUMNS, "split")


@dataclass(frozen=True, kw_only=True)
class RowTable:
    """Rows with the columns of `SCHEMA`, to be read by row or by column.

    Attributes:
        rows: in order.
    """

    rows: tuple[Mapping[str, str], ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Mapping[str, str]]:
        return iter(self.rows)

    def __getitem__(self, column: str) -> list[str]:
        return [row[column] for row in self.rows]


def validate(rows: Sequence[Mapping[str, Any]], *, source: str = "rows") -> RowTable:
    """Check rows and put the columns of `SCHEMA` into one table; whatever else rows have is left out.

    Args:
        rows: the rows.
        source: what messages call them.

    Raises:
        RequestError: no rows, a missing or non-string field, an empty answer, or an id that occurs twice.
    """
    if not rows:
        raise RequestError(f"{source}: no rows; a split needs at least one.")
    seen: dict[str, int] = {}
    for index, row in enumerate(rows):
        check_texts(row, f"{source}, row {index + 1}", SCHEMA)
        if row["id"] in seen:
            raise RequestError(
                f"{source}: id {row['id']!r} occurs in rows {seen[row['id']] + 1} and {index + 1}; "
                "ids have to be unique."
            )
        seen[row["id"]] = index
    return RowTable(rows=tuple({key: row[key] for key in SCHEMA} for row in rows))


def from_file(
    path: str | Path,
    *,
    split: str,
    columns: Mapping[str, str] = MappingProxyType({}),
    supervise: str = LAST,
    chat: bool = False,
) -> list[dict[str, Any]]:
    """Read a file of rows in one of the shapes of `pkt.data.shapes`; other columns are not looked at.

    Args:
        path: the file, in one of the forms that `pkt.data.sources` reads.
        split: the split that its rows belong to.
        columns: what the file calls some of the columns (`data.columns`).
        supervise: which replies of a conversation (`data.supervise`).
        chat: prompts are put into a chat template, which takes conversations role by role.

    Raises:
        RequestError: no such file, or something in it that is no row, named by its line.
    """
    found = records(
        path,
        setting=f"data.{split}",
        split=split,
        names=(*NAMES, "id"),
        columns=columns,
        texts=partial(labelled, supervise=supervise, chat=chat),
    )
    return [row | {"split": split} for row in found]


def fingerprint(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a sha256 over the rows as canonical JSON, order included."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode())
        digest.update(b"\n")
    return digest.hexdigest()
