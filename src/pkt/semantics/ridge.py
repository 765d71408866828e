"""Closed-form ridge regression from teacher states to the untouched student's own states."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pkt.semantics.alignment import AlignmentMap, HeadView, States
from pkt.semantics.basis import factorise
from pkt.semantics.paired import moments


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
        """Return the map; info: positions, penalty (lam). It raises what `moments` raises."""
        found = moments(states, "ridge", centred=self.intercept)
        penalty = self.alpha * float(found.xx_DD.diagonal().mean())
        weight = self._solve(found.xx_DD, found.xy_DD, penalty).T
        return found.map(weight, teacher.weight.device, penalty=penalty)

    def _solve(self, xx_DD: Tensor, xy_DD: Tensor, penalty: float) -> Tensor:
        if not xx_DD.diagonal().any():  # nothing varies (one position): the mean is the whole map
            return torch.zeros_like(xy_DD)
        if penalty == 0:
            return factorise(xx_DD, self.rcond).inverse @ xy_DD
        shifted = xx_DD + penalty * torch.eye(len(xx_DD), dtype=xx_DD.dtype)
        factor, failed = torch.linalg.cholesky_ex(shifted)
        if failed:  # a penalty below round-off
            return factorise(shifted, self.rcond).inverse @ xy_DD
        return torch.cholesky_solve(xy_DD, factor)
