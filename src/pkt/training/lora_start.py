"""Where a LoRA adapter starts, if not from zero: the leading singular directions of a matrix.

    W (out, in) = U S V^T  ->  scale * B A = U_r S_r V_r^T,  scale = alpha / rank

Every start leaves the student's function as it is: what the adapter adds at the beginning is taken off again
(see `pkt.training.trainable`), so a start chooses a subspace and nothing else.
Shape suffixes: O outputs, I inputs, r rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

EXACT_UP_TO = 1024  # smaller side of a matrix whose SVD is computed in full
_OVERSAMPLING = 16
_ITERATIONS = 8


@dataclass(frozen=True, kw_only=True)
class LoraStart:
    """Factors by module path of the model, float32: A (rank, in) and B (out, rank)."""

    factors: Mapping[str, tuple[Tensor, Tensor]]


def truncated_svd(matrix_OI: Tensor, rank: int, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return the leading `rank` singular triplets (U_Or, s_r, Vt_rI) of a matrix, float32 on the CPU.

    A full float64 decomposition where the smaller side is at most `EXACT_UP_TO`; above, randomised subspace
    iteration (16 extra directions, 8 iterations, a generator seeded with `seed`). In each triplet the entry of
    V with the largest magnitude is positive, so that the result does not depend on the solver's signs.

    Args:
        matrix_OI: any real dtype.
        rank: at most the smaller side.
        seed: of the randomised start.

    Raises:
        ValueError: a rank that the matrix cannot have.

    Source: Halko, Martinsson, Tropp, "Finding structure with randomness" (2011), algorithm 4.4.
    """
    smaller = min(matrix_OI.shape)
    if not 1 <= rank <= smaller:
        raise ValueError(f"rank={rank}: a {tuple(matrix_OI.shape)} matrix has ranks from 1 to {smaller}")
    if smaller <= EXACT_UP_TO:
        U_OK, s_K, Vt_KI = torch.linalg.svd(matrix_OI.detach().cpu().double(), full_matrices=False)
    else:
        U_OK, s_K, Vt_KI = _randomised(matrix_OI.detach().float(), rank, seed)
    U_Or, s_r, Vt_rI = U_OK[:, :rank], s_K[:rank], Vt_KI[:rank]
    signs_r = Vt_rI.gather(1, Vt_rI.abs().argmax(1, keepdim=True)).sign()[:, 0]
    signs_r[signs_r == 0] = 1.0
    return (U_Or * signs_r).float().contiguous(), s_r.float(), (Vt_rI * signs_r[:, None]).float().contiguous()


def _randomised(matrix_OI: Tensor, rank: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    width = min(rank + _OVERSAMPLING, *matrix_OI.shape)
    generator = torch.Generator().manual_seed(seed)
    probe_IK = torch.randn(matrix_OI.shape[1], width, generator=generator).to(matrix_OI.device)
    Q_OK = torch.linalg.qr(matrix_OI @ probe_IK)[0]
    for _ in range(_ITERATIONS):
        Z_IK = torch.linalg.qr(matrix_OI.T @ Q_OK)[0]
        Q_OK = torch.linalg.qr(matrix_OI @ Z_IK)[0]
    small_KI = (Q_OK.T @ matrix_OI).cpu().double()
    U_KK, s_K, Vt_KI = torch.linalg.svd(small_KI, full_matrices=False)
    return Q_OK.cpu().double() @ U_KK, s_K, Vt_KI


def seeking_factors(
    matrix_OI: Tensor, rank: int, alpha: float, *, spectrum: str = "teacher", seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return A = V_r^T and B = U_r S_r / scale: the rank-r part of a matrix, all of S on B's side.

    Args:
        matrix_OI: the extracted matrix.
        rank: r.
        alpha: LoRA alpha; scale = alpha / rank.
        spectrum: ``teacher``, or ``gaussian``: the same singular values on the singular vectors of a Gaussian
            matrix (uniformly random orthonormal ones) - the control for what the directions are worth.
        seed: of the randomised SVD and of the Gaussian.

    Source: Zhong et al., "Seeking Neural Nuggets" (ICLR 2024), section 3.3.
    """
    U_Or, s_r, Vt_rI = truncated_svd(matrix_OI, rank, seed=seed)
    if spectrum == "gaussian":
        generator = torch.Generator().manual_seed(seed)
        U_Or = _orthonormal(U_Or.shape[0], rank, generator)
        Vt_rI = _orthonormal(Vt_rI.shape[1], rank, generator).T.contiguous()
    return Vt_rI, U_Or * (s_r * (rank / alpha))


def pissa_factors(matrix_OI: Tensor, rank: int, alpha: float, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return A = sqrt(S_r / scale) V_r^T and B = U_r sqrt(S_r / scale): the rank-r part, split evenly.

    Args:
        matrix_OI: the student's own matrix.
        rank: r.
        alpha: LoRA alpha; scale = alpha / rank.
        seed: of the randomised SVD.

    Source: Meng, Wang, Zhang, "PiSSA" (NeurIPS 2024), equations 2 to 4.
    """
    U_Or, s_r, Vt_rI = truncated_svd(matrix_OI, rank, seed=seed)
    root_r = (s_r * (rank / alpha)).sqrt()
    return root_r[:, None] * Vt_rI, U_Or * root_r


def _orthonormal(size: int, rank: int, generator: torch.Generator) -> Tensor:
    """Return `rank` uniformly random orthonormal columns (QR with a positive diagonal of R)."""
    Q, R = torch.linalg.qr(torch.randn(size, rank, generator=generator, dtype=torch.float64))
    columns: Tensor = (Q * R.diagonal().sign()).float()
    return columns
