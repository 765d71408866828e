"""Pairings by relative depth; each is a config node and a pure function of depths and scores.

Source: "Beyond Neural Incompatibility" (arXiv 2510.24208 v1), restated where a docstring says "our reading".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pkt.errors import RequestError
from pkt.mapping.pairs import (
    LayerPair,
    Similarity,
    check_count,
    check_depths,
    check_scores,
    depth_layer,
    spread,
)


@dataclass(frozen=True, kw_only=True)
class Depth:
    """Pair by relative depth: student k takes teacher max(1, floor(L_T k / L_S)).

    Attributes:
        count: number of student layers, evenly spread and always with the last one (see `spread`); None: all.
    """

    needs_scores: ClassVar[bool] = False
    needs_similarity: ClassVar[bool] = False

    count: int | None = None

    def __post_init__(self) -> None:
        check_count(self.count)

    def pairs(
        self,
        teacher_depth: int,
        student_depth: int,
        scores: Sequence[float] | None = None,
        similarity: Similarity | None = None,
    ) -> tuple[LayerPair, ...]:
        """Return one pair per chosen student layer, from shallow to deep.

        Raises:
            RequestError: `count` exceeds the student's depth.
            ValueError: a depth below 1.
        """
        check_depths(teacher_depth, student_depth)
        return tuple(
            LayerPair(student=k, teacher=(depth_layer(k, teacher_depth, student_depth),))
            for k in spread(self.count, student_depth)
        )


@dataclass(frozen=True, kw_only=True)
class Critical:
    """Pair the teacher layers of highest attribution (v1; top_n = 1 there).

    Teacher layer l* goes to student layer k = min{k : depth(k) >= l*}, else L_S; the pair is (depth(k), k),
    so that both layers sit at the same relative depth. Pairs keep the order of depth; equal ones are merged,
    so there may be fewer than `top_n`. Equal scores: the shallower layer wins (our reading).
    """

    needs_scores: ClassVar[bool] = True
    needs_similarity: ClassVar[bool] = False

    top_n: int = 1

    def __post_init__(self) -> None:
        if self.top_n < 1:
            raise ValueError(f"top_n is a number of teacher layers, at least 1, got {self.top_n}")

    def pairs(
        self,
        teacher_depth: int,
        student_depth: int,
        scores: Sequence[float] | None = None,
        similarity: Similarity | None = None,
    ) -> tuple[LayerPair, ...]:
        """Return the pairs of the critical layers, from shallow to deep.

        Args:
            teacher_depth: L_T.
            student_depth: L_S.
            scores: one per teacher layer; layer 1 first.
            similarity: not read.

        Raises:
            RequestError: `top_n` exceeds the teacher's depth.
            PktError: a score is NaN or infinite.
            ValueError: not one score per teacher layer, or a depth below 1.
        """
        check_depths(teacher_depth, student_depth)
        scores = check_scores(scores, teacher_depth)
        if self.top_n > teacher_depth:
            raise RequestError(
                f"mapping.top_n={self.top_n}: the teacher has {teacher_depth} layers; "
                f"choose 1 to {teacher_depth}."
            )
        ranked = sorted(range(1, teacher_depth + 1), key=lambda layer: (-scores[layer - 1], layer))
        students = {self._student(layer, teacher_depth, student_depth) for layer in ranked[: self.top_n]}
        return tuple(
            LayerPair(student=k, teacher=(depth_layer(k, teacher_depth, student_depth),))
            for k in sorted(students)
        )

    @staticmethod
    def _student(teacher_layer: int, teacher_depth: int, student_depth: int) -> int:
        reaching = (
            k
            for k in range(1, student_depth + 1)
            if depth_layer(k, teacher_depth, student_depth) >= teacher_layer
        )
        return next(reaching, student_depth)


@dataclass(frozen=True, kw_only=True)
class Interpolate:
    """Give student k the state between the two teacher layers around its relative depth.

    (1 - lam) h^(a) + lam h^(b) with u = L_T k / L_S, a = clip(floor(u), 1, L_T - 1), b = a + 1,
    lam = clip(u - a, 0, 1). A layer of weight 0 is left out, so an exact hit is a plain pair.

    Attributes:
        count: number of student layers, evenly spread and always with the last one (see `spread`); None: all.
    """

    needs_scores: ClassVar[bool] = False
    needs_similarity: ClassVar[bool] = False

    count: int | None = None

    def __post_init__(self) -> None:
        check_count(self.count)

    def pairs(
        self,
        teacher_depth: int,
        student_depth: int,
        scores: Sequence[float] | None = None,
        similarity: Similarity | None = None,
    ) -> tuple[LayerPair, ...]:
        """Return one pair per chosen student layer, from shallow to deep.

        Raises:
            RequestError: `count` exceeds the student's depth.
            ValueError: a depth below 1.
        """
        check_depths(teacher_depth, student_depth)
        return tuple(_between(k, teacher_depth, student_depth) for k in spread(self.count, student_depth))


def _between(student: int, teacher_depth: int, student_depth: int) -> LayerPair:
    if teacher_depth == 1:
        return LayerPair(student=student, teacher=(1,))
    below = min(max(teacher_depth * student // student_depth, 1), teacher_depth - 1)
    excess = (
        teacher_depth * student - below * student_depth
    )  # L_S (u - a), an integer: no rounding at 0 and 1
    if excess <= 0:
        return LayerPair(student=student, teacher=(below,))
    if excess >= student_depth:
        return LayerPair(student=student, teacher=(below + 1,))
    share = excess / student_depth
    return LayerPair(student=student, teacher=(below, below + 1), weights=(1.0 - share, share))
