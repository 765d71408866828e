"""Cosine: the direction of each state against that of its target.

    L = mean_n 1 - cos(h_n, h*_n)

Shape suffixes: N positions, D width.
Source: SemAlign v1, layer term (arXiv 2510.24208).
"""

from __future__ import annotations

from dataclasses import dataclass

from pkt.late import Tensor, functional
from pkt.objectives.chunks import check_pairs
from pkt.objectives.term import LayerTerm
from pkt.objectives.view import Pair, View

EPS = 1e-8  # lower bound of both norms: a zero state has cosine 0 and a finite gradient


@dataclass(frozen=True, kw_only=True)
class Cosine(LayerTerm):
    """1 - cos(h, h*), mean over positions and pairs."""

    def pair_sum(self, pair: Pair, view: View) -> Tensor:
        """Return sum_n 1 - cos(h_n, h*_n)."""
        states_ND, targets_ND = check_pairs(pair.states_ND, pair.targets_ND)
        cosine_N = functional.cosine_similarity(states_ND.float(), targets_ND.float(), dim=-1, eps=EPS)
        return len(cosine_N) - cosine_N.sum()
