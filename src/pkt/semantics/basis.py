"""Semantic bases and the product of two of them, streamed over blocks of the vocabulary.

    W (V, D) -> gram -> invert: G^-1 or eigenpairs -> unit coordinates of s_i per block --+
                                                   -> the same for the other model -------+-> M = S_S S_T^T

No V x D matrix is copied: only one block of rows exists at a time.
Shape suffixes: V vocabulary, D width, r rank, n rows of a block.
"""

from __future__ import annotations

from dataclasses import dataclass

from pkt.errors import PktError
from pkt.late import Tensor, torch
from pkt.models.precision import compute_device
from pkt.semantics.factor import WIDE, Factor, Inverse, panels

BLOCK = 4096  # rows alive at once
NARROW = 1024  # rows alive at once of a matrix that is wide


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
    factor: Factor | Inverse | None
    scale_D: Tensor | None = None
    rows: Tensor | None = None

    @property
    def size(self) -> int:
        """Number of anchors."""
        return len(self.weight_VD) if self.rows is None else len(self.rows)

    def frame(self) -> Tensor | None:
        """Return the frame (D, r) of `coordinates`; None: the identity."""
        return None if self.factor is None else self.factor.frame

    def block(self, start: int, stop: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Return the rows w_i of anchors start .. stop-1, scaled, (n, D)."""
        chosen = slice(start, stop) if self.rows is None else self.rows[start:stop].to(self.weight_VD.device)
        rows_nD = self.weight_VD[chosen].detach().to(device).to(dtype)
        return rows_nD if self.scale_D is None else rows_nD * self.scale_D.detach().to(device).to(dtype)

    def coordinates(self, start: int, stop: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Return c with s_i = frame c of s_start .. s_stop-1, (n, r); zeros where s_i is zero."""
        rows_nD = self.block(start, stop, device, dtype)
        if self.factor is None:
            return _over(rows_nD, rows_nD.norm(dim=-1))
        return _over(*self.factor.coordinates(rows_nD))

    def vectors(self, count: int) -> Tensor:
        """Return s_1 .. s_count by row, (count, D) float32 where W is: the whole basis, in memory."""
        device, frame = compute_device(self.weight_VD), self.frame()
        parts = []
        size = _rows(self)
        for start in range(0, count, size):
            part = self.coordinates(start, min(start + size, count), device, torch.float64)
            parts.append((part if frame is None else part @ frame.T.to(device)).float())
        return torch.cat(parts).to(self.weight_VD.device)


def gram(weight_VD: Tensor, *, scale_D: Tensor | None = None) -> Tensor:
    """Return G = W^T W (D, D), or that of W diag(scale); see `cross_gram`."""
    rows = Basis(weight_VD=weight_VD, factor=None, scale_D=scale_D)
    return cross_gram(rows, rows)


def cross_gram(left: Basis, right: Basis) -> Tensor:
    """Return the sum of w_left,i w_right,i^T over the anchors (D_left, D_right), float64 where the right rows are.

    Args:
        left: rows of one side; its basis vectors are not read.
        right: rows of the other, in the same order; without `rows`, those beyond the shorter are left out.

    Raises:
        PktError: a row holds NaN or infinity.
    """
    device = compute_device(right.weight_VD)
    shape = left.weight_VD.shape[1], right.weight_VD.shape[1]
    total_DD = torch.zeros(*shape, dtype=torch.float64, device=device)
    count, size, halves = min(left.size, right.size), _rows(left, right), right is left and shape[0] > WIDE
    for start in range(0, count, size):
        stop = min(start + size, count)
        left_nD = left.block(start, stop, device, torch.float64)
        if halves:
            _add_above(total_DD, left_nD)
            continue
        right_nD = left_nD if right is left else right.block(start, stop, device, torch.float64)
        total_DD += left_nD.T @ right_nD
    if halves:
        total_DD = total_DD.triu() + total_DD.triu(1).T
    if not torch.isfinite(total_DD).all():
        raise PktError(
            "an LM head holds NaN or infinity; check the model's files, or load it with dtype=float32 or bfloat16."
        )
    return total_DD


def alignment_matrix(student: Basis, teacher: Basis, *, dtype: torch.dtype | None = None) -> Tensor:
    """Return M = S_S S_T^T (D_S, D_T), float64 where the teacher is: the sum of s_S,i s_T,i^T over the anchors.

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
    count, size = min(student.size, teacher.size), _rows(student, teacher)
    total: Tensor | None = None  # added to in place: it may be large
    for start in range(0, count, size):
        stop = min(start + size, count)
        student_nr = student.coordinates(start, stop, device, dtype)
        teacher_nr = teacher.coordinates(start, stop, device, dtype)
        if total is None:
            total = (student_nr.T @ teacher_nr).double()
        elif size == NARROW and dtype == torch.float64:  # without a product beside the sum
            total.addmm_(student_nr.T, teacher_nr)
        else:
            total += student_nr.T @ teacher_nr
    assert total is not None, "two bases have at least one anchor"
    left, right = student.frame(), teacher.frame()
    matrix = total if left is None else left.to(device) @ total
    return matrix if right is None else matrix @ right.to(device).T


def _rows(*bases: Basis) -> int:
    """Return how many rows of some matrices are alive at once."""
    return NARROW if max(basis.weight_VD.shape[1] for basis in bases) > WIDE else BLOCK


def _add_above(total_DD: Tensor, rows_nD: Tensor) -> None:
    """Add w w^T of each row on and above the diagonal."""
    for first, last in panels(len(total_DD)):
        total_DD[first:last, first:].addmm_(rows_nD[:, first:last].T, rows_nD[:, first:])


def _over(rows_nr: Tensor, length_n: Tensor) -> Tensor:
    """Divide rows by their lengths; what has none is zero."""
    exists_n1 = (length_n > 0)[:, None]
    return torch.where(exists_n1, rows_nr / torch.where(exists_n1, length_n[:, None], 1.0), 0.0)
