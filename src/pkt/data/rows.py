"""Rows of prompts and answers: their columns, their checks, their fingerprint.

{"id": "task/train/0", "split": "train", "prompt": "...", "answer": " ...", extra columns of the task}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from pkt.errors import RequestError, nearest

SCHEMA = ("prompt", "answer", "id", "split")


def validate(rows: Sequence[Mapping[str, Any]], *, source: str = "rows") -> Dataset:
    """Check rows and put them into one table; columns that a row lacks are None.

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
        _check(row, f"{source}, row {index + 1}", SCHEMA)
        if row["id"] in seen:
            raise RequestError(
                f"{source}: id {row['id']!r} occurs in rows {seen[row['id']] + 1} and {index + 1}; "
                "ids have to be unique."
            )
        seen[row["id"]] = index
    columns = dict.fromkeys([*SCHEMA, *(key for row in rows for key in row)])
    try:
        return Dataset.from_dict({key: [row.get(key) for row in rows] for key in columns})
    except (ValueError, TypeError) as error:  # pyarrow's errors are ValueErrors and TypeErrors
        raise RequestError(f"{source}: a column holds values of different types ({error}).") from error


def from_jsonl(path: str | Path, *, split: str) -> list[dict[str, Any]]:
    """Read a JSONL file of rows with prompt, answer and id.

    Args:
        path: the file.
        split: the split that its rows belong to.

    Raises:
        RequestError: no such file, or a line that is not a row, named by its number.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise RequestError(f"data.{split}={path}: no file at {file.absolute()}.")
    rows: list[dict[str, Any]] = []
    lines_of: dict[str, int] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        row = _parsed(line, f"{path}, line {number}")
        if row["id"] in lines_of:
            raise RequestError(
                f"{path}, line {number}: id {row['id']!r} is already on line {lines_of[row['id']]}; "
                "ids have to be unique."
            )
        lines_of[row["id"]] = number
        rows.append({**row, "split": split})
    if not rows:
        raise RequestError(f"data.{split}={path}: the file has no rows.")
    return rows


def fingerprint(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a sha256 over the rows as canonical JSON, order included."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _parsed(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise RequestError(f"{where}: not JSON ({error}); each line is one object.") from error
    if not isinstance(row, dict):
        raise RequestError(f"{where}: a {type(row).__name__}, not an object with prompt, answer and id.")
    _check(row, where, ("prompt", "answer", "id"))
    return row


def _check(row: Mapping[str, Any], where: str, keys: Sequence[str]) -> None:
    for key in keys:
        if key not in row:
            raise RequestError(
                f"{where}: '{key}' is missing{nearest(key, row)}; a row needs {', '.join(keys)}."
            )
        if not isinstance(row[key], str):
            raise RequestError(f"{where}: '{key}' is {type(row[key]).__name__}, not a string.")
    for key in ("prompt", "answer"):
        if not row[key]:
            raise RequestError(f"{where}: '{key}' is empty.")
