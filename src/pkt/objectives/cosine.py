"""Cosine: the direction of each state against that of its target.

    L = mean_n 1 - cos(h_n, h*_n)

Shape suffixes: N positions, D width.
Source: SemAlign v1, layer term (arXiv 2510.24208).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from pkt.objectives.chunks import check_pairs
from pkt.objectives.term import LayerTerm
from pkt.objectives.view import View


def cosine_sum(states_ND: Tensor, targets_ND: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Return sum_n 1 - cos(h_n, h*_n), float32.

    Args:
        states_ND: h; the gradient flows here.
        targets_ND: h*, held constant.
        eps: lower bound of both norms, so that a zero state has cosine 0 and a finite gradient.

    Raises:
        ValueError: no position, or shapes that differ.
    """
    check_pairs(states_ND, targets_ND)
    cosine_N = functional.cosine_similarity(states_ND.float(), targets_ND.detach().float(), dim=-1, eps=eps)
    return len(cosine_N) - cosine_N.sum()


@dataclass(frozen=True, kw_only=True)
class Cosine(LayerTerm):
    """1 - cos(h, h*), mean over positions and pairs."""

    def pair_sum(self, states_ND: Tensor, targets_ND: Tensor, view: View) -> Tensor:
        """Return the sum of one pair."""
        return cosine_sum(states_ND, targets_ND)
