"""Divergence between a teacher's and a student's next-token distributions, whole or as top-k plus a tail bucket.

    teacher logits / tau -> token_distribution -> TokenDistribution (k log-probabilities and the mass of the rest)
    student logits / tau -------------------------------> divergence -> one number per position

Shape suffixes: n positions, V vocabulary, K kept tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FLOOR = (
    -60.0
)  # a log-probability below it counts as this: a zero of the teacher must not make reverse KL infinite


@dataclass(frozen=True, kw_only=True)
class TokenDistribution:
    """The likeliest tokens of n positions.

    Attributes:
        log_probs_nK: their log-probabilities, descending; all V in the vocabulary's order where `tokens_nK`
            is None.
        tokens_nK: their ids, int64, or None.
        log_tail_n: log of the mass of all other tokens, or None where there are none.
    """

    log_probs_nK: Tensor
    tokens_nK: Tensor | None = None
    log_tail_n: Tensor | None = None

    def __post_init__(self) -> None:
        assert (self.tokens_nK is None) == (self.log_tail_n is None), "a cut distribution has a tail"


@torch.no_grad()
def token_distribution(
    logits_nV: Tensor, *, top_k: int | None, temperature: float = 1.0
) -> TokenDistribution:
    """Return softmax(z / temperature) as its `top_k` likeliest tokens and the mass of the rest.

    Args:
        logits_nV: z; any float dtype.
        top_k: K; None, or V and more, keeps the whole distribution.
        temperature: tau.
    """
    log_probs_nV = (logits_nV.float() / temperature).log_softmax(-1)
    if top_k is None or top_k >= log_probs_nV.shape[-1]:
        return TokenDistribution(log_probs_nK=log_probs_nV)
    log_probs_nK, tokens_nK = log_probs_nV.topk(top_k, dim=-1)
    return TokenDistribution(
        log_probs_nK=log_probs_nK, tokens_nK=tokens_nK, log_tail_n=log_rest(log_probs_nV, tokens_nK)
    )


def log_rest(values_nV: Tensor, tokens_nK: Tensor) -> Tensor:
    """Return log sum exp of the values at all but the given tokens, (n); K has to be below V."""
    return values_nV.scatter(-1, tokens_nK, -torch.inf).logsumexp(-1)


def coarse(values_nV: Tensor, tokens_nK: Tensor | None) -> Tensor:
    """Return the values at the kept tokens and the log-sum-exp of the rest as a last column; all where None."""
    if tokens_nK is None:
        return values_nV
    return torch.cat([values_nV.gather(-1, tokens_nK), log_rest(values_nV, tokens_nK)[:, None]], dim=-1)


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
    log_p, log_q = log_p.clamp_min(FLOOR), log_q.clamp_min(FLOOR)
    if kind == "forward":
        value_n = _kl(log_p, log_q)
    elif kind == "reverse":
        value_n = _kl(log_q, log_p)
    else:
        log_m = torch.logaddexp(log_p, log_q) - torch.log(torch.tensor(2.0))
        value_n = 0.5 * (_kl(log_p, log_m) + _kl(log_q, log_m))
    return temperature**2 * value_n


def _kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    return (log_a.exp() * (log_a - log_b)).sum(-1)
