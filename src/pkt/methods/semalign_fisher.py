"""SemAlign, Fisher form: every student layer from shallow to deep, on a Fisher-weighted quadratic of read-outs.

Idea: each layer's target, mapped into the student's space, is read out through the student's own head; the layer
learns to match it where the target's distribution cares (the second-order expansion of a KL), one layer at a time
on what the layers below have learned; the last layer matches the teacher's output.

Reference: SemAlign, Findings of ACL 2026. Only its abstract was at hand: formula, frontier and the rescaling of
targets to the student's mean length are our reading.
Deviations: the prefix of a stage is advanced by one block instead of recomputed (exact); the teacher's outputs are
kept as top-k log-probabilities and a tail mass unless `objective.terms.kl.teacher=live`.
"""

from __future__ import annotations

from dataclasses import dataclass

from pkt.methods.semalign import SemAlign
from pkt.objectives import Fisher
from pkt.settings import undecisive


@dataclass(frozen=True, kw_only=True)
class SemAlignFisher(SemAlign):
    """SemAlign with the Fisher term; the preset has the frontier, and the output terms at the last layer only."""

    layer_term = Fisher

    name: str = undecisive("semalign_fisher")
