"""Closed-form ridge regression from teacher states to the untouched student's own states."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pkt.errors import PktError, RequestError
from pkt.semantics.alignment import AlignmentMap, HeadView, States
from pkt.semantics.basis import compute_device, inverse_gram

BLOCK = 4096  # positions alive in float64 at once


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

    alpha: float = 0.01
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
        x_ND, y_ND = _checked(states)
        mean_x, mean_y = (_mean(side_ND) if self.intercept else None for side_ND in (x_ND, y_ND))
        xx_DD, xy_DD = _moments(x_ND, y_ND, mean_x, mean_y)
        penalty = self.alpha * float(xx_DD.diagonal().mean())
        weight = self._solve(xx_DD, xy_DD, penalty).T
        if not torch.isfinite(weight).all():
            raise PktError(
                "the states of the align split hold NaN or infinity; load both models in float32 or bfloat16 "
                "(model.teacher.dtype, model.student.dtype)."
            )
        device = teacher.weight.device
        return AlignmentMap(
            weight=weight.float().contiguous().to(device),
            bias=None if mean_y is None else mean_y.float().to(device),
            mean=None if mean_x is None else mean_x.float().to(device),
            name="ridge",
            info={"positions": len(x_ND), "penalty": penalty},
        )

    def _solve(self, xx_DD: Tensor, xy_DD: Tensor, penalty: float) -> Tensor:
        if not (torch.isfinite(xx_DD).all() and torch.isfinite(xy_DD).all()):
            return torch.full_like(xy_DD, math.nan)
        if not xx_DD.diagonal().any():  # nothing varies (one position): the mean is the whole map
            return torch.zeros_like(xy_DD)
        if penalty == 0:
            return inverse_gram(xx_DD, self.rcond)[0] @ xy_DD
        shifted = xx_DD + penalty * torch.eye(len(xx_DD), dtype=xx_DD.dtype)
        factor, failed = torch.linalg.cholesky_ex(shifted)
        if failed:  # a penalty below round-off
            return inverse_gram(shifted, self.rcond)[0] @ xy_DD
        return torch.cholesky_solve(xy_DD, factor)


def _checked(states: States | None) -> States:
    if states is None:
        raise ValueError("semantics=ridge is fitted on paired states; give states=(teacher, student)")
    teacher_ND, student_ND = states
    if len(teacher_ND) != len(student_ND):
        raise ValueError(
            f"states are paired: {len(teacher_ND)} teacher and {len(student_ND)} student positions differ"
        )
    if len(teacher_ND) == 0:
        raise RequestError("semantics=ridge needs states; the align split has none: raise data.sizes.align.")
    return teacher_ND, student_ND


def _mean(states_ND: Tensor) -> Tensor:
    total = torch.zeros(states_ND.shape[1], dtype=torch.float64)
    for block_nD in torch.split(states_ND, BLOCK):
        total += block_nD.to(compute_device(block_nD)).double().sum(0).cpu()
    return total / len(states_ND)


def _moments(
    x_ND: Tensor, y_ND: Tensor, mean_x: Tensor | None, mean_y: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return X^T X and X^T Y of the centred states, float64 on the CPU."""
    device = compute_device(x_ND)
    xx = torch.zeros(x_ND.shape[1], x_ND.shape[1], dtype=torch.float64, device=device)
    xy = torch.zeros(x_ND.shape[1], y_ND.shape[1], dtype=torch.float64, device=device)
    for x_nD, y_nD in zip(torch.split(x_ND, BLOCK), torch.split(y_ND, BLOCK), strict=True):
        x, y = x_nD.to(device).double(), y_nD.to(device).double()
        x = x if mean_x is None else x - mean_x.to(device)
        y = y if mean_y is None else y - mean_y.to(device)
        xx += x.T @ x
        xy += x.T @ y
    return xx.cpu(), xy.cpu()
