"""Pairings that do not look at relative depth: last to last, a list, and the random control."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pkt.errors import RequestError
from pkt.mapping.pairs import LayerPair, Similarity, check_count, check_depths, spread


@dataclass(frozen=True, kw_only=True)
class Last:
    """Pair the last layer with the last layer."""

    needs_scores: ClassVar[bool] = False
    needs_similarity: ClassVar[bool] = False

    def pairs(
        self,
        teacher_depth: int,
        student_depth: int,
        scores: Sequence[float] | None = None,
        similarity: Similarity | None = None,
    ) -> tuple[LayerPair, ...]:
        """Return the pair (L_T, L_S).

        Raises:
            ValueError: a depth below 1.
        """
        check_depths(teacher_depth, student_depth)
        return (LayerPair(student=student_depth, teacher=(teacher_depth,)),)


@dataclass(frozen=True, kw_only=True)
class Explicit:
    """Pair what a list says, in its order.

    Attributes:
        layers: [teacher layer, student layer] per pair, from 1; a student layer may occur once.
    """

    needs_scores: ClassVar[bool] = False
    needs_similarity: ClassVar[bool] = False

    layers: list[list[int]]

    def __post_init__(self) -> None:
        if not self.layers or any(len(pair) != 2 for pair in self.layers):
            raise ValueError(
                f"layers is a list of [teacher layer, student layer], e.g. [[18,9]]; got {self.layers}"
            )
        students = [student for _, student in self.layers]
        if len(set(students)) != len(students):
            raise ValueError(f"each student layer may occur once in layers, got students {students}")

    def pairs(
        self,
        teacher_depth: int,
        student_depth: int,
        scores: Sequence[float] | None = None,
        similarity: Similarity | None = None,
    ) -> tuple[LayerPair, ...]:
        """Return the listed pairs.

        Raises:
            RequestError: a layer that the teacher or the student does not have.
            ValueError: a depth below 1.
        """
        check_depths(teacher_depth, student_depth)
        for teacher, student in self.layers:
            for who, layer, depth in (
                ("teacher", teacher, teacher_depth),
                ("student", student, student_depth),
            ):
                if not 1 <= layer <= depth:
                    raise RequestError(
                        f"mapping.layers: {who} layer {layer} does not exist; the {who}'s layers are 1 to "
                        f"{depth} (pairs are written [teacher layer, student layer])."
                    )
        return tuple(LayerPair(student=student, teacher=(teacher,)) for teacher, student in self.layers)


@dataclass(frozen=True, kw_only=True)
class Random:
    """Pair at random: the control for pairing.

    `count` student layers without repetition, each with a teacher layer, without repetition as far as the
    teacher's depth allows. The order of depth is not kept.

    Attributes:
        seed: of the draw.
        count: number of student layers.
    """

    needs_scores: ClassVar[bool] = False
    needs_similarity: ClassVar[bool] = False

    seed: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        check_count(self.count)

    def pairs(
        self,
        teacher_depth: int,
        student_depth: int,
        scores: Sequence[float] | None = None,
        similarity: Similarity | None = None,
    ) -> tuple[LayerPair, ...]:
        """Return the drawn pairs, by student layer.

        Raises:
            RequestError: `count` exceeds the student's depth.
            ValueError: a depth below 1.
        """
        check_depths(teacher_depth, student_depth)
        spread(self.count, student_depth)  # refuses a count that is too large
        draw = random.Random(self.seed)
        students = sorted(draw.sample(range(1, student_depth + 1), self.count))
        rounds = -(-self.count // teacher_depth)
        teachers = [
            layer for _ in range(rounds) for layer in draw.sample(range(1, teacher_depth + 1), teacher_depth)
        ]
        return tuple(
            LayerPair(student=student, teacher=(teacher,))
            for student, teacher in zip(students, teachers, strict=False)
        )
