"""Semantic bases and the product of two of them, streamed over blocks of the vocabulary.

    W (V, D) -> gram -> factorise: G = Q diag(l) Q^T -> unit coordinates of s_i per block --+
                                                     -> the same for the other model -------+-> M = S_S S_T^T

No V x D matrix is copied: only one block of rows exists at a time.
Shape suffixes: V vocabulary, D width, r rank, n rows of a block.
"""

from __future__ import annotations

from dataclasses import dataclass

from pkt.errors import PktError
from pkt.late import Tensor, torch

BLOCK = 4096  # rows alive at once
ROW_CUT = 1e-5  # a row with less than this share of its length in the kept subspace has no basis vector


@dataclass(frozen=True, kw_only=True)
class Factor:
    """G = Q diag(values) Q^T, restricted to the eigenvalues above a cut.

    Attributes:
        vectors_Dr: Q, float64 on the CPU.
        values_r: eigenvalues, descending.
    """

    vectors_Dr: Tensor
    values_r: Tensor

    @property
    def rank(self) -> int:
        """Number of eigenvalues that were kept."""
        return len(self.values_r)

    @property
    def condition(self) -> float:
        """Ratio of the extreme singular values of W in the kept subspace, sqrt(l_max / l_min)."""
        return float((self.values_r[0] / self.values_r[-1]).sqrt())

    @property
    def inverse(self) -> Tensor:
        """The pseudoinverse of G, (D, D)."""
        return (self.vectors_Dr / self.values_r) @ self.vectors_Dr.T


@dataclass(frozen=True, kw_only=True)
class Basis:
    """One direction per token: s_i = G^+ w_i (output side) or w_i itself (input side), scaled to length 1.

    Attributes:
        weight_VD: W.
        factor: of G; None for the input side.
        scale_D: what each row is multiplied with first (a folded norm weight).
        rows: the tokens that serve as anchors, in the same order in both bases; None: all.
    """

    weight_VD: Tensor
    factor: Factor | None
    scale_D: Tensor | None = None
    rows: Tensor | None = None

    @property
    def size(self) -> int:
        """Number of anchors."""
        return len(self.weight_VD) if self.rows is None else len(self.rows)

    def frame(self) -> Tensor | None:
        """Return the orthonormal frame (D, r) of `coordinates`; None: the identity."""
        return None if self.factor is None else self.factor.vectors_Dr

    def block(self, start: int, stop: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Return the rows w_i of anchors start .. stop-1, scaled, (n, D)."""
        chosen = slice(start, stop) if self.rows is None else self.rows[start:stop].to(self.weight_VD.device)
        rows_nD = self.weight_VD[chosen].detach().to(device).to(dtype)
        return rows_nD if self.scale_D is None else rows_nD * self.scale_D.detach().to(device).to(dtype)

    def coordinates(self, start: int, stop: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Return s_start .. s_stop-1 in the frame, (n, r), length 1 each; zeros where s_i is zero.

        s_i = Q diag(1/l) Q^T w_i and Q is orthonormal, so |s_i| = |diag(1/l) Q^T w_i|.
        """
        rows_nD = self.block(start, stop, device, dtype)
        if self.factor is None:
            return _unit(rows_nD, rows_nD.norm(dim=-1) > 0)
        kept_nr = rows_nD @ self.factor.vectors_Dr.to(device, dtype)
        exists_n = kept_nr.norm(dim=-1) > ROW_CUT * rows_nD.norm(dim=-1)
        # G^-1 up to a factor that keeps float32 in range; lengths are set to 1 anyway
        stretch_r = self.factor.values_r[0] / self.factor.values_r
        return _unit(kept_nr * stretch_r.to(device, dtype), exists_n)

    def vectors(self, count: int) -> Tensor:
        """Return s_1 .. s_count by row, (count, D) float32 where W is: the whole basis, in memory."""
        device, frame = compute_device(self.weight_VD), self.frame()
        parts = []
        for start in range(0, count, BLOCK):
            part = self.coordinates(start, min(start + BLOCK, count), device, torch.float64)
            parts.append((part if frame is None else part @ frame.T.to(device)).float())
        return torch.cat(parts).to(self.weight_VD.device)


def gram(weight_VD: Tensor, *, scale_D: Tensor | None = None) -> Tensor:
    """Return G = W^T W (D, D), or that of W diag(scale); see `cross_gram`."""
    rows = Basis(weight_VD=weight_VD, factor=None, scale_D=scale_D)
    return cross_gram(rows, rows)


def cross_gram(left: Basis, right: Basis) -> Tensor:
    """Return the sum of w_left,i w_right,i^T over the anchors (D_left, D_right), float64 on the CPU.

    Args:
        left: rows of one side; its basis vectors are not read.
        right: rows of the other, in the same order; without `rows`, those beyond the shorter are left out.

    Raises:
        PktError: a row holds NaN or infinity.
    """
    device = compute_device(right.weight_VD)
    shape = left.weight_VD.shape[1], right.weight_VD.shape[1]
    total_DD = torch.zeros(*shape, dtype=torch.float64, device=device)
    count = min(left.size, right.size)
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        left_nD = left.block(start, stop, device, torch.float64)
        right_nD = left_nD if right is left else right.block(start, stop, device, torch.float64)
        total_DD += left_nD.T @ right_nD
    if not torch.isfinite(total_DD).all():
        raise PktError(
            "an LM head holds NaN or infinity; check the model's files, or load it with dtype=float32 or bfloat16."
        )
    return total_DD.cpu()


def factorise(gram_DD: Tensor, rcond: float) -> Factor:
    """Return the eigenpairs of G with eigenvalue > rcond * largest, by `eigh` in float64 on the CPU.

    Raises:
        PktError: G is zero.
    """
    values_D, vectors_DD = torch.linalg.eigh(gram_DD.double().cpu())
    values_D, vectors_DD = values_D.flip(0), vectors_DD.flip(1)
    if values_D[0] <= 0:
        raise PktError(
            "every row of an LM head is zero: it spans no semantic basis; check the model's files."
        )
    rank = int((values_D > rcond * values_D[0]).sum())
    return Factor(vectors_Dr=vectors_DD[:, :rank], values_r=values_D[:rank])


def alignment_matrix(student: Basis, teacher: Basis, *, dtype: torch.dtype | None = None) -> Tensor:
    """Return M = S_S S_T^T (D_S, D_T), float64 on the CPU: the sum of s_S,i s_T,i^T over the anchors.

    With the output-side bases M = G_S^-1 W_S^T diag(1 / (n_S n_T)) W_T G_T^-1, n_i = |G^-1 w_i| (SemAlign v1,
    arXiv 2510.24208, with the sum over the vocabulary done once). A token whose basis vector is zero on
    either side contributes nothing (our reading).

    Args:
        student: the basis of the student.
        teacher: the basis of the teacher; without `rows`, rows beyond the shorter vocabulary are padding.
        dtype: of the block products (None: float64); sums are float64.
    """
    dtype = dtype or torch.float64
    device = compute_device(teacher.weight_VD)
    count = min(student.size, teacher.size)
    total: Tensor | float = 0.0
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        student_nr = student.coordinates(start, stop, device, dtype)
        teacher_nr = teacher.coordinates(start, stop, device, dtype)
        total = total + (student_nr.T @ teacher_nr).double()
    assert isinstance(total, Tensor), "two bases have at least one anchor"
    matrix, left, right = total.cpu(), student.frame(), teacher.frame()
    matrix = matrix if left is None else left @ matrix
    return matrix if right is None else matrix @ right.T


def compute_device(weight: Tensor) -> torch.device:
    """Return where blocks of a matrix are multiplied: its own device, unless that has no float64 (MPS)."""
    return torch.device("cpu") if weight.device.type == "mps" else weight.device


def _unit(rows_nr: Tensor, exists_n: Tensor) -> Tensor:
    length_n1 = torch.where(exists_n, rows_nr.norm(dim=-1), 1.0)[:, None]
    return torch.where(exists_n[:, None], rows_nr / length_n1, 0.0)
