"""Rows of the nano tasks: drafts drawn with a seed, and hashes that assign each draft to a split.

    draft.combo  -- sha256 --> side:      train | validation | test     (by the facts that an answer combines)
    draft.prompt -- sha256 --> split_of:  extract | align | train       (only within the train side)

Because the text alone decides (sha256, not Python's salted `hash`), no split depends on how many rows of another one
were asked for. No combination of facts in a test row occurs in a train row.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from pkt.manifest import content_key
from pkt.remembered import recall, remember
from pkt.tasks.base import Given, Row, RowTask

SIZES = {"extract": 32, "align": 128, "train": 2000, "validation": 200}
TEST_PERCENT = 25
VALIDATION_PERCENT = 15
EDITION = {"test": "/2"}
"""Of a split's seed: rows that were scored while the world was still being made are not scored again."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """One question before it is given to a split.

    Attributes:
        prompt: the text that the model continues.
        answer: the continuation, with its leading space and without an end token.
        combo: names the facts or numbers that the answer combines; drafts of one combination are on one side.
        extras: further columns of the row (choices, label, test, entry_point).
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
    """Return the side of a combination: `train`, `validation` or `test`."""
    value = percent(f"side/{combo}")
    if value < TEST_PERCENT:
        return "test"
    return "validation" if value < TEST_PERCENT + VALIDATION_PERCENT else "train"


def split_of(draft: Draft) -> str:
    """Return the split of a draft; the train side is divided further by the prompt."""
    where = side(draft.combo)
    if where != "train":
        return where
    value = percent(f"split/{draft.prompt}")
    if value < 5:
        return "extract"
    return "align" if value < 18 else "train"


def drafts(drafter: Drafter, name: str, split: str) -> Iterator[Draft]:
    """Yield drafts of a split, each prompt once, without end."""
    rng = Random(f"nano/{name}/{split}{EDITION.get(split, '')}")
    seen: set[str] = set()
    while True:
        draft = drafter(rng)
        if draft.prompt not in seen and split_of(draft) == split:
            seen.add(draft.prompt)
            yield draft


@lru_cache(maxsize=32)
def _rows(drafter: Drafter, name: str, split: str, count: int, kept: Path | None) -> tuple[Row, ...]:
    """Return rows, as they are remembered or else drawn; what is remembered holds as long as the code that draws."""
    about = {"code": _code(), "python": sys.version_info[:2], "of": [drafter.__module__, name, split, count]}
    file = kept / f"drawn-{content_key(about)}.json" if kept and _is_own(drafter) else None
    if file and (known := recall(file, "the rows are drawn again")):
        return tuple(json.loads(known["rows"]))
    found = _drawn(drafter, name, split, count)
    if file:
        remember(file, {"rows": json.dumps(found)})
    return found


def _is_own(drafter: Drafter) -> bool:
    return drafter.__module__.rpartition(".")[0] == __name__.rpartition(".")[0]


@cache
def _code() -> str:
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _drawn(drafter: Drafter, name: str, split: str, count: int) -> tuple[Row, ...]:
    found = []
    for index, draft in zip(range(count), drafts(drafter, name, split), strict=False):
        row = {"id": f"{name}/{split}/{index}", "split": split}
        found.append(row | {"prompt": draft.prompt, "answer": draft.answer} | draft.extras)
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class NanoTask(RowTask):
    """A task whose rows are generated when they are asked for; its name is part of their seed.

    Attributes:
        drafter: makes one question.
        tests: number of test rows.
    """

    drafter: ClassVar[Drafter]
    tests: ClassVar[int] = 500

    def rows(self, split: str, given: Given) -> list[Row]:
        """See `Task`; an answer has its leading space."""
        sizes = SIZES | {"test": self.tests}
        return [dict(row) for row in _rows(type(self).drafter, self.name, split, sizes[split], given.kept)]
