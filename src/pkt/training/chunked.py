"""The chunks of a batch's answers, and how likely the teacher holds them.

batch -> chunked -> ChunkedAnswers (of either model)      teacher's final states -> ChunkRead -> column
"""

from __future__ import annotations

from dataclasses import dataclass

from pkt.data.batching import Batch, chunked_mask, next_tokens, position_counts, position_mask
from pkt.data.encoding import Encoded
from pkt.late import Tensor, torch
from pkt.models.architecture import Architecture
from pkt.objectives import CHUNK, ChunkedAnswers, chunk_log_likelihoods, token_log_probs
from pkt.objectives.needs import Ends
from pkt.training.shards import Column

CHUNKS = "chunk_log_likelihoods"
_BEGIN = {"any": "answer", "unbiased": "answer", "space": "word"}


def chunked(batch: Batch, ends: Ends) -> tuple[ChunkedAnswers, Tensor]:
    """Return the chunks of a batch, and the positions that predict their tokens, (B, T) bool."""
    begins_BT = position_mask(batch, _BEGIN[ends])
    mask_BT = chunked_mask(batch, begins_BT)
    found = ChunkedAnswers(
        tokens_N=next_tokens(batch)[mask_BT], begins_N=begins_BT[mask_BT], row_N=mask_BT.nonzero()[:, 0]
    )
    return found, mask_BT


@dataclass(frozen=True, kw_only=True)
class ChunkRead:
    """How the likelihoods of chunks are kept.

    Attributes:
        ends: see `Chunk`.
        space: (V) bool, tokens of the teacher that begin a word or end a text; None: they do not count.
    """

    ends: Ends
    space: Tensor | None = None

    def columns(self, encoded: Encoded) -> dict[str, Column]:
        """Return what is kept of some rows: a number per chunk."""
        counts = position_counts(encoded, _BEGIN[self.ends])
        return {CHUNKS: Column(counts=counts, width=1, dtype=torch.float32)}

    @torch.no_grad()
    def __call__(self, arch: Architecture, final_BTD: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the column of a batch, V numbers per position at a time."""
        chunks, mask_BT = chunked(batch, self.ends)
        space_V = None if self.space is None else self.space.to(final_BTD.device)
        parts = zip(torch.split(final_BTD[mask_BT], CHUNK), torch.split(chunks.tokens_N, CHUNK), strict=True)
        read_NX = torch.cat([token_log_probs(arch.read_out(h_nD), ids, space_V) for h_nD, ids in parts])
        log_space_N = None if space_V is None else read_NX[:, 1]
        found_C = chunk_log_likelihoods(read_NX[:, 0], chunks.begins_N, chunks.row_N, log_space_N)
        return {CHUNKS: found_C[:, None]}
