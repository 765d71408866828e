"""A pool of upstream rows and how it is cut into disjoint splits."""

from __future__ import annotations

import hashlib
from typing import Any

from pkt.config import SplitSizes

Row = dict[str, Any]
FRONT = ("extract", "align", "validation")  # cut from the front of a pool; train is taken from its end
SHARE = 8  # of a pool that also trains, each of them takes at most one row in so many


def divided(
    rows: list[Row], front: list[str], sizes: SplitSizes, *, trains: bool, seed: int
) -> dict[str, list[Row]]:
    """Cut a pool into disjoint splits, in an order that depends on ids and seed alone.

    Args:
        rows: the pool, with ids.
        front: splits cut from its front.
        sizes: how many rows each takes, at most; and at most an eighth of a pool that also trains, or an equal part.
        trains: whether the rest is for training (from the other end, so it changes little with the sizes).
        seed: of the order.
    """
    order = sorted(rows, key=lambda row: hashlib.sha256(f"{seed}/{row['id']}".encode()).hexdigest())
    most = len(rows) // (SHARE if trains else max(1, len(front)))
    parts: dict[str, list[Row]] = {}
    start = 0
    for split in front:
        size = min(int(getattr(sizes, split)), most)
        parts[split] = order[start : start + size]
        start += size
    if trains:
        parts["train"] = order[start:][::-1]
    return parts


def distinct(rows: list[Row], held: set[str]) -> list[Row]:
    """Keep the first row of each question, without it; none of those `held`, which grows by what is kept."""
    kept = []
    for row in rows:
        key = same(row["question"])
        if key not in held and row["answer"].strip():
            held.add(key)
            kept.append({name: value for name, value in row.items() if name != "question"})
    return kept


def same(question: str) -> str:
    """Return what two writings of a question share."""
    return " ".join(question.split())
