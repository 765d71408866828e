"""Semi-orthogonal Procrustes: the rotation that turns teacher states into the student's own states."""

from __future__ import annotations

from dataclasses import dataclass

from pkt.late import torch
from pkt.semantics.alignment import AlignmentMap, States
from pkt.semantics.paired import Fitted, moments

RANK_CUT = 1e-10  # singular values of Y^T X below this share of the largest count as zero


@dataclass(frozen=True, kw_only=True)
class Procrustes(Fitted):
    """M = argmax <X M^T, Y> over semi-orthogonal M: M M^T = I if D_T >= D_S, M^T M = I if D_T <= D_S.

    X (N, D_T) are the paired teacher layer's states, Y (N, D_S) the student's own at the same positions, both
    centred if `intercept`. <X M^T, Y> = <M, Y^T X>, so with Y^T X = U S V^T (thin) M = U V^T, and the maximum is
    the sum of S. Where D_T <= D_S no length changes, and this M is also argmin |X M^T - Y|. Where D_T > D_S M is
    a projection: the least-squares problem has no closed form, and the alignment above is what is solved (our
    reading). With `scale` M is multiplied with c = argmin |c X M^T - Y| = sum S / |X M^T|^2.

    Directions that the states do not span (N <= min(D_T, D_S), or constant channels) are turned arbitrarily; the
    rank in the map's info tells how many are spanned.

    Attributes:
        scale: fit one scale, so that lengths are those of the student's states.

    Source: Schoenemann, "A generalized solution of the orthogonal Procrustes problem" (Psychometrika, 1966).
    """

    scale: bool = True

    @torch.no_grad()
    def fitted(self, states: States | None, device: torch.device) -> AlignmentMap:
        """Return the map; info: positions, left_out, rank (of Y^T X), scale (c). It raises what `moments` raises."""
        found = moments(states, "procrustes", centred=self.intercept, massive=self.massive)
        left, singular, right = torch.linalg.svd(found.xy_DD.T, full_matrices=False)
        turn_DD = left @ right
        length = float((turn_DD @ found.xx_DD * turn_DD).sum())  # |X M^T|^2
        factor = (float(singular.sum()) / length if length > 0 else 0.0) if self.scale else 1.0
        rank = int((singular > RANK_CUT * singular[0]).sum())
        return found.map(factor * turn_DD, device, rank=rank, scale=factor)
