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
from typing import Literal

from pkt.methods.base import Choice
from pkt.methods.frontier import Frontier
from pkt.methods.semalign import SemAlign, by_frontier
from pkt.objectives import Fisher
from pkt.settings import setting, undecisive


@dataclass(frozen=True, kw_only=True)
class SemAlignFisher(SemAlign):
    """The frontier with the Fisher term; settings as in `SemAlign`.

    Attributes:
        interface: ``block``; the head reads nothing else.
        schedule: ``frontier``, or ``joint`` for comparison.
        frontier: the output terms at the last layer only, in place of its layer term.
    """

    name: str = undecisive("semalign_fisher")
    interface: Literal["mlp", "attention", "residual", "block"] = "block"
    schedule: Literal["joint", "frontier"] = setting("frontier", decides="transfer")
    frontier: Frontier = setting(
        factory=lambda: Frontier(output_at="last", last_layer_term=False),
        decides="transfer",
        when=by_frontier,
    )

    def refusal(self, choice: Choice) -> str | None:
        """Return why this is not the Fisher form; None where it is."""
        if not any(isinstance(term, Fisher) for term in choice.objective.terms.values()):
            return (
                "its layer term is the Fisher term, and the objective has none: set term@objective.terms.layer=fisher "
                "(or objective=fisher)"
            )
        return None
