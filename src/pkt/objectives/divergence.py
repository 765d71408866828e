"""Divergence: the student's next-token distribution against the teacher's.

    L = mean_n tau^2 D(p_n, q_n),   p = softmax(z_teacher / tau),   q = softmax(z_student / tau)

Shape suffixes: N positions (n of a chunk), D width, V vocabulary, K kept tokens.
Source: Hinton et al., arXiv 1503.02531 (tau^2 keeps the gradient's size); reverse KL as in MiniLLM (arXiv 2306.08543).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pkt.late import Tensor, torch
from pkt.objectives.chunks import over_chunks
from pkt.objectives.distributions import TokenDistribution, coarse
from pkt.objectives.needs import Head, Need, Outputs
from pkt.objectives.term import BaseTerm
from pkt.objectives.view import Sums, View
from pkt.settings import setting

LOG_ZERO = -1e30  # stands for log 0, because 0 times minus infinity is no number
FLOOR = -1e4  # of the teacher's log-probabilities in reverse KL, which its zeros must not make infinite


def divergence(
    logits_nV: Tensor, teacher: TokenDistribution, *, kind: str = "forward", temperature: float = 1.0
) -> Tensor:
    """Return tau^2 * D(p, q) per position, (n), in nats; p is the teacher's distribution, q the student's.

    - ``forward``: KL(p || q) = sum p (log p - log q)
    - ``reverse``: KL(q || p)
    - ``js``: 1/2 KL(p || m) + 1/2 KL(q || m), m = (p + q) / 2

    With kept tokens only, both distributions are those over K tokens and one bucket for the rest: a lower bound
    that grows to the whole divergence with K. tau^2 keeps the gradient's size (Hinton et al., arXiv 1503.02531).

    Args:
        logits_nV: the student's logits z; q = softmax(z / tau). The gradient flows here.
        teacher: p, at the same temperature.
        kind: see above.
        temperature: tau.
    """
    log_q = coarse((logits_nV.float() / temperature).log_softmax(-1), teacher.tokens_nK)
    log_p = teacher.log_probs_nK
    if teacher.log_tail_n is not None:
        log_p = torch.cat([log_p, teacher.log_tail_n[:, None]], dim=-1)
    log_p, log_q = log_p.clamp_min(LOG_ZERO), log_q.clamp_min(LOG_ZERO)
    if kind == "forward":
        value_n = _kl(log_p, log_q)
    elif kind == "reverse":
        value_n = _kl(log_q, log_p.clamp_min(FLOOR))
    else:
        log_m = torch.logaddexp(log_p, log_q) - torch.log(torch.tensor(2.0))
        value_n = 0.5 * (_kl(log_p, log_m) + _kl(log_q, log_m))
    return temperature**2 * value_n


def _kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    return (log_a.exp() * (log_a - log_b)).sum(-1)


@dataclass(frozen=True, kw_only=True)
class Divergence(BaseTerm):
    """tau^2 D(teacher, student), mean over the positions that predict an answer token.

    Of two vocabularies both distributions are those over the tokens that both have (of the same bytes) and one for all
    others together, at the positions at which both models have read the same text.

    Attributes:
        kind: ``forward``, ``reverse`` or ``js``, see `divergence`.
        temperature: tau.
        top_k: tokens per position that are kept of the teacher's distribution, the rest as one; None: all.
        teacher: ``cached`` (distributions kept by `align`) or ``live`` (a teacher forward pass at every step).
    """

    kind: Literal["forward", "reverse", "js"] = "forward"
    temperature: float = setting(2.0, above=0)
    top_k: int | None = setting(64, at_least=1)
    teacher: Literal["cached", "live"] = "cached"

    @property
    def needs(self) -> tuple[Need, ...]:
        """The teacher's outputs and the head."""
        live = self.teacher == "live"
        return (Outputs(temperature=self.temperature, top_k=self.top_k, live=live), Head())

    def __call__(self, view: View) -> Sums:
        """Return the sum over positions, over the tokens that both models have."""
        teacher, tau = view.teacher, self.temperature

        def differing(h_nD: Tensor, *kept: Tensor) -> Tensor:
            read = teacher.read(*kept)
            logits_nA = view.head.read_shared(h_nD, tau)
            return divergence(logits_nA, read, kind=self.kind, temperature=tau).sum()

        return Sums(total=over_chunks(differing, view.final_ND, *teacher.tensors), count=view.count)
