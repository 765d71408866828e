"""A drafted question and the hash that decides on which side of the hold-out it falls.

    draft.combo  -- sha256 --> side(combo):    train | validation | test     (what the model has to combine)
    draft.prompt -- sha256 --> bucket(prompt): extract | align | train       (only within the train side)

Hashing (never Python's salted `hash`) makes both a property of the text: no split depends on how many rows of
another one were asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

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
