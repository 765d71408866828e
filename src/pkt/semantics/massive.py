"""Positions with massive activations, which fits, statistics and quality cards leave out.

Large models give a few positions (often the first token, or a delimiter) states that are tens to hundreds of times as
long as all others and hardly depend on the text. Sums of squares over positions are theirs alone: the mean eigenvalue
that a ridge penalty is measured by, variances, CKA.

Shape suffixes: N positions, D width.
Source: Sun et al., "Massive Activations in Large Language Models" (arXiv 2402.17762); the rule is ours.
"""

from __future__ import annotations

from pkt.late import Tensor, torch

MASSIVE = 15.0  # medians: beyond the longest states of the nano models (10), below those that are meant (40 and more)
BLOCK = 4096  # positions alive in float64 at once


@torch.no_grad()
def ordinary(*sides: Tensor, beyond: float | None = MASSIVE) -> Tensor:
    """Return which positions are ordinary, (N) bool on the CPU: those whose state is massive on no side.

    A state is massive if its norm is more than `beyond` times the median norm of its side. States that are not finite
    count as ordinary, so that they are found by what checks for them.

    Args:
        sides: states of the same N positions, (N, D), such as the teacher's and the student's.
        beyond: times the median; None: every position is ordinary.
    """
    return ordinary_norms(torch.stack([_norms(side_ND) for side_ND in sides]), beyond)


def ordinary_norms(norm_LN: Tensor, beyond: float | None) -> Tensor:
    """Return the same from the norms, one row per side; of no position at all, nothing."""
    if beyond is None or norm_LN.shape[1] == 0:
        return torch.ones(norm_LN.shape[1], dtype=torch.bool)
    middle_L1 = norm_LN.median(dim=1, keepdim=True).values
    massive_LN = (norm_LN > beyond * middle_L1) & (middle_L1 > 0) & norm_LN.isfinite()
    return ~massive_LN.any(0)


def _norms(states_ND: Tensor) -> Tensor:
    return torch.cat([block.float().norm(dim=-1).cpu() for block in torch.split(states_ND, BLOCK)])


def without_massive(states: tuple[Tensor, Tensor], beyond: float | None) -> tuple[tuple[Tensor, Tensor], int]:
    """Return paired states at the ordinary positions, and how many positions were left out."""
    kept_N = ordinary(*states, beyond=beyond)
    left_out = len(kept_N) - int(kept_N.sum())
    if left_out == 0:
        return states, 0
    teacher_ND, student_ND = states
    return (teacher_ND[kept_N.to(teacher_ND.device)], student_ND[kept_N.to(student_ND.device)]), left_out
