"""Rows of the nano tasks: drafts drawn by seed, and the hash that decides on which side of the hold-out each falls.

    draft.combo  -- sha256 --> side(combo):    train | validation | test     (what the model has to combine)
    draft.prompt -- sha256 --> bucket(prompt): extract | align | train       (only within the train side)

Hashing (never Python's salted `hash`) makes both a property of the text: no split depends on how many rows of
another one were asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import Any, ClassVar

from pkt.tasks.base import Given, Row, RowTask

SIZES = {"extract": 32, "align": 128, "train": 4000, "validation": 200}
TEST_PERCENT = 20
VALIDATION_PERCENT = 8


@dataclass(frozen=True, kw_only=True)
class Draft:
    """One question before it is given to a split.

    Attributes:
        prompt: Text up to where the model takes over.
        answer: The continuation, with its leading space and without an end token.
        combo: What has to be combined; all drafts with an equal combo fall on the same side.
        extras: Further keys of the row (choices, label, test, entry_point).
    """

    prompt: str
    answer: str
    combo: str
    extras: dict[str, Any] = field(default_factory=dict)


Drafter = Callable[[Random], Draft]


def percent(text: str) -> int:
    """Map a text to 0..99, evenly and the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 100


def side(combo: str) -> str:
    """Say on which side of the hold-out a combination falls: `train`, `validation` or `test`."""
    value = percent(f"side/{combo}")
    if value < TEST_PERCENT:
        return "test"
    return "validation" if value < TEST_PERCENT + VALIDATION_PERCENT else "train"


def split_of(draft: Draft) -> str:
    """Say which split a draft belongs to; the train side is divided further by its prompt."""
    where = side(draft.combo)
    if where != "train":
        return where
    value = percent(f"split/{draft.prompt}")
    if value < 5:
        return "extract"
    return "align" if value < 18 else "train"


def drafts(drafter: Drafter, name: str, split: str) -> Iterator[Draft]:
    """Yield a split's drafts, each prompt once, without end."""
    rng = Random(f"nano/{name}/{split}")
    seen: set[str] = set()
    while True:
        draft = drafter(rng)
        if draft.prompt not in seen and split_of(draft) == split:
            seen.add(draft.prompt)
            yield draft


@lru_cache(maxsize=32)
def _rows(drafter: Drafter, name: str, split: str, count: int) -> tuple[Row, ...]:
    found = []
    for index, draft in zip(range(count), drafts(drafter, name, split), strict=False):
        row = {
            "id": f"{name}/{split}/{index}",
            "split": split,
            "prompt": draft.prompt,
            "answer": draft.answer,
        }
        found.append({**row, **draft.extras})
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class NanoTask(RowTask):
    """A task whose rows are drafted when they are asked for; its name is part of the seed.

    Attributes:
        drafter: writes a question.
        tests: rows of the test split.
    """

    drafter: ClassVar[Drafter]
    tests: ClassVar[int] = 1000

    def rows(self, split: str, given: Given) -> list[Row]:
        """See `Task`; an answer carries its leading space.

        Raises:
            ValueError: an unknown split.
        """
        sizes = SIZES | {"test": self.tests}
        if split not in sizes:
            raise ValueError(f"no split {split!r}; {self.name} has {', '.join(sizes)}")
        return [dict(row) for row in _rows(type(self).drafter, self.name, split, sizes[split])]
