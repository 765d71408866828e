"""The map that matches logits: least squares through both LM heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pkt.late import torch
from pkt.semantics.alignment import AlignmentMap, HeadView, States
from pkt.semantics.basis import Basis, cross_gram
from pkt.semantics.factor import invert
from pkt.semantics.vocabulary import Anchors, anchor_rows
from pkt.settings import Bounded, setting


@dataclass(frozen=True, kw_only=True)
class LogitLstsq(Bounded):
    """M = W_S^+ W_T: the student state whose logits come closest to those of the teacher's state.

    h* = argmin |W_S h* - W_T x|^2 = W_S^+ W_T x, of minimal length, over the anchors; x = h / |h|, because the head
    reads a state through a norm that removes its length (`normalise`; a factor sqrt(D_T) and a LayerNorm's mean
    are left out), or x = h. With `fold_norm` both W are multiplied with the final norm's weight first, and W_T x
    is the teacher's own read-out up to that factor. Computed as G_S^+ (W_S^T W_T), G_S = W_S^T W_S.

    Attributes:
        fold_norm: multiply each column of W by the final norm's weight.
        anchors: ``all`` rows (index-aligned; rows beyond the shorter vocabulary are padding) or those of
            ``HeadView.shared``, which are all that two vocabularies have. Logits of other tokens do not count.
        normalise: scale states to length 1 first: the map gives directions. False: it keeps h's length.
        rcond: eigenvalues of G_S below rcond times the largest count as zero.

    Source: the initial projector of "A Dual-Space Framework for General Knowledge Distillation of LLMs" (arXiv
    2504.11426), as a fixed map.
    """

    needs_states: ClassVar[bool] = False
    reads_out: ClassVar[bool] = True

    fold_norm: bool = False
    anchors: Anchors = "all"
    normalise: bool = True
    rcond: float = setting(1e-10, at_least=0, below=1)

    @torch.no_grad()
    def fit(self, *, teacher: HeadView, student: HeadView, states: States | None = None) -> AlignmentMap:
        """Return the map; info: rank_student, width_student, condition_student (of W_S, kept part), anchors.

        Raises:
            RequestError: ``anchors=shared`` without shared tokens.
            PktError: a head that is zero or not finite.
        """
        count = min(len(teacher.weight), len(student.weight))
        right, left = (
            Basis(
                weight_VD=view.weight[:count] if rows is None else view.weight,
                factor=None,
                scale_D=view.norm if self.fold_norm else None,
                rows=rows,
            )
            for view, rows in zip(
                (teacher, student), anchor_rows(self.anchors, teacher, student), strict=True
            )
        )
        factor = invert(cross_gram(left, left), self.rcond)
        cross_DD = cross_gram(left, right)
        weight = (factor.inverse.to(cross_DD.device) @ cross_DD).float().contiguous()
        info: dict[str, float | int] = {
            "rank_student": factor.rank,
            "width_student": student.weight.shape[1],
            "condition_student": factor.condition,
            "anchors": left.size,
        }
        return AlignmentMap(
            weight=weight.to(teacher.weight.device),
            normalise=self.normalise,
            name="logit_lstsq",
            info=info,
        )
