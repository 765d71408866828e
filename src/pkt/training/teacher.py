"""The teacher's next-token distributions at answer positions: kept once, or computed at each step.

    rows -> teacher -> logits over the shared tokens / tau -> top-k + tail -> TopRows (cached)
    batch -> teacher -> final states ---------------------------------------> logits, chunk by chunk (live)

Tokens are positions in the list of ids that both models have (`shared`), so padded heads line up.
Shape suffixes: N positions of all rows, n positions of a batch, K kept tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from pkt.data.batching import Batch, collate, sorted_batches
from pkt.data.encoding import Encoded
from pkt.errors import PktError
from pkt.late import Tensor, torch
from pkt.models.architecture import Architecture
from pkt.models.taps import decode
from pkt.objectives import CHUNK, Distributions, TokenDistribution, shared_columns, token_distribution
from pkt.training.capture import position_counts
from pkt.training.meter import Meter
from pkt.training.states import RowStates


class TeacherOutput(Protocol):
    """A source of the teacher's distributions."""

    def of(self, batch: Batch) -> Distributions:
        """Return those of a batch's answer positions, row after row, on the batch's device."""
        ...


@dataclass(frozen=True, kw_only=True)
class TopRows:
    """Kept distributions of R rows: K log-probabilities, their tokens and the log tail mass per answer position.

    Attributes:
        log_probs: (N, K).
        tokens: (N, K) int32; None: all V, in order.
        log_tail: (N, 1); None with `tokens`.
    """

    log_probs: RowStates
    tokens: RowStates | None = None
    log_tail: RowStates | None = None

    def of(self, batch: Batch) -> Distributions:
        """Return the kept distributions of a batch."""
        device = batch.input_ids.device
        log_probs = self.log_probs.of(batch.index).to(device)
        if self.tokens is None or self.log_tail is None:
            return Distributions(tensors=(log_probs,), read=lambda p: TokenDistribution(log_probs_nK=p))
        tokens = self.tokens.of(batch.index).to(device, torch.int64)
        tail = self.log_tail.of(batch.index).to(device)[:, 0]
        return Distributions(
            tensors=(log_probs, tokens, tail),
            read=lambda p, ids, rest: TokenDistribution(log_probs_nK=p, tokens_nK=ids, log_tail_n=rest),
        )

    def summary(self) -> tuple[str, str, str]:
        """Return as text: the number of positions, the tokens kept at each, and their mean probability mass."""
        mass = self.log_probs.flat_ND.exp().sum(-1).mean()
        return str(len(self.log_probs.flat_ND)), str(self.log_probs.flat_ND.shape[1]), f"{float(mass):.6f}"


@dataclass(frozen=True, kw_only=True)
class LiveTeacher:
    """The teacher itself: one forward pass per batch, logits chunk by chunk.

    Attributes:
        arch: the frozen teacher.
        shared: ids that both models have.
        temperature: tau.
        top_k: kept tokens; None: all.
        meter: counts the forward tokens.
    """

    arch: Architecture
    shared: Tensor
    temperature: float
    top_k: int | None
    meter: Meter = field(default_factory=Meter)

    @torch.no_grad()
    def of(self, batch: Batch) -> Distributions:
        """Run the teacher on a batch."""
        final_BTD = decode(self.arch, batch.input_ids, batch.attention_mask)
        self.meter.count(int(batch.attention_mask.sum()), layers=self.arch.depth)
        return Distributions(tensors=(final_BTD[batch.supervised],), read=self._read)

    @torch.no_grad()
    def _read(self, final_nD: Tensor) -> TokenDistribution:
        logits_nV = shared_columns(self.arch.read_out(final_nD), self.shared)
        return token_distribution(logits_nV, top_k=self.top_k, temperature=self.temperature)


def capture_outputs(
    teacher: LiveTeacher,
    encoded: Encoded,
    *,
    batch_size: int,
    listen: Callable[[int], None] | None = None,
) -> TopRows:
    """Keep the teacher's distribution at every answer position of some rows.

    Args:
        teacher: with the temperature and the number of tokens to keep.
        encoded: the rows.
        batch_size: rows per forward pass.
        listen: called with the number of rows done after each batch.

    Returns:
        float32 log-probabilities, on the CPU.

    Raises:
        PktError: one that is NaN.
    """
    counts, whole = position_counts(encoded, "answer"), len(teacher.shared)
    kept = whole if teacher.top_k is None else min(teacher.top_k, whole)
    log_probs = RowStates.empty(counts, kept, torch.float32)
    cut = kept < whole
    tokens = RowStates.empty(counts, kept, torch.int32) if cut else None
    log_tail = RowStates.empty(counts, 1, torch.float32) if cut else None
    for rows in sorted_batches(encoded.lengths, batch_size):
        found = teacher.of(collate(encoded, rows).to(teacher.arch.device))
        parts = [
            found.read(*part) for part in zip(*(torch.split(t, CHUNK) for t in found.tensors), strict=True)
        ]
        if any(bool(part.log_probs_nK.isnan().any()) for part in parts):
            raise PktError(
                f"the teacher's next-token distributions are not numbers (rows {rows[:4]}...); load it in float32 or "
                "bfloat16 (model.teacher.dtype), or look at its files."
            )
        log_probs.write(rows, torch.cat([part.log_probs_nK for part in parts]))
        if tokens is not None and log_tail is not None:
            tokens.write(rows, torch.cat([part.tokens_nK for part in parts if part.tokens_nK is not None]))
            log_tail.write(
                rows, torch.cat([part.log_tail_n for part in parts if part.log_tail_n is not None])[:, None]
            )
        if listen is not None:
            listen(len(rows))
    return TopRows(log_probs=log_probs, tokens=tokens, log_tail=log_tail)
