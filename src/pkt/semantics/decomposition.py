"""Decompose states token by token, which is needed where only the strongest tokens are kept.

    h (unit length) -> a = S_T^T h, block by block of the vocabulary -> running top k of |a| -> S_S a

Shape suffixes: n positions, A anchors (tokens), D width (D_T teacher, D_S student), k tokens that are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

from pkt.late import Tensor, torch

BLOCK = 4096  # tokens alive at once
CHUNK = 512  # positions alive at once


@dataclass(frozen=True, kw_only=True)
class TopTokens:
    """h* = sum of a_i s_S,i over the k tokens of largest |a_i|, a = S_T^T h.

    This is not linear in h and cannot be one matrix: it takes V numbers per position, a block of tokens at a time. Of
    equal |a_i| any may be kept.

    Attributes:
        teacher_AD: s_T,i by row, length 1 (or 0), float32.
        student_AD: s_S,i of the same tokens.
        top_k: tokens that are kept per position.

    Raises:
        ValueError: not the same number of tokens, or no token to keep.
    """

    teacher_AD: Tensor
    student_AD: Tensor
    top_k: int

    def __post_init__(self) -> None:
        if len(self.teacher_AD) != len(self.student_AD):
            raise ValueError(
                f"bases are paired by token, got {len(self.teacher_AD)} and {len(self.student_AD)}"
            )
        if self.top_k < 1:
            raise ValueError(f"top_k is a number of tokens, at least 1, got {self.top_k}")

    def __call__(self, states_ND: Tensor) -> Tensor:
        """Return (..., D_S) float32 of float32 states (..., D_T)."""
        teacher_AD, student_AD = (side.to(states_ND.device) for side in (self.teacher_AD, self.student_AD))
        mapped = [
            _recomposed(*_strongest(part_nD, teacher_AD, self.top_k), student_AD)
            for part_nD in torch.split(states_ND.reshape(-1, states_ND.shape[-1]), CHUNK)
        ]
        return torch.cat(mapped).reshape(*states_ND.shape[:-1], student_AD.shape[1])


def _strongest(states_nD: Tensor, teacher_AD: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Return the k coefficients of largest magnitude and their tokens, (n, k) each."""
    values_nk = states_nD.new_zeros(len(states_nD), 0)
    tokens_nk = torch.zeros(len(states_nD), 0, dtype=torch.int64, device=states_nD.device)
    for start in range(0, len(teacher_AD), BLOCK):
        new = states_nD @ teacher_AD[start : start + BLOCK].T
        tokens = torch.arange(start, start + new.shape[1], device=new.device).expand(len(new), -1)
        values, tokens = torch.cat([values_nk, new], 1), torch.cat([tokens_nk, tokens], 1)
        kept_nk = values.abs().topk(min(top_k, values.shape[1]), dim=1).indices
        values_nk, tokens_nk = values.gather(1, kept_nk), tokens.gather(1, kept_nk)
    return values_nk, tokens_nk


def _recomposed(values_nk: Tensor, tokens_nk: Tensor, student_AD: Tensor) -> Tensor:
    """Return the sum of coefficient times basis vector, (n, D_S)."""
    total_nD = student_AD.new_zeros(len(values_nk), student_AD.shape[1])
    for start in range(0, len(student_AD), BLOCK):
        block_bD = student_AD[start : start + BLOCK]
        inside = (tokens_nk >= start) & (tokens_nk < start + len(block_bD))
        column = torch.where(inside, tokens_nk - start, len(block_bD))  # a spare column for other blocks
        dense_nb = values_nk.new_zeros(len(values_nk), len(block_bD) + 1).scatter_(1, column, values_nk)
        total_nD += dense_nb[:, :-1] @ block_bD
    return total_nD
