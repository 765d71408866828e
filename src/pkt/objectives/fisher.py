"""Fisher: the read-outs of state and target, compared where the target's distribution cares.

    L = mean_n 1/2 (z - z*)^T F (z - z*),   F = diag(p*) - p* p*^T,   p* = softmax(z*)

z and z* are the read-outs of the student's state and of its target; the quadratic is 1/2 Var_{p*}(z - z*), the
second-order expansion of KL(p* || softmax(z)) around z*.

Shape suffixes: N positions (n of a chunk), D width, V vocabulary, K kept tokens.
Source: SemAlign, Findings of ACL 2026, of which the abstract was at hand; this form is our reading.
"""

from __future__ import annotations

from dataclasses import dataclass

from pkt.late import Tensor, torch
from pkt.objectives.chunks import check_pairs, over_chunks
from pkt.objectives.distributions import coarse
from pkt.objectives.needs import Head, Need, States
from pkt.objectives.term import LayerTerm
from pkt.objectives.view import Pair, View
from pkt.settings import setting


@dataclass(frozen=True, kw_only=True)
class Fisher(LayerTerm):
    """The Fisher-weighted quadratic of read-outs, mean over positions and pairs.

    Attributes:
        top_k: tokens of the target that are covered one by one, the rest as one; None: all.
    """

    top_k: int | None = setting(64, at_least=1)

    @property
    def needs(self) -> tuple[Need, ...]:
        """Block states with targets that the student's head can read."""
        states = States(
            positions=self.positions,
            single_teacher=True,
            student_space=True,
            interfaces=("block",),
            because="it reads a layer's output and its target through the student's final norm and head",
            constant=True,
        )
        return (states, Head())

    def pair_sum(self, pair: Pair, view: View) -> Tensor:
        """Return sum_n 1/2 (z - z*)^T F (z - z*); the rest beyond `top_k` has the log-sum-exp of its logits."""
        read_out = view.head.lens

        def quadratic(h_nD: Tensor, target_nD: Tensor) -> Tensor:
            with torch.no_grad():
                wanted_nV = read_out(target_nD).float()
            kept_nK = None
            if self.top_k is not None and self.top_k < wanted_nV.shape[-1]:
                kept_nK = wanted_nV.topk(self.top_k, dim=-1).indices
            wanted = coarse(wanted_nV, kept_nK)
            excess = coarse(read_out(h_nD).float(), kept_nK) - wanted
            p = wanted.softmax(-1)
            mean_n1 = (p * excess).sum(-1, keepdim=True)
            return 0.5 * (p * (excess - mean_n1).square()).sum()

        return over_chunks(quadratic, *check_pairs(pair.states_ND, pair.targets_ND))
