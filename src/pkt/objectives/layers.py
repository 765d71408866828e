"""Layer terms beyond the cosine: mean square, Fisher, geometry. Tensors in, one scalar out, float32.

Shape suffixes: N positions, D width, V vocabulary, B sequences, T longest sequence, K kept tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pkt.objectives.chunks import CHUNK, check_pairs, over_chunks
from pkt.objectives.divergence import coarse
from pkt.objectives.terms import ReadOut


def mean_square(states_ND: Tensor, targets_ND: Tensor) -> Tensor:
    """Return mean_nd (h - h*)^2 (FitNets, Romero et al., arXiv 1412.6550).

    Raises:
        ValueError: no position, or shapes that differ.
    """
    check_pairs(states_ND, targets_ND)
    return functional.mse_loss(states_ND.float(), targets_ND.detach().float())


def fisher_distance(
    states_ND: Tensor,
    targets_ND: Tensor,
    read_out: ReadOut,
    *,
    top_k: int | None = None,
    chunk: int = CHUNK,
) -> Tensor:
    """Return mean_n 1/2 (z - z*)^T F (z - z*) with F = diag(p*) - p* p*^T, p* = softmax(z*).

    z and z* are the read-outs of the student's state and of its target; the quadratic is
    1/2 Var_{p*}(z - z*), the second-order expansion of KL(p* || softmax(z)) around z*.

    Args:
        states_ND: h; the gradient flows here.
        targets_ND: h*, held constant.
        read_out: states to logits, through the student's final norm and head.
        top_k: F over the K likeliest tokens of p* and one bucket for the rest (its logit is their log-sum-exp);
            None: all tokens.
        chunk: positions whose V-wide numbers are alive at once.

    Raises:
        ValueError: no position, shapes that differ, or a chunk below 1.

    Source: SemAlign, Findings of ACL 2026, of which the abstract was at hand; this form is our reading.
    """
    check_pairs(states_ND, targets_ND)

    def quadratic(h_nD: Tensor, target_nD: Tensor) -> Tensor:
        with torch.no_grad():
            wanted_nV = read_out(target_nD).float()
        kept_nK = None
        if top_k is not None and top_k < wanted_nV.shape[-1]:
            kept_nK = wanted_nV.topk(top_k, dim=-1).indices
        wanted = coarse(wanted_nV, kept_nK)
        excess = coarse(read_out(h_nD).float(), kept_nK) - wanted
        p = wanted.softmax(-1)
        mean_n1 = (p * excess).sum(-1, keepdim=True)
        return 0.5 * (p * (excess - mean_n1).square()).sum()

    return over_chunks(quadratic, states_ND, targets_ND.detach(), chunk=chunk) / len(states_ND)


def geometry_distance(
    states_ND: Tensor, targets_ND: Tensor, sequence_N: Tensor, *, relation: str = "cka", eps: float = 1e-12
) -> Tensor:
    """Return the mean over sequences of the distance between two token-token relation geometries.

    Both sides are centred over the tokens of a sequence; A = R_c R_c^T, B = R*_c R*_c^T.

    - ``cka``: 1 - <A, B>_F / (|A|_F |B|_F), that is 1 - linear CKA: invariant to orthogonal maps and to scale
      of either side. Computed from the D x D or from the T x T products, whichever are fewer.
    - ``cosine``: mean over token pairs of (a_st - b_st)^2, a and b the cosines between centred tokens.

    Sequences of one token have no geometry and are left out; with none left the distance is 0.

    Args:
        states_ND: R; the gradient flows here.
        targets_ND: R*, held constant; its width may differ.
        sequence_N: which sequence each position belongs to, ascending.
        relation: see above.
        eps: lower bound of |A|_F |B|_F and of a token's length.

    Raises:
        ValueError: no position, or not one target per state.

    Source: SemAlign, arXiv 2510.24208 v2, of which the abstract was at hand; this form is our reading.
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
    has_B = counts_B > 1
    mean: Tensor = torch.where(has_B, distance_B, 0.0).sum() / has_B.sum().clamp_min(1)
    return mean


def _centred(flat_ND: Tensor, mask_BT: Tensor, counts_B: Tensor) -> Tensor:
    """Lay positions out by sequence, zero-padded, and take each sequence's mean off."""
    padded_BTD = flat_ND.new_zeros(*mask_BT.shape, flat_ND.shape[-1])
    padded_BTD = padded_BTD.masked_scatter(mask_BT[..., None], flat_ND)
    mean_B1D = padded_BTD.sum(1, keepdim=True) / counts_B[:, None, None]
    return (padded_BTD - mean_B1D) * mask_BT[..., None]


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
