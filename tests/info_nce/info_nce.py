"""InfoNCE as a stranger would write it: one file, one YAML (conf/term), one test (tests/contract/test_info_nce.py).

    L = mean_n -log exp(s_nn / tau) / sum_m exp(s_nm / tau),   s_nm = cos(A h_n, B h*_m)

m runs over the positions of the batch, or over the own target and what a memory bank keeps of other rows: one mean
target per row, as of the last step that had the row. A and B are learned.

Shape suffixes: N positions, R rows, D width, W learned width.
Source: van den Oord et al., arXiv 1807.03748; the bank as in Tian et al., arXiv 1910.10699.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from pkt.objectives import LayerTerm, Need, Pair, RowIds, Sizes, View
from pkt.settings import setting


class Side(nn.Module):
    """What a pair of layers learns, and remembers."""

    def __init__(self, states: int, targets: int, width: int, rows: int) -> None:
        super().__init__()
        self.own = nn.Linear(states, width, bias=False)
        self.their = nn.Linear(targets, width, bias=False)
        self.register_buffer("bank_RD", torch.zeros(rows, targets))
        self.register_buffer("known_R", torch.zeros(rows, dtype=torch.bool))


@dataclass(frozen=True, kw_only=True)
class InfoNCE(LayerTerm):
    """Tell the own target from others.

    Attributes:
        temperature: tau.
        width: of the learned space.
        negatives: ``batch`` or ``bank``.
    """

    positions: Literal["answer", "all"] = "answer"
    temperature: float = setting(0.1, above=0)
    width: int = setting(8, at_least=1)
    negatives: Literal["batch", "bank"] = "batch"

    @property
    def needs(self) -> tuple[Need, ...]:
        """States, and the rows that they are of."""
        return (*super().needs, RowIds())

    def modules(self, sizes: Sizes) -> nn.Module:
        """Make the learned maps and the bank of every pair."""
        return nn.ModuleDict(
            {str(k): Side(sizes.states[k], sizes.targets[k], self.width, sizes.rows) for k in sizes.states}
        )

    def pair_sum(self, pair: Pair, view: View) -> Tensor:
        """Return the sum over positions."""
        side = view.own[str(pair.layer)]
        targets_ND = pair.targets_ND.float()
        own_NW, their_NW = side.own(pair.states_ND.float()), side.their(targets_ND)
        if self.negatives == "batch":
            right_N = torch.arange(view.count)
            return cross_entropy(self._like(own_NW, their_NW), right_N, reduction="sum")
        positive_N1 = self._like(own_NW, their_NW).diagonal()[:, None]
        negative_NR = self._like(own_NW, side.their(side.bank_RD))
        hidden_NR = ~side.known_R | (torch.arange(len(side.known_R)) == view.row_N[:, None])
        logits = torch.cat([positive_N1, negative_NR.masked_fill(hidden_NR, -torch.inf)], dim=1)
        view.later(lambda: _remember(side, targets_ND, view.row_N))
        return cross_entropy(logits, torch.zeros(view.count, dtype=torch.int64), reduction="sum")

    def _like(self, own_NW: Tensor, their_MW: Tensor) -> Tensor:
        return normalize(own_NW, dim=-1) @ normalize(their_MW, dim=-1).T / self.temperature


def _remember(side: Side, targets_ND: Tensor, row_N: Tensor) -> None:
    """Keep the mean target of each row of the batch."""
    rows, inverse_N, counts = row_N.unique(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(rows), targets_ND.shape[1]).index_add_(0, inverse_N, targets_ND)
    side.bank_RD[rows] = sums / counts[:, None]
    side.known_R[rows] = True
