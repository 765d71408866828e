"""What the task files under tasks/ name with ``!function``: rows, prompts, answers; nothing here touches a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import datasets

from pkt.data import nano
from pkt.data.pystdlib import rows as library_rows
from pkt.errors import RequestError

Row = Mapping[str, Any]


def _nano(task: str, **asked: Any) -> dict[str, Any]:
    return _rows(task, partial(nano.rows, task, "test"), **asked)


def _rows(
    task: str,
    tested: Callable[[], Sequence[Row]],
    *,
    own_rows: Mapping[str, Sequence[Row]] | None = None,
    samples: int = 1,
    limit: int | None = None,
    **_: Any,
) -> dict[str, Any]:
    """Return a task's rows: the harness's (another split) or its test rows, each as often as it is to be answered."""
    rows = [dict(row) for row in (own_rows or {}).get(task, ()) or tested()][:limit]
    return {"test": datasets.Dataset.from_list([row for row in rows for _ in range(samples)])}


nano_knowledge, nano_math, nano_code, nano_program = (partial(_nano, task) for task in nano.TASKS)


def pystdlib(**asked: Any) -> dict[str, Any]:
    """Return the functions of the standard library that no split for training holds."""
    return _rows("pystdlib", partial(library_rows, "test"), **asked)


def custom(*, rows: Sequence[Row] | None = None, **asked: Any) -> dict[str, Any]:
    """Return the user's test rows, which the harness passes on as the task manager's metadata."""
    if not rows:
        raise RequestError(
            "task custom has no test rows: give data.test=<file.jsonl> with prompt, answer and id"
        )
    keys = ("prompt", "answer", "id")
    kept = [{key: row[key] for key in keys} for row in rows]
    return _rows("", lambda: kept, **asked)


def custom_once(**asked: Any) -> dict[str, Any]:
    """Return the rows of `custom`, each once: nothing is drawn for a likelihood."""
    return custom(**asked | {"samples": 1})


def prompt(doc: Row) -> str:
    """Return the prompt exactly as training sees it (a template would strip trailing newlines)."""
    return str(doc["prompt"])


def answer(doc: Row) -> str:
    """Return the answer with its leading white space."""
    return str(doc["answer"])


def choices(doc: Row) -> list[str]:
    """Return the options, each with the white space that separates it from the prompt."""
    return [choice if choice[:1].isspace() else f" {choice}" for choice in doc["choices"]]


def ungraded(doc: Row, results: Sequence[Any]) -> dict[str, float]:
    """Leave grading to pkt: programs run in one go, ratios need two numbers per row."""
    return {}
