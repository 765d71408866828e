"""The nano tasks' rows, by name."""

from __future__ import annotations

from typing import Any, cast

from pkt.tasks.base import Given
from pkt.tasks.find import find
from pkt.tasks.nano.drafts import SIZES as TRAINED
from pkt.tasks.nano.drafts import NanoTask

TASKS = ("nano_knowledge", "nano_math", "nano_code", "nano_program")
_FOUND = {name: cast(NanoTask, find(name)) for name in TASKS}
DRAFTERS = {name: type(task).drafter for name, task in _FOUND.items()}
SIZES = {name: TRAINED | {"test": task.tests} for name, task in _FOUND.items()}
SPLITS = tuple(SIZES[TASKS[0]])


def rows(task: str, split: str, *, count: int | None = None) -> list[dict[str, Any]]:
    """Return the first rows of a split."""
    return _FOUND[task].rows(split, Given())[:count]
