"""Closed-form ridge regression from teacher states to the untouched student's own states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pkt.semantics.alignment import AlignmentMap, HeadView, States
from pkt.semantics.basis import factorise
from pkt.semantics.paired import moments
from pkt.settings import Bounded, setting


@dataclass(frozen=True, kw_only=True)
class Ridge(Bounded):
    """M = argmin |X M^T - Y|^2 + lam |M|^2 over the align split: M^T = (X^T X + lam I)^-1 X^T Y.

    X (N, D_T) are the paired teacher layer's states, Y (N, D_S) the student's own at the same positions, both
    centred if `intercept`; lam = alpha * trace(X^T X) / D_T, so that alpha is free of units. Source: ours
    (standard linear regression).

    Attributes:
        alpha: penalty, relative to the mean eigenvalue of X^T X; 0 is least squares of minimal norm.
        intercept: centre both sides.
        rcond: relative cut of eigenvalues where alpha is 0.
    """

    needs_states: ClassVar[bool] = True
    reads_out: ClassVar[bool] = True

    alpha: float = setting(1e-4, at_least=0)
    intercept: bool = True
    rcond: float = setting(1e-10, at_least=0, below=1)

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
