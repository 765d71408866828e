"""Cut a matrix of the student's shape out of a teacher's matrix, where its sensitivity is highest.

Shape suffixes: R, C rows and columns of the teacher's matrix; n, m those that are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pkt.late import Tensor, torch

Structure = Literal["window", "rows_columns", "random"]
STRUCTURES = get_args(Structure)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Rows and columns (from 0, ascending) that are kept of a matrix.

    Attributes:
        rows_n, columns_m: int64.
        caught: sum of the sensitivity over what is kept.
        total: sum over the whole matrix.
    """

    rows_n: Tensor
    columns_m: Tensor
    caught: float
    total: float

    def of(self, matrix_RC: Tensor) -> Tensor:
        """Return the kept part of a matrix, (n, m)."""
        return matrix_RC[self.rows_n.to(matrix_RC.device)][:, self.columns_m.to(matrix_RC.device)]


def best_window(score_RC: Tensor, shape: tuple[int, int]) -> tuple[int, int]:
    """Return the first row and column of the contiguous window with the largest sum.

    The sums of all windows come from one table of prefix sums, in float64; of equal sums the first in row-major order
    wins.

    Args:
        score_RC: non-negative scores.
        shape: rows and columns of the window, at most those of the matrix.

    Raises:
        ValueError: a window that does not fit, or a score that is not finite.
    """
    _check(score_RC, shape)
    rows, columns = shape
    prefix = torch.zeros(score_RC.shape[0] + 1, score_RC.shape[1] + 1, dtype=torch.float64)
    prefix[1:, 1:] = score_RC
    prefix.cumsum_(0).cumsum_(1)
    sums = prefix[rows:, columns:] - prefix[:-rows, columns:]
    sums -= prefix[rows:, :-columns]
    sums += prefix[:-rows, :-columns]
    return divmod(int(sums.argmax()), sums.shape[1])  # argmax: the first of equals


def cut(score_RC: Tensor, shape: tuple[int, int], *, structure: str = "window", seed: int = 0) -> Cut:
    """Choose what is kept of a matrix.

    Args:
        score_RC: sensitivity of each weight, non-negative.
        shape: rows and columns to keep.
        structure: ``window`` (`best_window`), ``rows_columns`` (the rows with the largest sums, then, within
            them, the columns with the largest sums; order kept; the lower index among equals) or ``random`` (a
            contiguous window at a uniformly random place).
        seed: of the random place.

    Raises:
        ValueError: unknown structure, a shape that does not fit, or a score that is not finite.

    Source: Zhong et al., "Seeking Neural Nuggets" (ICLR 2024), section 3.2 and its ablation of structures.
    """
    _check(score_RC, shape)
    match structure:
        case "window":
            rows_n, columns_m = _ranges(best_window(score_RC, shape), shape)
        case "random":
            generator = torch.Generator().manual_seed(seed)
            room = [size - kept + 1 for size, kept in zip(score_RC.shape, shape, strict=True)]
            corner = [int(torch.randint(places, (), generator=generator)) for places in room]
            rows_n, columns_m = _ranges((corner[0], corner[1]), shape)
        case "rows_columns":
            rows_n = _largest(score_RC.sum(1, dtype=torch.float64), shape[0])
            columns_m = _largest(score_RC[rows_n].sum(0, dtype=torch.float64), shape[1])
        case _:
            raise ValueError(f"structure={structure!r}; allowed are {', '.join(STRUCTURES)}")
    caught = float(score_RC[rows_n][:, columns_m].sum(dtype=torch.float64))
    total = float(score_RC.sum(dtype=torch.float64))
    return Cut(rows_n=rows_n, columns_m=columns_m, caught=caught, total=total)


def _ranges(corner: tuple[int, int], shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    row, column = corner
    return torch.arange(row, row + shape[0]), torch.arange(column, column + shape[1])


def _largest(sums: Tensor, count: int) -> Tensor:
    return torch.sort(sums, descending=True, stable=True).indices[:count].sort().values


def _check(score_RC: Tensor, shape: tuple[int, int]) -> None:
    if not bool(score_RC.isfinite().all()):  # to argmax and sort NaN is the largest
        raise ValueError("a weight's sensitivity is NaN or infinite, so that no window of it is the best")
    if not all(1 <= kept <= size for kept, size in zip(shape, score_RC.shape, strict=True)):
        raise ValueError(f"shape={shape} does not fit into a matrix of {tuple(score_RC.shape)}")
