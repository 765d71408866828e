"""How the cost grows with each size: a step, or a whole training, at some values of one size, and the fitted slope.

Seconds ~ size^slope: a slope of 1 is cost in proportion, 0 is cost that does not depend on it. Medians of both ways,
taken in turns.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benches.case import Case
from benches.measure import WAYS, alternating, clock
from benches.shape import TINY, Shape

BASE = Shape(
    teacher_depth=12, teacher_width=384, student_depth=8, student_width=256, layer=6, vocabulary=8000, rows=4,
    tokens=64,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One size that varies.

    Attributes:
        name: of the size, for files and the plot.
        case: the work whose cost is measured.
        values: of the size.
        at: the shape at a value, from a base.
    """

    name: str
    case: str
    values: tuple[int, ...]
    at: Callable[[Shape, int], Shape]


def _deep(base: Shape, depth: int) -> Shape:
    return replace(base, teacher_depth=3 * depth // 2, student_depth=depth, layer=max(1, 3 * depth // 4))


def _wide(base: Shape, width: int) -> Shape:
    return replace(base, teacher_width=3 * width // 2, student_width=width)


AXES = (
    Axis(
        name="tokens",
        case="v1_step",
        values=(32, 64, 128, 256),
        at=lambda base, value: replace(base, tokens=value),
    ),
    Axis(
        name="vocabulary",
        case="v1_step",
        values=(4000, 8000, 16_000, 32_000),
        at=lambda base, value: replace(base, vocabulary=value),
    ),
    Axis(name="depth", case="v1_step", values=(4, 8, 16, 32), at=_deep),
    Axis(name="width", case="v1_step", values=(128, 256, 512), at=_wide),
    Axis(name="rows", case="end_to_end", values=(4, 8, 16), at=lambda base, value: replace(base, rows=value)),
)


def slope(values: Sequence[float], seconds: Sequence[float]) -> float:
    """Return the exponent of seconds ~ value^exponent, by least squares of the logarithms."""
    return float(np.polyfit(np.log(values), np.log(np.maximum(seconds, 1e-9)), 1)[0])


def scaled(axis: Axis, cases: Mapping[str, Case], repeats: int, threads: int, base: Shape) -> dict[str, Any]:
    """Return the median seconds of both ways at each value of a size, and their slopes."""
    case, medians = cases[axis.case], {way: list[float]() for way in WAYS}
    for value in axis.values:
        shape = axis.at(base, value)
        ours, textbook = case.ours(shape), case.textbook(shape)
        ours(), textbook()
        for way, seconds in alternating(ours, textbook, repeats, clock(threads, base.device)).items():
            medians[way].append(statistics.median(seconds))
    slopes = {way: slope(axis.values, medians[way]) for way in WAYS}
    return {"case": axis.case, "values": list(axis.values), "medians": medians, "slopes": slopes}


def base_of(size: str, device: str) -> Shape:
    """Return what the sizes vary around."""
    return replace(BASE if size in ("reference", "large") else replace(TINY, vocabulary=400), device=device)
