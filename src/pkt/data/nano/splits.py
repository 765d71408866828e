"""Rows of the nano tasks, drawn by seed when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from random import Random
from typing import Any

from pkt.data.nano import arithmetic, functions, knowledge, programs
from pkt.data.nano.drafts import Draft, Drafter, split_of

TASKS = ("nano_knowledge", "nano_math", "nano_code", "nano_program")
SPLITS = ("extract", "align", "train", "validation", "test")
SIZES: dict[str, dict[str, int]] = {
    task: {
        "extract": 32,
        "align": 128,
        "train": 4000,
        "validation": 200,
        "test": 500 if task in ("nano_code", "nano_program") else 1000,
    }
    for task in TASKS
}
DRAFTERS: dict[str, Drafter] = {
    "nano_knowledge": knowledge.question,
    "nano_math": arithmetic.problem,
    "nano_code": functions.function,
    "nano_program": programs.program,
}


def drafts(task: str, split: str) -> Iterator[Draft]:
    """Yield a split's drafts, each prompt once, without end."""
    rng = Random(f"nano/{task}/{split}")
    seen: set[str] = set()
    while True:
        draft = DRAFTERS[task](rng)
        if draft.prompt not in seen and split_of(draft) == split:
            seen.add(draft.prompt)
            yield draft


@lru_cache(maxsize=32)
def _all_rows(task: str, split: str) -> tuple[dict[str, Any], ...]:
    stream = drafts(task, split)
    return tuple(
        {
            "id": f"{task}/{split}/{index}",
            "split": split,
            "prompt": draft.prompt,
            "answer": draft.answer,
            **draft.extras,
        }
        for index, draft in zip(range(SIZES[task][split]), stream, strict=False)
    )


def rows(task: str, split: str, *, count: int | None = None) -> list[dict[str, Any]]:
    """Return the first rows of a split.

    Args:
        task: One of `TASKS`.
        split: One of `SPLITS`.
        count: How many; `None` is all of them. A smaller count is a prefix of a larger one.

    Returns:
        Rows with `id`, `split`, `prompt` and `answer` (which carries its leading space); multiple choice adds
        `choices` and `label`, code adds `entry_point` and `test`, to be run after `prompt + answer`.

    Raises:
        ValueError: For an unknown task or split, or more rows than there are.
    """
    if task not in TASKS or split not in SPLITS:
        raise ValueError(f"no rows for {task}/{split}; tasks are {TASKS}, splits are {SPLITS}")
    size = SIZES[task][split]
    if count is not None and not 0 <= count <= size:
        raise ValueError(f"{task}/{split} has {size} rows, {count} were asked for; ask for 0 to {size}")
    return [dict(row) for row in _all_rows(task, split)[:count]]
