"""Mean square: each state against its target, lengths included.

    L = mean_n mean_d (h_nd - h*_nd)^2

Shape suffixes: N positions, D width.
Source: FitNets (Romero et al., arXiv 1412.6550).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from pkt.objectives.chunks import check_pairs
from pkt.objectives.term import LayerTerm
from pkt.objectives.view import View


def mean_square_sum(states_ND: Tensor, targets_ND: Tensor) -> Tensor:
    """Return sum_n mean_d (h - h*)^2, float32; targets are held constant.

    Raises:
        ValueError: no position, or shapes that differ.
    """
    check_pairs(states_ND, targets_ND)
    total = functional.mse_loss(states_ND.float(), targets_ND.detach().float(), reduction="sum")
    return total / states_ND.shape[1]


@dataclass(frozen=True, kw_only=True)
class MeanSquare(LayerTerm):
    """Mean over channels of (h - h*)^2, mean over positions and pairs."""

    def pair_sum(self, states_ND: Tensor, targets_ND: Tensor, view: View) -> Tensor:
        """Return the sum of one pair."""
        return mean_square_sum(states_ND, targets_ND)
