"""Loss terms: tensors in, one scalar out; statistics in float32 whatever the states' dtype.

Shape suffixes: N positions, D width, V vocabulary rows of the head.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from pkt.objectives.chunks import CHUNK, check_pairs, check_positions, over_chunks

ReadOut = Callable[[Tensor], Tensor]
"""Final-normed states (N, D) -> logits (N, V)."""


def cosine_distance(states_ND: Tensor, targets_ND: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Return 1 - mean_n cos(h_n, h*_n).

    Args:
        states_ND: h; the gradient flows here.
        targets_ND: h*, held constant.
        eps: lower bound of both norms, so that a zero state has cosine 0 and a finite gradient.

    Raises:
        ValueError: no position, or shapes that differ.

    Source: SemAlign v1, layer term (arXiv 2510.24208).
    """
    check_pairs(states_ND, targets_ND)
    cosine_N = functional.cosine_similarity(states_ND.float(), targets_ND.detach().float(), dim=-1, eps=eps)
    return 1.0 - cosine_N.mean()


def output_cosine(
    states_ND: Tensor, labels_N: Tensor, weight_VD: Tensor, gram_DD: Tensor, *, eps: float = 1e-12
) -> Tensor:
    """Return 1 - mean_n cos(z_n, onehot(y_n)) for z = W h, without forming z.

    cos(z, onehot_y) = z_y / |z| = (w_y . h) / sqrt(h^T G h) with G = W^T W: memory N x D instead of N x V.
    Exact for a head without bias and soft-cap (a positive scale of the logits cancels); otherwise use
    `output_cosine_dense`.

    Args:
        states_ND: final-normed states h.
        labels_N: y.
        weight_VD: W, the head.
        gram_DD: G.
        eps: lower bound of h^T G h.

    Raises:
        ValueError: no position, or not one label per state.

    Source: SemAlign v1, output term; the vocabulary-free form is ours.
    """
    _check_labels(states_ND, labels_N)
    with torch.autocast(states_ND.device.type, enabled=False):  # h^T G h in bfloat16 would lose it all
        h_ND, gram = states_ND.float(), gram_DD.float()
        square_N = ((h_ND @ gram) * h_ND).sum(-1)
        label_N = (weight_VD[labels_N].float() * h_ND).sum(-1)
        return 1.0 - (label_N * square_N.clamp_min(eps).rsqrt()).mean()


def output_cosine_dense(
    states_ND: Tensor, labels_N: Tensor, read_out: ReadOut, *, chunk: int = CHUNK, eps: float = 1e-12
) -> Tensor:
    """Return 1 - mean_n cos(z_n, onehot(y_n)) from the logits, `chunk` positions at a time.

    For heads with a bias or soft-capped logits; equal to `output_cosine` where that applies.

    Args:
        states_ND: final-normed states.
        labels_N: y.
        read_out: states to logits.
        chunk: positions whose V-wide numbers are alive at once, in the forward and in the backward pass.
        eps: lower bound of |z|^2.

    Raises:
        ValueError: no position, not one label per state, or a chunk below 1.
    """
    _check_labels(states_ND, labels_N)

    def similarity(h_nD: Tensor, labels_n: Tensor) -> Tensor:
        logits_nV = read_out(h_nD).float()
        label_n = logits_nV.gather(-1, labels_n[:, None]).squeeze(-1)
        return (label_n * logits_nV.square().sum(-1).clamp_min(eps).rsqrt()).sum()

    return 1.0 - over_chunks(similarity, states_ND, labels_N, chunk=chunk) / len(labels_N)


def cross_entropy(states_ND: Tensor, labels_N: Tensor, read_out: ReadOut, *, chunk: int = CHUNK) -> Tensor:
    """Return mean_n -log softmax(z_n)[y_n], `chunk` positions at a time.

    Args:
        states_ND: final-normed states.
        labels_N: y.
        read_out: states to logits.
        chunk: positions whose V-wide numbers are alive at once, in the forward and in the backward pass.

    Raises:
        ValueError: no position, not one label per state, or a chunk below 1.
    """
    _check_labels(states_ND, labels_N)

    def surprise(h_nD: Tensor, labels_n: Tensor) -> Tensor:
        return functional.cross_entropy(read_out(h_nD).float(), labels_n, reduction="sum")

    return over_chunks(surprise, states_ND, labels_N, chunk=chunk) / len(labels_N)


def _check_labels(states_ND: Tensor, labels_N: Tensor) -> None:
    check_positions(states_ND)
    if labels_N.shape != states_ND.shape[:1]:
        raise ValueError(
            f"one label per state is needed: {len(states_ND)} states, labels of {tuple(labels_N.shape)}"
        )
