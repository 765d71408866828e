"""Mean square: each state against its target, lengths included.

    L = mean_n mean_d (h_nd - h*_nd)^2

Shape suffixes: N positions, D width.
Source: FitNets (Romero et al., arXiv 1412.6550).
"""

from __future__ import annotations

from dataclasses import dataclass

from pkt.late import Tensor, functional
from pkt.objectives.chunks import check_pairs
from pkt.objectives.term import LayerTerm
from pkt.objectives.view import Pair, View


@dataclass(frozen=True, kw_only=True)
class MeanSquare(LayerTerm):
    """Mean over channels of (h - h*)^2, mean over positions and pairs."""

    def pair_sum(self, pair: Pair, view: View) -> Tensor:
        """Return sum_n mean_d (h - h*)^2."""
        states_ND, targets_ND = check_pairs(pair.states_ND, pair.targets_ND)
        total = functional.mse_loss(states_ND.float(), targets_ND.float(), reduction="sum")
        return total / states_ND.shape[1]
