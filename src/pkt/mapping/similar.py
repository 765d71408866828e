"""Pairings by the similarity of layers, and the dynamic programme that keeps the order of depth.

    similarity (L_T, L_S) [x scores] -> gains -> best per student layer | best without crossings -> pairs

Both read a matrix of linear CKA (`pkt.attribution.similarity`). Totals are exact (fractions), so that the scale of the
scores does not matter and ties are found; of equal pairings the one nearest to relative depth wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Literal

from pkt.mapping.pairs import LayerPair, Layers, Similarity, Spread

Gain = tuple[Fraction, int]
"""What a pair adds: score times similarity; then, to decide ties, minus its distance from relative depth."""
_Path = tuple[Gain, tuple[int, ...]]
"""The sum of a path's gains, and its columns."""


@dataclass(frozen=True, kw_only=True)
class Monotone(Spread):
    """Pair without crossings so that the sum of score_T(l) * similarity(l, k) is largest.

    pi = argmax sum_k score_T(pi(k)) * similarity(pi(k), k) over the chosen student layers k, one teacher layer
    each, pi(1) < pi(2) < ... Where more student layers are chosen than the teacher has (n > L_T), neighbours may
    share a teacher layer, each at most ceil(n / L_T) times (our reading, as is the programme: SemAlign's later
    versions are known to us by their abstracts).
    A negative score (``reduce=signed``) counts against a layer. Only ratios of scores matter.

    Attributes:
        similarity: ``cka`` (linear CKA of the layers' states) or ``one`` (scores alone decide).
    """

    needs_scores: ClassVar[bool] = True

    similarity: Literal["cka", "one"] = "cka"

    @property
    def needs_similarity(self) -> bool:
        """Whether CKA weighs the scores."""
        return self.similarity == "cka"

    def paired(self, layers: Layers) -> Iterable[LayerPair]:
        """Return one pair per chosen student layer, from shallow to deep."""
        students = self.students(layers)
        alike = layers.alike if self.needs_similarity else [[1.0] * layers.student] * layers.teacher
        return _paired(students, without_crossings(_gains(students, alike, layers.scores, layers)))


@dataclass(frozen=True, kw_only=True)
class Cka(Spread):
    """Pair each student layer with the teacher layer of highest linear CKA.

    Attributes:
        monotone: keep the order of depth: the largest sum of CKA without crossings, as `Monotone` with equal
            scores. False: every student layer for itself, so that a teacher layer may occur more than once.

    Source: the paper's layer-by-layer CKA (arXiv 2510.24208 v1, figures 4 to 6), as a pairing (ours).
    """

    needs_similarity: ClassVar[bool] = True

    monotone: bool = False

    def paired(self, layers: Layers) -> Iterable[LayerPair]:
        """Return one pair per chosen student layer, from shallow to deep."""
        students = self.students(layers)
        gains = _gains(students, layers.alike, [1.0] * layers.teacher, layers)
        if self.monotone:
            return _paired(students, without_crossings(gains))
        # max takes the first of equals: the shallower layer
        return _paired(students, [max(range(layers.teacher), key=row.__getitem__) for row in gains])


def without_crossings(gains: Sequence[Sequence[Gain]]) -> list[int]:
    """Return the column of each row so that columns increase and the sum of gains is largest.

    Dynamic programme over prefixes: best[i][c] = gain[i][c] + max over c' < c of best[i-1][c']. With more rows
    than columns each column is there ceil(rows / columns) times, side by side, which lets neighbours share it.
    Of equal sums the one whose last columns are smaller wins.

    Args:
        gains: one row per student layer, one column per teacher layer.
    """
    copies = -(-len(gains) // len(gains[0]))
    nothing: _Path = ((Fraction(), 0), ())
    ending: list[_Path | None] = []  # at each column: the best path of the rows so far that ends there
    for number, row in enumerate(gains):
        left, before, ending = None if number else nothing, ending, []
        for column, (gain, nearness) in enumerate(gain for gain in row for _ in range(copies)):
            new = before[column - 1] if number and column else None
            if new is not None and (left is None or new[0] > left[0]):
                left = new
            if left is None:
                ending.append(None)
            else:
                (total, total_nearness), columns = left
                ending.append(((total + gain, total_nearness + nearness), (*columns, column)))
    _, columns = max((path for path in ending if path), key=lambda path: path[0])
    return [column // copies for column in columns]


def _gains(
    students: Sequence[int], alike: Similarity, scores: Sequence[float], layers: Layers
) -> list[list[Gain]]:
    return [
        [
            (
                Fraction(scores[layer - 1]) * Fraction(alike[layer - 1][k - 1]),
                -abs(layer - layers.at_depth(k)),
            )
            for layer in range(1, layers.teacher + 1)
        ]
        for k in students
    ]


def _paired(students: Sequence[int], columns: Sequence[int]) -> tuple[LayerPair, ...]:
    return tuple(
        LayerPair(student=k, teacher=(column + 1,)) for k, column in zip(students, columns, strict=True)
    )
