"""Learned attention over the teacher's answer: what a student's position should say, put together from all of its.

    student  e(x_n), e(y_n) ── W_q ──> query_n ─┐
    teacher  e(x_m), e(y_m) ─────────> key_m ───┴ softmax over m in the row ──> sum_m a_nm W_v value_m ── head ──> p_n
             e(y_m) + h_m ───────────> value_m

    L = mean_n  -log p_n(y_n) + [argmax p_n = y_n] KL(p_n || q_n),   q_n the student's own distribution

x is the token that is read at a position and y the one behind it, e the embedding of either model, h the teacher's
final state. Nothing is aligned and no token shared: attention is to find which positions belong together. W_q and W_v
learn from the first part, the student from the second; where p_n does not know the answer yet, it teaches nothing.

Shape suffixes: N student positions, M teacher positions, n and m those of one row, D_S and D_T widths, V vocabulary.
Source: Zhang et al., "Dual-Space Knowledge Distillation for Large Language Models" (arXiv 2406.17328), section 3.3.
Deviations: the student's space alone (the paper adds a KL in the teacher's); states are divided by their own standard
deviation and embeddings by that of the table, where the authors' code takes that of the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

from pkt.late import Tensor, nn, torch
from pkt.objectives.chunks import each_over_chunks
from pkt.objectives.needs import Head, Need, TeacherAnswers
from pkt.objectives.term import BaseTerm
from pkt.objectives.view import Sizes, Sums, View
from pkt.settings import setting


@dataclass(frozen=True, kw_only=True)
class AttendedAnswers:
    """Both models' answers of a batch.

    Attributes:
        read_NE: the student's embeddings of the tokens x and y beside each other, (N, 2 D_S), without gradient.
        tokens_N: y.
        row_N: rows of the batch, ascending.
        keys_ME: the teacher's embeddings of x and y, (M, 2 D_T); None before the forward pass, as the next two.
        values_MD: of what is attended to, (M, D_T).
        row_M: as `row_N`.
    """

    read_NE: Tensor
    tokens_N: Tensor
    row_N: Tensor
    keys_ME: Tensor | None = None
    values_MD: Tensor | None = None
    row_M: Tensor | None = None


def attended(
    query_NE: Tensor, keys_ME: Tensor, values_MD: Tensor, rows: tuple[Tensor, Tensor], count: int
) -> Tensor:
    """Return softmax(q k^T / sqrt(E)) v of each query (N, D), over the keys of its row.

    Args:
        query_NE: row after row, as all others.
        keys_ME: of every row at least one.
        values_MD: one per key.
        rows: of queries and keys, ascending.
        count: of rows.
    """
    sizes = [torch.bincount(row, minlength=count).tolist() for row in rows]
    sides = zip(
        torch.split(query_NE, sizes[0]),
        torch.split(keys_ME, sizes[1]),
        torch.split(values_MD, sizes[1]),
        strict=True,
    )
    scale = 1.0 / math.sqrt(query_NE.shape[-1])
    return torch.cat([((q_nE @ k_mE.T) * scale).softmax(-1) @ v_mD for q_nE, k_mE, v_mD in sides])


def projections(*, student: int, teacher: int) -> nn.ModuleDict:
    """Make W_q and W_v, both with a bias.

    Args:
        student: its width.
        teacher: the teacher's.
    """
    return nn.ModuleDict({"query": nn.Linear(2 * student, 2 * teacher), "value": nn.Linear(teacher, student)})


@dataclass(frozen=True, kw_only=True)
class Attended(BaseTerm):
    """Cross-entropy of what attention puts together, and divergence of the student from it, a mean over positions.

    Attributes:
        temperature: of both softmaxes in the divergence.
    """

    temperature: float = setting(1.0, above=0)

    @property
    def needs(self) -> tuple[Need, ...]:
        """Both models' answers and the student's head."""
        return (TeacherAnswers(), Head())

    def modules(self, sizes: Sizes) -> nn.Module | None:
        """Make the two projections."""
        return projections(student=sizes.student, teacher=sizes.teacher)

    def __call__(self, view: View) -> Sums:
        """Return the sum over positions."""
        answers, own, head = view.answers, cast("nn.ModuleDict", view.own), view.head
        assert answers.keys_ME is not None, "a term is called with what the teacher says"
        assert answers.values_MD is not None, "a term is called with what the teacher says"
        assert answers.row_M is not None, "a term is called with what the teacher says"
        rows, count = (answers.row_N, answers.row_M), int(answers.row_M[-1]) + 1
        values_MD = own["value"](answers.values_MD)
        taught_ND = attended(own["query"](answers.read_NE), answers.keys_ME, values_MD, rows, count)

        def compared(h_nD: Tensor, taught_nD: Tensor, tokens_n: Tensor) -> Tensor:
            taught_nV = head.read_out(taught_nD.to(h_nD.dtype)).float()
            surprise_n = torch.nn.functional.cross_entropy(taught_nV, tokens_n, reduction="none")
            log_p_nV = (taught_nV.detach() / self.temperature).log_softmax(-1)
            log_q_nV = (head.read_out(h_nD).float() / self.temperature).log_softmax(-1)
            apart_n = (log_p_nV.exp() * (log_p_nV - log_q_nV)).sum(-1)
            return surprise_n + apart_n * (taught_nV.argmax(-1) == tokens_n)

        each_N = each_over_chunks(compared, view.final_ND, taught_ND, answers.tokens_N)
        return Sums(total=each_N.sum(), count=view.count)
