"""Approximate likelihood matching: how likely student and teacher hold each chunk of an answer's text.

    answer | The| cap|ital|:|        student     log p of a chunk: the sum over its tokens
           | The| capital |:|        teacher     chunks:  The / capital / :

A chunk lies between two neighbouring positions at which both models have read the same text, so it has the same bytes
for both, in whatever tokens. Of one vocabulary every token is a chunk.

Shape suffixes: N positions that predict an answer token, n of a slice, D width, C chunks.
Source: Minixhofer et al., "Cross-Tokenizer Distillation via Approximate Likelihood Matching" (arXiv 2503.20083).
Deviations: chunks end at equal bytes of the row's own text instead of equal decoded substrings; `unbiased` corrects
every chunk and leaves none out by a table of the tokenizers' biases, which the paper counts on a corpus.
"""

from __future__ import annotations

from dataclasses import dataclass

from pkt.late import Tensor, torch
from pkt.objectives.chunks import each_over_chunks
from pkt.objectives.needs import Chunks, Ends, Head, Need
from pkt.objectives.term import BaseTerm
from pkt.objectives.view import Sums, View
from pkt.settings import setting

SURE = (
    1e-6  # nats that every chunk is held to be less likely than it is, as the logarithm of 1 - p has to exist
)


@dataclass(frozen=True, kw_only=True)
class ChunkedAnswers:
    """The chunks of a batch's answers.

    Attributes:
        tokens_N: the tokens to predict.
        begins_N: whether a chunk begins with it; the first of each row does.
        row_N: rows of the batch, ascending.
        teacher_C: log-likelihoods; None before the forward pass.
    """

    tokens_N: Tensor
    begins_N: Tensor
    row_N: Tensor
    teacher_C: Tensor | None = None


def chunk_log_likelihoods(
    log_p_N: Tensor, begins_N: Tensor, row_N: Tensor, log_space_N: Tensor | None = None
) -> Tensor:
    """Return the log-likelihood of each chunk (C), in nats.

    Args:
        log_p_N: log-probability of each token of the answers, row after row.
        begins_N: see `ChunkedAnswers`.
        row_N: see there.
        log_space_N: log-probability that a token which begins a word, or ends the text, comes at each position: that of
            the position behind a chunk is added to it (nothing behind a row's last chunk).
    """
    place_C = begins_N.nonzero()[:, 0]
    total_C = log_p_N.new_zeros(len(place_C)).index_add(0, begins_N.cumsum(0) - 1, log_p_N)
    if log_space_N is None or len(place_C) == 0:
        return total_C
    goes_on = row_N[place_C[1:]] == row_N[place_C[:-1]]
    behind = torch.where(goes_on, log_space_N[place_C[1:]], log_space_N.new_zeros(()))
    return total_C + torch.cat([behind, behind.new_zeros(1)])


def binary_cross_entropy(log_p_C: Tensor, log_q_C: Tensor, temperature: float) -> Tensor:
    """Return -(p log q + (1 - p) log(1 - q)) of p and q to the power of 1 / temperature, (C).

    Its least value, at p = q, is the entropy of p and not 0.
    """
    log_p, log_q = (log.float() / temperature - SURE for log in (log_p_C, log_q_C))
    return -(log_p.exp() * log_q - log_p.expm1() * torch.log(-log_q.expm1()))


def token_log_probs(logits_nV: Tensor, tokens_n: Tensor, space_V: Tensor | None) -> Tensor:
    """Return (n, 1): the log-probability of each token; with the tokens that begin a word, theirs together (n, 2)."""
    log_p_nV = logits_nV.float().log_softmax(-1)
    own_n1 = log_p_nV.gather(-1, tokens_n[:, None])
    if space_V is None:
        return own_n1
    others = ~torch.nn.functional.pad(space_V, (0, log_p_nV.shape[-1] - len(space_V)))
    return torch.cat([own_n1, log_p_nV.masked_fill(others, -torch.inf).logsumexp(-1, keepdim=True)], dim=-1)


@dataclass(frozen=True, kw_only=True)
class Chunk(BaseTerm):
    """Binary cross-entropy between the teacher's and the student's likelihood of each chunk, a mean over chunks.

    Attributes:
        ends: ``any`` (wherever both models have read the same text), ``space`` (only where a word begins behind it) or
            ``unbiased`` (as ``any``, times the probability that a word begins behind it: two tokenizers rule out
            different continuations of a token).
        temperature: likelihoods are taken to the power of 1 / temperature.
    """

    ends: Ends = "unbiased"
    temperature: float = setting(100.0, above=0)

    @property
    def needs(self) -> tuple[Need, ...]:
        """The chunks and the head."""
        return (Chunks(ends=self.ends), Head())

    def count(self, view: View) -> int:
        """Return the number of chunks."""
        return int(view.chunks.begins_N.sum())

    def __call__(self, view: View) -> Sums:
        """Return the sum over chunks."""
        chunks, head = view.chunks, view.head
        space_V = head.space if self.ends == "unbiased" else None

        def read(h_nD: Tensor, tokens_n: Tensor) -> Tensor:
            return token_log_probs(head.read_out(h_nD), tokens_n, space_V)

        own_NX = each_over_chunks(read, view.final_ND, chunks.tokens_N)
        log_space_N = None if space_V is None else own_NX[:, 1]
        own_C = chunk_log_likelihoods(own_NX[:, 0], chunks.begins_N, chunks.row_N, log_space_N)
        assert chunks.teacher_C is not None, "a term is called with what the teacher says"
        total = binary_cross_entropy(chunks.teacher_C, own_C, self.temperature).sum()
        return Sums(total=total, count=len(own_C))
