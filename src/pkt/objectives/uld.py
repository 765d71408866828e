"""Universal logit distillation: sorted probabilities, which need no common vocabulary.

    L = mean_n sum_k |p_(k) - q_(k)|,   p_(1) >= p_(2) >= ... the teacher's probabilities, q the student's

Sorting forgets which token is which: a baseline.

Shape suffixes: n positions, D width, V vocabulary, K probabilities that are kept.
Source: Boizard et al., "Towards Cross-Tokenizer Distillation: the Universal Logit Distillation Loss for LLMs"
(arXiv 2402.12030).
Deviations: positions at which both models have read the same text, instead of the same number in the answer; with
``top_k`` the others of each side count as one probability.
"""

from __future__ import annotations

from dataclasses import dataclass

from pkt.late import Tensor, torch
from pkt.objectives.chunks import over_chunks
from pkt.objectives.needs import Head, Need, Outputs
from pkt.objectives.term import BaseTerm
from pkt.objectives.view import Sums, View
from pkt.settings import setting


def sorted_difference(logits_nV: Tensor, log_probs_nK: Tensor, *, temperature: float, whole: bool) -> Tensor:
    """Return the distance between two distributions whose probabilities are sorted, (n): from 0 to 2.

    Args:
        logits_nV: the student's. The gradient flows here.
        log_probs_nK: the teacher's log-probabilities, descending.
        temperature: of the student's softmax.
        whole: these are all that the teacher has; otherwise what is left of each side counts as one.
    """
    own_nV = (logits_nV.float() / temperature).softmax(-1)
    taught_nK = log_probs_nK.float().exp()
    count = max(own_nV.shape[-1], taught_nK.shape[-1]) if whole else taught_nK.shape[-1]
    own_nK = own_nV.topk(min(count, own_nV.shape[-1]), dim=-1).values
    sides = [torch.nn.functional.pad(side, (0, count - side.shape[-1])) for side in (own_nK, taught_nK)]
    found_n = (sides[0] - sides[1]).abs().sum(-1)
    return found_n if whole else found_n + (sides[0].sum(-1) - sides[1].sum(-1)).abs()


@dataclass(frozen=True, kw_only=True)
class Uld(BaseTerm):
    """Distance of sorted next-token probabilities, a mean over the positions that predict an answer token.

    Attributes:
        temperature: of both softmaxes.
        top_k: probabilities per position that are kept of the teacher, the rest as one; None: all.
    """

    temperature: float = setting(1.0, above=0)
    top_k: int | None = setting(64, at_least=1)

    @property
    def needs(self) -> tuple[Need, ...]:
        """The teacher's sorted outputs and the head."""
        return (Outputs(temperature=self.temperature, top_k=self.top_k, ordered=True), Head())

    def __call__(self, view: View) -> Sums:
        """Return the sum over positions."""
        teacher, head, whole = view.teacher, view.head, self.top_k is None

        def differing(h_nD: Tensor, *kept: Tensor) -> Tensor:
            log_probs_nK = teacher.read(*kept).log_probs_nK
            return sorted_difference(
                head.read_out(h_nD), log_probs_nK, temperature=self.temperature, whole=whole
            ).sum()

        return Sums(total=over_chunks(differing, view.final_ND, *teacher.tensors), count=view.count)
