"""Both models' answers for a term that attends from one to the other: what is kept of the teacher's.

teacher's final states, embeddings -> AttendedRead -> column of (first of its row | keys | values)
batch of the student -> answers_of -> AttendedAnswers
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pkt.data.batching import Batch, next_tokens, position_counts
from pkt.data.encoding import Encoded
from pkt.late import Tensor, torch
from pkt.models.architecture import Architecture
from pkt.objectives import AttendedAnswers
from pkt.training.shards import Column

ATTENDED = "attended_answers"


def answers_of(batch: Batch, arch: Architecture) -> AttendedAnswers:
    """Return the student's side of a batch, without what the teacher says."""
    row_N, place_N = batch.supervised.nonzero(as_tuple=True)
    tokens_N = next_tokens(batch)[row_N, place_N]
    return AttendedAnswers(
        read_NE=_embedded(arch, batch.input_ids[row_N, place_N], tokens_N), tokens_N=tokens_N, row_N=row_N
    )


def with_teacher(answers: AttendedAnswers, kept_MX: Tensor) -> AttendedAnswers:
    """Return both sides of a batch.

    Args:
        answers: the student's.
        kept_MX: the teacher's, as `AttendedRead` keeps them.
    """
    width = (kept_MX.shape[1] - 1) // 3
    return replace(
        answers,
        keys_ME=kept_MX[:, 1 : 1 + 2 * width],
        values_MD=kept_MX[:, 1 + 2 * width :],
        row_M=kept_MX[:, 0].cumsum(0).long() - 1,
    )


@torch.no_grad()
def _embedded(arch: Architecture, *tokens: Tensor) -> Tensor:
    table_VD = arch.embedding_weight()
    return torch.cat([table_VD[ids].float() for ids in tokens], dim=-1)


@dataclass(frozen=True, kw_only=True)
class AttendedRead:
    """How the teacher's answers are kept.

    Attributes:
        width: of its states.
        spread: standard deviation of its embeddings.
    """

    width: int
    spread: float

    @classmethod
    def of(cls, arch: Architecture) -> AttendedRead:
        """Return how those of a teacher are."""
        return cls(width=arch.width, spread=float(arch.embedding_weight().detach().float().std()))

    def columns(self, encoded: Encoded) -> dict[str, Column]:
        """Return what is kept of some rows: 1 + 3 D_T numbers at each position that predicts an answer token."""
        counts = position_counts(replace(encoded, met=None, follows=None), "answer")
        return {ATTENDED: Column(counts=counts, width=1 + 3 * self.width, dtype=torch.float32)}

    @torch.no_grad()
    def __call__(self, arch: Architecture, final_BTD: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the column of a batch."""
        answers = answers_of(batch, arch)
        row_M, keys_ME = answers.row_N, answers.read_NE / self.spread
        states_MD = final_BTD[batch.supervised].float()
        values_MD = keys_ME[:, self.width :] + states_MD / states_MD.std(-1, keepdim=True)
        first_M = torch.nn.functional.pad(row_M[1:] != row_M[:-1], (1, 0), value=True)
        return {ATTENDED: torch.cat([first_M[:, None].float(), keys_ME, values_MD], dim=-1)}
