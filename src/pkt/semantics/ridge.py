"""Closed-form ridge regression from teacher states to the untouched student's own states."""

from __future__ import annotations

from dataclasses import dataclass

from pkt.late import Tensor, torch
from pkt.semantics.alignment import AlignmentMap, States
from pkt.semantics.factor import factorise
from pkt.semantics.learning import Trains
from pkt.semantics.paired import Fitted, Moments, moments
from pkt.settings import setting

ALPHAS = tuple(10.0**power for power in range(-8, 3))  # what alpha=null chooses from
FREE = 1e-8  # 1 - leverage below which a position decides its own prediction, so that leaving it out tells nothing


@dataclass(frozen=True, kw_only=True)
class Ridge(Fitted, Trains):
    """M = argmin |X M^T - Y|^2 + lam |M|^2 over the align split: M^T = (X^T X + lam I)^-1 X^T Y.

    X (N, D_T) are the paired teacher layer's states, Y (N, D_S) the student's own at the same positions, both
    centred if `intercept`, without positions that are massive; lam = alpha * trace(X^T X) / D_T, so that alpha is
    free of units. Source: ours (standard linear regression).

    Attributes:
        alpha: penalty, relative to the mean eigenvalue of X^T X; 0 is least squares of minimal norm; None: the one of
            `ALPHAS` with the smallest error on positions left out, one at a time (`leave_one_out`).
        rcond: relative cut of eigenvalues where alpha is 0.

    Raises:
        ValueError: a map that is both trained and fitted again.
    """

    alpha: float | None = setting(1e-4, at_least=0)
    rcond: float = setting(1e-10, at_least=0, below=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trainable and self.refit != "never":
            raise ValueError(
                f"trainable=true with refit={self.refit} would throw away at each fit what the map had learned: set "
                "refit=never, or trainable=false"
            )

    @torch.no_grad()
    def fitted(self, states: States | None, device: torch.device) -> AlignmentMap:
        """Return the map; info: positions, left_out, alpha, penalty (lam). It raises what `moments` raises."""
        found = moments(states, "ridge", centred=self.intercept, massive=self.massive)
        alpha = best_alpha(found) if self.alpha is None else self.alpha
        penalty = alpha * float(found.xx_DD.diagonal().mean())
        weight = self._solve(found.xx_DD, found.xy_DD, penalty).T
        return found.map(weight, device, alpha=alpha, penalty=penalty)

    def _solve(self, xx_DD: Tensor, xy_DD: Tensor, penalty: float) -> Tensor:
        if not xx_DD.diagonal().any():  # nothing varies (one position): the mean is the whole map
            return torch.zeros_like(xy_DD)
        if penalty == 0:
            return factorise(xx_DD, self.rcond).inverse @ xy_DD
        shifted = xx_DD + penalty * torch.eye(len(xx_DD), dtype=xx_DD.dtype, device=xx_DD.device)
        factor, failed = torch.linalg.cholesky_ex(shifted)
        if failed:  # a penalty below round-off
            return factorise(shifted, self.rcond).inverse @ xy_DD
        return torch.cholesky_solve(xy_DD, factor)


def best_alpha(found: Moments) -> float:
    """Return the alpha of `ALPHAS` that predicts left-out positions best; of equals, the largest."""
    scale = float(found.xx_DD.diagonal().mean())
    if scale == 0:  # nothing varies, so that every penalty gives the same map
        return ALPHAS[-1]
    errors = leave_one_out(found, [alpha * scale for alpha in ALPHAS]).tolist()
    return -min((error, -alpha) for error, alpha in zip(errors, ALPHAS, strict=True))[1]


def leave_one_out(found: Moments, penalties: list[float]) -> Tensor:
    """Return, per penalty lam, the mean over positions of |y_i - prediction of the map fitted without i|^2.

    No map is fitted anew: the residual of position i is e_i / (1 - h_i), with e_i that of the map fitted on all
    positions, leverage h_i = x_i^T (X^T X + lam I)^-1 x_i, plus 1 / N where both sides are centred (each fit then has
    its own means). One eigendecomposition of X^T X serves all penalties.

    Limitations: neighbours of a left-out position stay, so that the error is that on rows like those of the split, a
    little too good; lam is held fixed while a position is left out.

    Returns:
        Float64 where the states are; infinite for a penalty that leaves some position to itself.

    Source: Allen's PRESS statistic (Technometrics, 1974).
    """
    values_D, vectors_DD = torch.linalg.eigh(found.xx_DD)
    penalty_P1 = values_D.new_tensor(penalties)[:, None]
    shrunk_PD = 1.0 / (values_D.clamp_min(0) + penalty_P1)
    turned_DD = vectors_DD.T @ found.xy_DD
    total_P: Tensor = values_D.new_zeros(len(penalties))
    own = 0.0 if found.mean_x is None else 1.0 / found.count
    for x_nD, y_nD in found.blocks():
        z_nD = x_nD @ vectors_DD
        for index, shrunk_D in enumerate(shrunk_PD):
            free_n = 1.0 - own - z_nD.square() @ shrunk_D
            error_nD = y_nD - (z_nD * shrunk_D) @ turned_DD
            left_n = error_nD.square().sum(-1) / free_n.square()
            total_P[index] += torch.where(free_n > FREE, left_n, torch.inf).sum()
    return total_P / found.count
