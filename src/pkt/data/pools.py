"""Cut a pool of rows into disjoint splits."""

from __future__ import annotations

import hashlib
from typing import Any

from pkt.config import SplitSizes

Row = dict[str, Any]
FRONT = ("extract", "align", "validation")  # cut from the front of a pool; train is taken from its end
SHARE = 8  # each of them takes at most one row in so many of a pool that also trains


def divided(
    rows: list[Row], front: list[str], sizes: SplitSizes, *, trains: bool, seed: int
) -> dict[str, list[Row]]:
    """Cut a pool into disjoint splits, in an order that depends on ids and seed alone.

    Rows of one conversation stay together: the later ones hold the answers of the earlier ones.

    Args:
        rows: the pool, with ids.
        front: splits cut from its front.
        sizes: the largest number of rows in each; a split also takes at most an eighth of a pool that trains, or an
            equal part of one that does not.
        trains: whether the remaining rows are for training. They are taken from the other end, so that they change
            little with the sizes.
        seed: of the order.
    """
    order = sorted(rows, key=lambda row: hashlib.sha256(f"{seed}/{_talk(row)}".encode()).hexdigest())
    most = len(rows) // (SHARE if trains else max(1, len(front)))
    parts: dict[str, list[Row]] = {}
    start = 0
    for split in front:
        end = start + min(int(getattr(sizes, split)), most)
        parts[split] = order[start : (end := _between(order, start, end))]
        start = end
    if trains:
        parts["train"] = order[start:][::-1]
    return {split: [{**row, "split": split} for row in part] for split, part in parts.items()}


def _talk(row: Row) -> str:
    """Return what rows that stay together have in common."""
    return str(row.get("conversation", row["id"]))


def _between(order: list[Row], start: int, end: int) -> int:
    """Return the last place up to `end` between two conversations, or behind the first one where that is longer."""
    borders = [n for n in range(start + 1, len(order)) if _talk(order[n - 1]) != _talk(order[n])] + [
        len(order)
    ]
    return max((n for n in borders if n <= end), default=borders[0]) if end > start else end


def distinct(rows: list[Row], held: set[str]) -> list[Row]:
    """Return the first row of each question that is not in `held`, and add the questions to `held`.

    The rows have lost their column ``question``; rows with an empty answer are left out.
    """
    kept = []
    for row in rows:
        key = same(row["question"])
        if key not in held and row["answer"].strip():
            held.add(key)
            kept.append({name: value for name, value in row.items() if name != "question"})
    return kept


def same(question: str) -> str:
    """Return a question with its white space normalised, so that two writings of it compare equal."""
    return " ".join(question.split())
