"""Read a file of prompts without labels; whatever answers stand in it are not looked at.

{"prompt": "...", "id": "7", "test": "assert ...", "entry_point": "f"}       all but the prompt may be missing
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pkt.data.records import records
from pkt.data.shapes import NAMES, asked

TRAIN = "train"  # the value of data.unlabelled that is no task and no file
PROMPT = ("prompt", "instruction", "input")  # columns that a prompt is made of
MORE = ("id", "test", "entry_point")
"""What may be known of a row without a label. Its test says which answers are right and is not one of them."""


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
    return {column: row[column] for column in ("prompt", *MORE) if row.get(column) is not None}


def from_file(path: str | Path, columns: Mapping[str, str] = MappingProxyType({})) -> list[dict[str, str]]:
    """Read prompts from a file in one of the forms that `pkt.data.sources` reads.

    Args:
        path: the file.
        columns: what the file calls some of the columns (`data.columns`); those of answers are not read.

    Raises:
        RequestError: no such file, no rows, or something in it that is no prompt, named by its line.
    """
    return records(
        path,
        setting="data.unlabelled",
        split=TRAIN,
        names=(*PROMPT, *MORE),
        columns={own: theirs for own, theirs in columns.items() if own not in {*NAMES} - {*PROMPT}},
        texts=partial(asked, more=MORE[1:]),
    )
