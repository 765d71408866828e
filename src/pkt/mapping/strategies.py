"""Pairings that do not compare layers: by relative depth, by attribution, by a list, at random.

Each is a config node, and a pure function of the depths and, for `Critical`, of the scores.
Source: "Beyond Neural Incompatibility" (arXiv 2510.24208 v1), restated where a docstring says "our reading".
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pkt.errors import RequestError
from pkt.mapping.pairs import LayerPair, Layers, Spread, Strategy, spread, top_layers
from pkt.settings import MOST_SEED, setting


@dataclass(frozen=True, kw_only=True)
class Depth(Spread):
    """Pair by relative depth: student k takes teacher max(1, floor(L_T k / L_S))."""

    def paired(self, layers: Layers) -> Iterable[LayerPair]:
        """Yield one pair per chosen student layer, from shallow to deep."""
        return (LayerPair(student=k, teacher=(layers.at_depth(k),)) for k in self.students(layers))


@dataclass(frozen=True, kw_only=True)
class Critical(Strategy):
    """Pair the teacher layers of highest attribution (v1; top_n = 1 there).

    Teacher layer l* goes to student layer k = min{k : depth(k) >= l*}, else L_S; the pair is (depth(k), k),
    so that both layers sit at the same relative depth. Pairs keep the order of depth. Equal ones are merged, so
    that there may be fewer than `top_n`. Of equal scores the shallower layer wins (our reading).
    """

    needs_scores: ClassVar[bool] = True

    top_n: int = setting(1, at_least=1)

    def paired(self, layers: Layers) -> Iterable[LayerPair]:
        """Yield the pairs of the critical layers, from shallow to deep.

        Raises:
            RequestError: `top_n` exceeds the teacher's depth.
        """
        if self.top_n > layers.teacher:
            raise RequestError(
                f"mapping.top_n={self.top_n}: the teacher has {layers.teacher} layers; choose 1 to {layers.teacher}."
            )
        students = {self._student(layer, layers) for layer in top_layers(layers.scores, self.top_n)}
        return (LayerPair(student=k, teacher=(layers.at_depth(k),)) for k in sorted(students))

    @staticmethod
    def _student(teacher_layer: int, layers: Layers) -> int:
        reaching = (k for k in range(1, layers.student + 1) if layers.at_depth(k) >= teacher_layer)
        return next(reaching, layers.student)


@dataclass(frozen=True, kw_only=True)
class Interpolate(Spread):
    """Give student k the state between the two teacher layers around its relative depth.

    (1 - lam) h^(a) + lam h^(b) with u = L_T k / L_S, a = clip(floor(u), 1, L_T - 1), b = a + 1,
    lam = clip(u - a, 0, 1). A layer of weight 0 is left out, so an exact hit is a plain pair.
    """

    def paired(self, layers: Layers) -> Iterable[LayerPair]:
        """Yield one pair per chosen student layer, from shallow to deep."""
        return (_between(k, layers.teacher, layers.student) for k in self.students(layers))


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


@dataclass(frozen=True, kw_only=True)
class Last(Strategy):
    """Pair the last layer with the last layer."""

    def paired(self, layers: Layers) -> Iterable[LayerPair]:
        """Return the pair (L_T, L_S)."""
        return (LayerPair(student=layers.student, teacher=(layers.teacher,)),)


@dataclass(frozen=True, kw_only=True)
class Explicit(Strategy):
    """Pair the layers that a list names, in its order.

    Attributes:
        layers: [teacher layer, student layer] per pair, from 1; a student layer may occur once.
    """

    layers: list[list[int]]

    def __post_init__(self) -> None:
        if not self.layers or any(len(pair) != 2 for pair in self.layers):
            raise ValueError(
                f"layers is a list of [teacher layer, student layer], e.g. [[18,9]]; got {self.layers}"
            )
        students = [student for _, student in self.layers]
        if len(set(students)) != len(students):
            raise ValueError(f"each student layer may occur once in layers, got students {students}")

    def paired(self, layers: Layers) -> Iterable[LayerPair]:
        """Yield the listed pairs.

        Raises:
            RequestError: a layer that the teacher or the student does not have.
        """
        for numbers in self.layers:
            for who, layer in zip(("teacher", "student"), numbers, strict=True):
                depth = getattr(layers, who)
                if not 1 <= layer <= depth:
                    raise RequestError(
                        f"mapping.layers: {who} layer {layer} does not exist; the {who}'s layers are 1 to "
                        f"{depth} (pairs are written [teacher layer, student layer])."
                    )
        return (LayerPair(student=student, teacher=(teacher,)) for teacher, student in self.layers)


@dataclass(frozen=True, kw_only=True)
class Cut(Strategy):
    """Pair the layers of a student that was cut from its teacher with those whose place they take.

    The student's layers kept(1) < kept(2) < ... are the teacher's. Where layers between two of them are gone, the first
    of the two has to stand in for these: what enters kept(j + 1) in the teacher leaves its layer kept(j + 1) - 1, and
    in the student it leaves layer j. The last one stands in for all above it.

    Attributes:
        at: ``end``: student layer j gets teacher layer kept(j + 1) - 1, the last one L_T. ``own``: it gets kept(j).
    """

    at: Literal["end", "own"] = "end"

    def of_cut(self, kept: Sequence[int] | None, teacher_depth: int) -> Explicit:
        """Return the list of pairs of a student with some of the teacher's layers.

        Raises:
            RequestError: it was not cut from it.
        """
        if kept is None:
            raise RequestError(
                "mapping=cut pairs the layers of a student that was cut from this teacher, and this one was not: use "
                "mapping=depth, or cut one (model.student.init=prune, or a pair such as model=nano-cut)"
            )
        ends = [*(layer - 1 for layer in kept[1:]), teacher_depth]
        taken = ends if self.at == "end" else list(kept)
        return Explicit(layers=[[layer, number] for number, layer in enumerate(taken, start=1)])

    def paired(self, layers: Layers) -> Iterable[LayerPair]:
        """Refuse to pair by depths alone."""
        return self.of_cut(None, layers.teacher).paired(layers)


@dataclass(frozen=True, kw_only=True)
class RandomPairs(Strategy):
    """Pair layers at random, as a control.

    `count` student layers without repetition, each with a teacher layer, without repetition as far as the
    teacher's depth allows. The order of depth is not kept.

    Attributes:
        seed: of the draw.
        count: number of student layers; None: every layer, which is the control of a mapping that pairs them all.
    """

    seed: int = setting(0, at_least=0, at_most=MOST_SEED)
    count: int | None = setting(1, at_least=1)

    def paired(self, layers: Layers) -> Iterable[LayerPair]:
        """Yield the drawn pairs, by student layer.

        Raises:
            RequestError: `count` exceeds the student's depth.
        """
        count = len(spread(self.count, layers.student))  # refuses a count that is too large
        draw = random.Random(self.seed)
        students = sorted(draw.sample(range(1, layers.student + 1), count))
        every = range(1, layers.teacher + 1)
        rounds = -(-count // layers.teacher)
        teachers = [layer for _ in range(rounds) for layer in draw.sample(every, layers.teacher)]
        return (
            LayerPair(student=student, teacher=(teacher,))
            for student, teacher in zip(students, teachers, strict=False)
        )
