"""Read a file of prompts without labels; whatever answers stand in it are not looked at.

{"prompt": "...", "id": "7", "test": "assert ...", "entry_point": "f"}       all but the prompt may be missing
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

from pkt.data.files import fault, read
from pkt.errors import RequestError, nearest

TRAIN = "train"  # the value of data.unlabelled that is no task and no file
COLUMNS = ("id", "prompt", "test", "entry_point")
"""What is known of a row without a label. Its test says which answers are right and is not one of them."""


def is_file(source: str, tasks: Container[str]) -> bool:
    """Return whether `data.unlabelled` names a file: it looks like a path, or such a file is there and no such task.

    Args:
        source: the setting.
        tasks: names of tasks.
    """
    if source == TRAIN or source in tasks:
        return False
    return "/" in source or "." in source or source.startswith("~") or Path(source).is_file()


def unlabelled(row: dict[str, Any]) -> dict[str, str]:
    """Return a row of a task without its answer."""
    return {column: row[column] for column in COLUMNS if row.get(column) is not None}


def from_file(path: str | Path) -> list[dict[str, str]]:
    """Read prompts from a file in one of the forms that `pkt.data.files` reads.

    Args:
        path: the file.

    Raises:
        RequestError: no such file, no rows, or something in it that is no prompt, named by its line.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise RequestError(f"data.unlabelled={path}: no file at {file.absolute()}.")
    rows: list[dict[str, str]] = []
    seen: dict[str, str] = {}
    for place, row in read(file, COLUMNS):
        where = f"{path}, {place}"
        if not isinstance(row, dict):
            raise RequestError(f"{where}: {type(row).__name__}, not an object with a prompt.")
        found = unlabelled(row)
        _check(found, row, where)
        found.setdefault("id", f"{file.stem}/{place}")
        if found["id"] in seen:
            raise RequestError(
                f"{where}: id {found['id']!r} is already on {seen[found['id']]}; ids have to be unique."
            )
        seen[found["id"]] = place
        rows.append(found)
    if not rows:
        raise RequestError(f"data.unlabelled={path}: the file has no rows.")
    return rows


def _check(found: dict[str, str], row: dict[str, Any], where: str) -> None:
    if "prompt" not in found:
        raise RequestError(f"{where}: 'prompt' is missing{nearest('prompt', row)}; a row needs a prompt.")
    for column, value in found.items():
        if wrong := fault(value):
            raise RequestError(f"{where}: '{column}' {wrong}.")
    if not found["prompt"]:
        raise RequestError(f"{where}: 'prompt' is empty.")
