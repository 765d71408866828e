"""Layer pairs, and what the strategies that make them share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pkt.errors import PktError, RequestError
from pkt.settings import Bounded, setting

Similarity = Sequence[Sequence[float]]
"""One row per teacher layer, one column per student layer; layer 1 first."""


@dataclass(frozen=True, kw_only=True)
class LayerPair:
    """A student layer, and the teacher layers whose weighted sum of states it learns from.

    Attributes:
        student: student layer, from 1.
        teacher: teacher layers, from 1.
        weights: one per teacher layer.

    Raises:
        ValueError: a layer below 1, no teacher layer, or not one weight per teacher layer.
    """

    student: int
    teacher: tuple[int, ...]
    weights: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if min((self.student, *self.teacher)) < 1 or not self.teacher:
            raise ValueError(f"layers are numbered from 1, and a pair has at least one teacher layer: {self}")
        if len(self.teacher) != len(self.weights):
            raise ValueError(f"one weight per teacher layer is needed: {self}")


@runtime_checkable
class Mapping(Protocol):
    """A pairing strategy; what it needs may depend on its options."""

    @property
    def needs_scores(self) -> bool:
        """Whether `pairs` reads one attribution score per teacher layer."""
        return False

    @property
    def needs_similarity(self) -> bool:
        """Whether `pairs` reads the similarity of every teacher layer to every student layer."""
        return False

    def pairs(
        self,
        teacher_depth: int,
        student_depth: int,
        scores: Sequence[float] | None = None,
        similarity: Similarity | None = None,
    ) -> tuple[LayerPair, ...]:
        """Pair the layers of a teacher and a student of given depths; one pair per student layer at most."""
        ...


@runtime_checkable
class OfCut(Protocol):
    """A pairing strategy for students that were cut from their teacher."""

    def of_cut(self, kept: Sequence[int] | None, teacher_depth: int) -> Mapping:
        """Return the strategy for a student with some of the teacher's layers; None: it was not cut from it."""
        ...


def of_student(mapping: Mapping, kept: Sequence[int] | None, teacher_depth: int) -> Mapping:
    """Return a strategy as it is for a student.

    Args:
        mapping: the strategy.
        kept: the layers that it kept of its teacher, from 1; None: it was not cut from it.
        teacher_depth: L_T.

    Raises:
        RequestError: a strategy for cut students, and this one is none.
    """
    return mapping.of_cut(kept, teacher_depth) if isinstance(mapping, OfCut) else mapping


@dataclass(frozen=True, kw_only=True)
class Layers:
    """What a strategy pairs.

    Attributes:
        teacher: L_T.
        student: L_S.
        scores: one per teacher layer, layer 1 first; empty unless the strategy needs them.
        alike: similarity of every layer pair; empty unless the strategy needs it.
    """

    teacher: int
    student: int
    scores: Sequence[float] = ()
    alike: Similarity = ()

    def at_depth(self, student_layer: int) -> int:
        """Return the teacher layer at a student layer's relative depth (`depth_layer`)."""
        return depth_layer(student_layer, self.teacher, self.student)


class Strategy(Bounded, Mapping):
    """A strategy that gets checked inputs."""

    def pairs(
        self,
        teacher_depth: int,
        student_depth: int,
        scores: Sequence[float] | None = None,
        similarity: Similarity | None = None,
    ) -> tuple[LayerPair, ...]:
        """Return the pairs of the strategy.

        Args:
            teacher_depth: L_T.
            student_depth: L_S.
            scores: one per teacher layer, layer 1 first; read where `needs_scores` says so.
            similarity: (L_T, L_S) rows of numbers; read where `needs_similarity` says so.

        Raises:
            RequestError: an option asks for a layer, or for a number of layers, that a model does not have.
            PktError: a score or a similarity is NaN or infinite.
            ValueError: scores or similarities of another shape, or a depth below 1.
        """
        if teacher_depth < 1 or student_depth < 1:
            raise ValueError(
                f"depths are at least 1, got teacher {teacher_depth} and student {student_depth}"
            )
        layers = Layers(
            teacher=teacher_depth,
            student=student_depth,
            scores=_checked_scores(scores, teacher_depth) if self.needs_scores else (),
            alike=_checked_similarity(similarity, teacher_depth, student_depth)
            if self.needs_similarity
            else (),
        )
        return tuple(self.paired(layers))

    def paired(self, layers: Layers) -> Iterable[LayerPair]:
        """Yield the pairs, each student layer once at most."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Spread(Strategy):
    """A strategy for a number of student layers.

    Attributes:
        count: number of student layers, evenly spread and always with the last one (see `spread`); None: all.
    """

    count: int | None = setting(None, at_least=1)

    def students(self, layers: Layers) -> tuple[int, ...]:
        """Return the student layers that get a pair, from shallow to deep."""
        return spread(self.count, layers.student)


def depth_layer(student_layer: int, teacher_depth: int, student_depth: int) -> int:
    """Return depth(k) = max(1, floor(L_T k / L_S)), the teacher layer at student layer k's relative depth."""
    return max(1, teacher_depth * student_layer // student_depth)


def spread(count: int | None, depth: int) -> tuple[int, ...]:
    """Choose `count` layers of `depth`, evenly spread and always with the last one.

    k_i = round(depth i / count) for i = 1..count (halves upwards); None chooses every layer. Our reading: the
    last layer stays because it is the one that the head reads.

    Raises:
        RequestError: more layers than there are.
    """
    if count is None:
        return tuple(range(1, depth + 1))
    if count > depth:
        raise RequestError(
            f"mapping.count={count}: the student has {depth} layers; choose 1 to {depth} or null."
        )
    return tuple((2 * depth * i + count) // (2 * count) for i in range(1, count + 1))


def top_layers(scores: Sequence[float], count: int) -> tuple[int, ...]:
    """Return the `count` layers (from 1) with the highest scores, from shallow to deep; of equals, the shallower.

    Raises:
        ValueError: fewer layers than asked for, or a score that is not finite.
    """
    if not all(map(math.isfinite, scores)):
        raise ValueError("a layer's score is NaN or infinite, so that none can be called the highest")
    if not 1 <= count <= len(scores):
        raise ValueError(f"{count} of {len(scores)} layers cannot be chosen")
    ranked = sorted(range(1, len(scores) + 1), key=lambda layer: (-scores[layer - 1], layer))
    return tuple(sorted(ranked[:count]))


def in_order(layers: Sequence[int]) -> tuple[LayerPair, ...]:
    """Pair student layer i with the i-th of some teacher layers."""
    return tuple(LayerPair(student=i, teacher=(layer,)) for i, layer in enumerate(layers, start=1))


def _checked_scores(scores: Sequence[float] | None, teacher_depth: int) -> Sequence[float]:
    """Return the scores if there is a finite one per teacher layer."""
    if scores is None or len(scores) != teacher_depth:
        got = "none" if scores is None else len(scores)
        raise ValueError(f"one score per teacher layer is needed ({teacher_depth}), got {got}")
    if not all(math.isfinite(score) for score in scores):
        raise PktError(
            "the attribution of a teacher layer is NaN or infinite, so no layer can be called critical; "
            "load the teacher in float32 (model.teacher.dtype=float32)."
        )
    return scores


def _checked_similarity(similarity: Similarity | None, teacher_depth: int, student_depth: int) -> Similarity:
    """Return the similarities if there is a finite one per pair of layers."""
    shape = (teacher_depth, {student_depth})
    if similarity is None or (len(similarity), {*map(len, similarity)}) != shape:
        got = "none" if similarity is None else f"{len(similarity)} rows of {sorted({*map(len, similarity)})}"
        raise ValueError(
            f"the similarity of every layer pair is needed ({teacher_depth} x {student_depth}), got {got}"
        )
    if not all(math.isfinite(value) for row in similarity for value in row):
        raise PktError(
            "the CKA of a layer pair is NaN or infinite, so layers cannot be compared; load both models in "
            "float32 or bfloat16 (model.teacher.dtype, model.student.dtype)."
        )
    return similarity
