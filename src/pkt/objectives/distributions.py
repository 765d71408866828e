"""A teacher's next-token distributions, whole or as top-k plus a tail bucket.

    teacher logits / tau -> token_distribution -> TokenDistribution (k log-probabilities and the mass of the rest)

Shape suffixes: n positions, V vocabulary, K kept tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pkt.late import Tensor, torch


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


@dataclass(frozen=True, kw_only=True)
class Distributions:
    """A batch's teacher outputs: tensors with one entry per answer position, and how a slice of them reads.

    Attributes:
        tensors: what a slice of positions is cut from; empty where no term reads distributions.
        read: the tensors of a slice to its distributions.
        chunks_C: log-likelihoods of the answers' chunks; None where no term reads them.
        attended_MX: the teacher's answers, as `training.attended` keeps them; None where no term attends to them.
    """

    tensors: tuple[Tensor, ...] = ()
    read: Callable[..., TokenDistribution] = TokenDistribution
    chunks_C: Tensor | None = None
    attended_MX: Tensor | None = None


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


def shared_columns(logits_nV: Tensor, shared: Tensor, *, rest: float | None = None) -> Tensor:
    """Return the logits of the tokens that both models have; the tensor itself where that is all of them.

    Args:
        logits_nV: z.
        shared: their ids.
        rest: of two vocabularies, the temperature at which all other tokens count as one: tau log sum exp(z / tau) of
            them is a last column, so that probabilities are those of the whole vocabulary. None: others do not count.
    """
    if len(shared) == logits_nV.shape[-1] and rest is None:
        return logits_nV
    columns = shared.to(logits_nV.device)
    chosen_nA = logits_nV.index_select(-1, columns)
    if rest is None:
        return chosen_nA
    others_nV = (logits_nV.float() / rest).index_fill(-1, columns, -torch.inf)
    return torch.cat([chosen_nA.float(), rest * others_nV.logsumexp(-1, keepdim=True)], dim=-1)
