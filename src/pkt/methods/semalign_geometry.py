"""SemAlign, geometry form: every student layer from shallow to deep, on relations between tokens.

Idea: what a layer adds to the residual stream is compared with what the paired teacher layers add, not vector by
vector but through the centred token-token relations of a sequence, which do not depend on the basis of either
space; at the output the student matches the teacher's distribution.

Reference: SemAlign, arXiv 2510.24208 v2 (May 2026). Only its abstract was at hand: linear CKA as the relation, the
span of teacher layers and the balance of the two terms are our reading.
Deviations: the prefix of a stage is advanced by one block instead of recomputed (exact); the teacher's outputs are
kept as top-k log-probabilities and a tail mass unless `objective.terms.kl.teacher=live`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pkt.mapping import LayerPair
from pkt.methods.base import Provides
from pkt.methods.semalign import SemAlign
from pkt.objectives import Geometry, States
from pkt.settings import setting, undecisive


@dataclass(frozen=True, kw_only=True)
class SemAlignGeometry(SemAlign):
    """SemAlign with the geometry term; the preset has the frontier, and reads what a layer adds (``residual``).

    Attributes:
        span: the teacher's contribution to a pair: that of the paired ``layer``, or of all teacher layers since the
            previous pair (``between``).
    """

    layer_term = Geometry

    name: str = undecisive("semalign_geometry")
    span: Literal["layer", "between"] = setting("layer", decides="align")

    @property
    def provides(self) -> Provides:
        """As in `SemAlign`; a span can only widen a pair of single layers."""
        if self.span == "layer":
            return super().provides
        asks = States(
            single_teacher=True,
            interfaces=("residual",),
            because="method.span=between adds up what several teacher layers contribute",
        )
        return replace(super().provides, asks=asks)

    def _spanned(self, pairs: tuple[LayerPair, ...]) -> tuple[LayerPair, ...]:
        return spanned(pairs) if self.span == "between" else pairs


def spanned(pairs: tuple[LayerPair, ...]) -> tuple[LayerPair, ...]:
    """Widen each pair to all teacher layers since the previous pair's, each with weight 1.

    A pair whose teacher layer is not deeper than the previous one's keeps its own layer.
    """
    wide, below = [], 0
    for pair in sorted(pairs, key=lambda pair: pair.student):
        (top,) = pair.teacher
        layers = tuple(range(below + 1, top + 1)) or (top,)
        wide.append(LayerPair(student=pair.student, teacher=layers, weights=(1.0,) * len(layers)))
        below = max(below, top)
    return tuple(wide)
