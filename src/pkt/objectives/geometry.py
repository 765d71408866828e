"""Geometry: relations between tokens, which depend on the basis of neither space.

    L = mean over sequences of 1 - <A, B> / (|A| |B|),   A = R_c R_c^T,   B = R*_c R*_c^T

R and R* are the states of a sequence and their targets, centred over its tokens: 1 - linear CKA.

Shape suffixes: N positions, D width, B sequences, T longest sequence.
Source: SemAlign, arXiv 2510.24208 v2, of which the abstract was at hand; this form is our reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pkt.late import Tensor, functional, torch
from pkt.objectives.needs import Need, Sequences, States
from pkt.objectives.scaling import near_one
from pkt.objectives.term import LayerTerm
from pkt.objectives.view import Pair, View

ROUND_OFF = 1e-6  # a share of the tokens' lengths, below which what is left after centring is round-off


def geometry_sum(
    states_ND: Tensor, targets_ND: Tensor, sequence_N: Tensor, *, relation: str = "cka", eps: float = 1e-12
) -> Tensor:
    """Return the sum over sequences of the distance between the relations A and B.

    - ``cka``: 1 - <A, B>_F / (|A|_F |B|_F), that is 1 - linear CKA: it does not change when either side is rotated or
      scaled. It is computed from the D x D or from the T x T products, whichever are fewer.
    - ``cosine``: mean over token pairs of (a_st - b_st)^2, a and b the cosines between centred tokens.

    Sequences of one token have no geometry and are left out; with none left the sum is 0. A token that lies at its
    sequence's mean, to round-off, counts as the mean: where all tokens are equal, the distance is 1 (``cka``) and
    the gradient 0.

    Args:
        states_ND: R; the gradient flows here.
        targets_ND: R*, held constant; its width may differ.
        sequence_N: which sequence each position belongs to, ascending.
        relation: see above.
        eps: lower bound of |A|_F |B|_F, of states scaled to the size of 1, and of a token's length.

    Raises:
        ValueError: no position, or not one target per state.
    """
    if len(states_ND) != len(targets_ND) or len(states_ND) == 0:
        raise ValueError(f"paired states are needed, got {len(states_ND)} and {len(targets_ND)} positions")
    _, counts_B = torch.unique_consecutive(sequence_N, return_counts=True)
    mask_BT = torch.arange(int(counts_B.max()), device=states_ND.device) < counts_B[:, None]
    r_BTD, target_BTD = (
        _centred(side.float(), mask_BT, counts_B) for side in (states_ND, targets_ND.detach())
    )
    if relation == "cka":
        distance_B = _cka_distance(r_BTD, target_BTD, eps)
    else:
        distance_B = _cosine_distance(r_BTD, target_BTD, counts_B, eps)
    return torch.where(counts_B > 1, distance_B, 0.0).sum()


def _centred(flat_ND: Tensor, mask_BT: Tensor, counts_B: Tensor) -> Tensor:
    """Lay positions out by sequence, zero-padded, take each sequence's mean off, and scale it to the size of 1."""
    padded_BTD = flat_ND.new_zeros(*mask_BT.shape, flat_ND.shape[-1])
    padded_BTD = padded_BTD.masked_scatter(mask_BT[..., None], flat_ND)
    mean_B1D = padded_BTD.sum(1, keepdim=True) / counts_B[:, None, None]
    return near_one((padded_BTD - mean_B1D) * _differs(padded_BTD, mean_B1D, mask_BT), (1, 2))


@torch.no_grad()
def _differs(padded_BTD: Tensor, mean_B1D: Tensor, mask_BT: Tensor) -> Tensor:
    """Return which tokens, of those that are there, lie apart from the mean by more than round-off, (B, T, 1)."""
    length_BT, apart_BT = padded_BTD.norm(dim=-1), (padded_BTD - mean_B1D).norm(dim=-1)
    typical_B1 = length_BT.sum(1, keepdim=True) / mask_BT.sum(1, keepdim=True)
    differs_BT: Tensor = mask_BT & ~(apart_BT <= ROUND_OFF * (length_BT + typical_B1))
    return differs_BT[..., None]


def _cka_distance(r_BTD: Tensor, target_BTD: Tensor, eps: float) -> Tensor:
    inner_B = _inner(r_BTD, target_BTD)
    square_B = _inner(r_BTD, r_BTD) * _inner(target_BTD, target_BTD)
    return 1.0 - inner_B * square_B.clamp_min(eps**2).rsqrt()


def _inner(x_BTD: Tensor, y_BTE: Tensor) -> Tensor:
    """Return <X X^T, Y Y^T>_F = |X^T Y|_F^2 per sequence."""
    tokens, width = x_BTD.shape[1], min(x_BTD.shape[2], y_BTE.shape[2])
    if tokens < width:
        return ((x_BTD @ x_BTD.mT) * (y_BTE @ y_BTE.mT)).sum((1, 2))
    return (x_BTD.mT @ y_BTE).square().sum((1, 2))


def _cosine_distance(r_BTD: Tensor, target_BTD: Tensor, counts_B: Tensor, eps: float) -> Tensor:
    a_BTT, b_BTT = (
        unit @ unit.mT
        for unit in (functional.normalize(side, dim=-1, eps=eps) for side in (r_BTD, target_BTD))
    )
    return (a_BTT - b_BTT).square().sum((1, 2)) / counts_B.square()


@dataclass(frozen=True, kw_only=True)
class Geometry(LayerTerm):
    """The distance between two relation geometries, mean over sequences of two tokens or more, and over pairs.

    Attributes:
        relation: ``cka``, or ``cosine``: mean squared difference of cosines, see `geometry_sum`.
        scope: relations among the tokens of one ``sequence``, or of the whole ``batch``, which then has to be one
            micro batch.

    Raises:
        ValueError: relations of a sequence, some of whose tokens are left out.
    """

    relation: Literal["cka", "cosine"] = "cka"
    scope: Literal["sequence", "batch"] = "sequence"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scope == "sequence" and self.positions == "answer":
            raise ValueError(
                "the geometry term compares all tokens of a sequence with one another: set positions=all "
                "(or scope=batch), got positions=answer"
            )

    @property
    def needs(self) -> tuple[Need, ...]:
        """States and the sequences that they are in."""
        states = States(
            positions=self.positions,
            single_teacher=True,
            because="relations of a mixture of layers are those of none of them",
            constant=True,
        )
        return (states, Sequences(together=self.scope == "batch"))

    def count(self, view: View) -> int:
        """Return the number of sequences that have a geometry."""
        _, counts_B = torch.unique_consecutive(self._sequence(view), return_counts=True)
        return int((counts_B > 1).sum())

    def pair_sum(self, pair: Pair, view: View) -> Tensor:
        """Return the sum over sequences."""
        return geometry_sum(pair.states_ND, pair.targets_ND, self._sequence(view), relation=self.relation)

    def _sequence(self, view: View) -> Tensor:
        return view.sequence_N if self.scope == "sequence" else torch.zeros_like(view.sequence_N)
