"""Every alignment map, measured on the rows it was fitted on and on rows that it never saw.

Shape suffixes: N positions, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from pkt.semantics import AlignmentMap, HeadView, QualityCard, Semantics, States, quality_card


@dataclass(frozen=True, kw_only=True)
class MapCards:
    """One map on one pair of layers.

    Attributes:
        fitted: on the positions that a fitted map was fitted on.
        held_out: on other rows' positions.
    """

    fitted: QualityCard
    held_out: QualityCard


def training_free(
    strategies: Mapping[str, Semantics], teacher: HeadView, student: HeadView
) -> dict[str, AlignmentMap]:
    """Return the maps that read no states, which are the same for every pair of layers.

    Raises:
        PktError: a head that is zero or not finite.
    """
    return {
        name: strategy.fit(teacher=teacher, student=student)
        for name, strategy in strategies.items()
        if not strategy.needs_states
    }


def map_cards(
    strategies: Mapping[str, Semantics],
    constant: Mapping[str, AlignmentMap],
    *,
    teacher: HeadView,
    student: HeadView,
    fitting: States,
    held_out: States,
    read_out: Callable[[Tensor], Tensor] | None,
) -> dict[str, MapCards]:
    """Fit every map on one pair of layers, and measure it twice.

    Args:
        strategies: ways to make a map, by name.
        constant: the maps of `training_free`.
        teacher: what maps see of the teacher.
        student: what they see of the student.
        fitting: paired states that maps are fitted on.
        held_out: paired states of other rows.
        read_out: block states of the student to logits; None: no read-out KL.

    Raises:
        PktError: states that are not finite.
    """
    cards = {}
    for name, strategy in strategies.items():
        own = constant.get(name) or strategy.fit(teacher=teacher, student=student, states=fitting)
        cards[name] = MapCards(
            fitted=quality_card(own, *fitting, read_out=read_out),
            held_out=quality_card(own, *held_out, read_out=read_out),
        )
    return cards
