"""Closed-form ridge regression from teacher states to the untouched student's own states."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pkt.semantics.alignment import AlignmentMap, HeadView, States
from pkt.semantics.basis import inverse_gram
from pkt.semantics.paired import checked_states, mean_state, moments


@dataclass(frozen=True, kw_only=True)
class Ridge:
    """M = argmin |X M^T - Y|^2 + lam |M|^2 over the align split: M^T = (X^T X + lam I)^-1 X^T Y.

    X (N, D_T) are the paired teacher layer's states, Y (N, D_S) the student's own at the same positions, both
    centred if `intercept`; lam = alpha * trace(X^T X) / D_T, so that alpha is free of units. Source: ours
    (standard linear regression).

    Attributes:
        alpha: penalty, relative to the mean eigenvalue of X^T X; 0 is least squares of minimal norm.
        intercept: centre both sides.
        rcond: relative cut of eigenvalues where alpha is 0.

    Raises:
        ValueError: a negative or infinite alpha, or rcond outside [0, 1).
    """

    needs_states: ClassVar[bool] = True
    reads_out: ClassVar[bool] = True

    alpha: float = 1e-4
    intercept: bool = True
    rcond: float = 1e-10

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise ValueError(f"alpha is a penalty, 0 or more, got {self.alpha}")
        if not 0 <= self.rcond < 1:
            raise ValueError(f"rcond is a share of the largest eigenvalue, in [0, 1), got {self.rcond}")

    @torch.no_grad()
    def fit(self, *, teacher: HeadView, student: HeadView, states: States | None = None) -> AlignmentMap:
        """Return the map; info: positions, penalty (lam).

        Raises:
            ValueError: no states, or not the same number on both sides.
            RequestError: no position in the align split.
            PktError: states that are not finite.
        """
        x_ND, y_ND = checked_states(states, "ridge")
        mean_x, mean_y = (mean_state(side_ND) if self.intercept else None for side_ND in (x_ND, y_ND))
        xx_DD, xy_DD = moments(x_ND, y_ND, mean_x, mean_y)
        penalty = self.alpha * float(xx_DD.diagonal().mean())
        weight = self._solve(xx_DD, xy_DD, penalty).T
        device = teacher.weight.device
        return AlignmentMap(
            weight=weight.float().contiguous().to(device),
            bias=None if mean_y is None else mean_y.float().to(device),
            mean=None if mean_x is None else mean_x.float().to(device),
            name="ridge",
            info={"positions": len(x_ND), "penalty": penalty},
        )

    def _solve(self, xx_DD: Tensor, xy_DD: Tensor, penalty: float) -> Tensor:
        if not xx_DD.diagonal().any():  # nothing varies (one position): the mean is the whole map
            return torch.zeros_like(xy_DD)
        if penalty == 0:
            return inverse_gram(xx_DD, self.rcond)[0] @ xy_DD
        shifted = xx_DD + penalty * torch.eye(len(xx_DD), dtype=xx_DD.dtype)
        factor, failed = torch.linalg.cholesky_ex(shifted)
        if failed:  # a penalty below round-off
            return inverse_gram(shifted, self.rcond)[0] @ xy_DD
        return torch.cholesky_solve(xy_DD, factor)
