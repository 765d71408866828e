"""G = W^T W of a head, in a form from which G^+ w is read: an inverse where there is one, else eigenpairs.

    G (D, D) -> invert -> wide and well conditioned: Cholesky -> Inverse
                       -> otherwise: eigh -----------------> Factor, restricted to what W spans

Eigenvectors take some ten times the work of an inverse, which is most of a map's between two wide heads. Both give the
same basis (a test compares them); a head that is narrow is not worth a second way.
Shape suffixes: D width, r rank, n rows of a block.
"""

from __future__ import annotations

from dataclasses import dataclass

from pkt.errors import PktError
from pkt.late import Tensor, torch
from pkt.models.precision import doubled

ROW_CUT = 1e-5  # a row with less than this share of its length in the kept subspace has no basis vector
WIDE = 1024  # widths above it are worth more code
STEEP = 1e-6  # an eigenvalue below this share of the largest would cost an inverse more than half its digits
PANELS = 8  # of a wide triangle: little more than half of a square's products
_CLOSE = 1e-5  # of the extreme eigenvalues, relative


@dataclass(frozen=True, kw_only=True)
class Factor:
    """G = Q diag(values) Q^T, restricted to the eigenvalues above a cut.

    Attributes:
        vectors_Dr: Q, float64.
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

    @property
    def frame(self) -> Tensor:
        """Q, the frame (D, r) of `coordinates`."""
        return self.vectors_Dr

    def coordinates(self, rows_nD: Tensor) -> tuple[Tensor, Tensor]:
        """Return c with G^+ w = frame c of each row (n, r), and |G^+ w| (n), both up to one factor; 0 outside of W.

        G^+ w = Q diag(1/l) Q^T w and Q is orthonormal, so |G^+ w| = |diag(1/l) Q^T w|.
        """
        kept_nr = rows_nD @ self.vectors_Dr.to(rows_nD)
        exists_n = kept_nr.norm(dim=-1) > ROW_CUT * rows_nD.norm(dim=-1)
        stretch_r = self.values_r[0] / self.values_r  # a factor that keeps float32 in range
        kept_nr = kept_nr * stretch_r.to(rows_nD)
        return kept_nr, torch.where(exists_n, kept_nr.norm(dim=-1), 0.0)


@dataclass(frozen=True, kw_only=True)
class Inverse:
    """G^-1 of a head of full rank, and R of G^-1 = Q R.

    Attributes:
        inverse: (D, D), float64.
        triangle_DD: R, above the diagonal.
        condition: ratio of the extreme singular values of W, to some four digits.
    """

    inverse: Tensor
    triangle_DD: Tensor
    condition: float

    @property
    def rank(self) -> int:
        """The width."""
        return len(self.inverse)

    @property
    def frame(self) -> Tensor:
        """G^-1, the frame of `coordinates`: these are the rows themselves."""
        return self.inverse

    def coordinates(self, rows_nD: Tensor) -> tuple[Tensor, Tensor]:
        """Return c with G^-1 w = frame c of each row (n, D), and |G^-1 w| (n).

        |G^-1 w| = |R w|, of which the half that is not zero is computed, in panels.
        """
        square_n = rows_nD.new_zeros(len(rows_nD))
        for first, last in panels(self.rank):
            part_nP = rows_nD[:, first:] @ self.triangle_DD[first:last, first:].T.to(rows_nD)
            square_n += part_nP.square().sum(-1)
        return rows_nD, square_n.sqrt()


def panels(width: int) -> list[tuple[int, int]]:
    """Return the first column of each panel of a wide matrix, and the first behind it."""
    size = -(-width // PANELS)
    return [(first, min(first + size, width)) for first in range(0, width, size)]


def factorise(gram_DD: Tensor, rcond: float) -> Factor:
    """Return the eigenpairs of G with eigenvalue > rcond * largest, by `eigh` in float64 where G is.

    Raises:
        PktError: G is zero.
    """
    values_D, vectors_DD = torch.linalg.eigh(doubled(gram_DD))
    values_D, vectors_DD = values_D.flip(0), vectors_DD.flip(1)
    if values_D[0] <= 0:
        raise PktError(
            "every row of an LM head is zero: it spans no semantic basis; check the model's files."
        )
    rank = int((values_D > rcond * values_D[0]).sum())
    return Factor(vectors_Dr=vectors_DD[:, :rank], values_r=values_D[:rank])


def invert(gram_DD: Tensor, rcond: float) -> Factor | Inverse:
    """Return what G^+ is read from; see `factorise` for the arguments and what is raised."""
    found = _inverted(gram_DD, rcond) if len(gram_DD) > WIDE else None
    return found or factorise(gram_DD, rcond)


def _inverted(gram_DD: Tensor, rcond: float) -> Inverse | None:
    """Return G^-1; None where G has no full rank, or an eigenvalue so small that eigenpairs say more."""
    gram_DD = doubled(gram_DD)
    factor_DD, failed = torch.linalg.cholesky_ex(gram_DD)
    if failed:
        return None
    inverse_DD = torch.cholesky_inverse(factor_DD)
    del factor_DD
    largest, reciprocal = _largest(gram_DD), _largest(inverse_DD)
    if largest is None or reciprocal is None or largest * reciprocal * max(STEEP, rcond) >= 1:
        return None
    triangle_DD = torch.linalg.qr(inverse_DD, mode="r").R
    return Inverse(inverse=inverse_DD, triangle_DD=triangle_DD, condition=(largest * reciprocal) ** 0.5)


def _largest(matrix_DD: Tensor) -> float | None:
    """Return the largest eigenvalue of a positive definite matrix by Lanczos; None where that does not converge."""
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    def product(vector_D: object) -> object:
        own_D = torch.as_tensor(vector_D).reshape(-1).to(matrix_DD.device)
        return (matrix_DD @ own_D).cpu().numpy()

    width = len(matrix_DD)
    start_D = torch.randn(width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    operator = LinearOperator((width, width), matvec=product, dtype="float64")
    try:
        (value,) = eigsh(operator, k=1, which="LA", v0=start_D.numpy(), tol=_CLOSE, return_eigenvectors=False)
    except ArpackError:
        return None
    return float(value)
