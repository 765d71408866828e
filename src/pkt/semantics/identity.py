"""No map: a student that was cut from its teacher, or that has its width, learns the teacher's states themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pkt.errors import RequestError
from pkt.late import Tensor, torch
from pkt.semantics.alignment import AlignmentMap, HeadView, States


@dataclass(frozen=True, kw_only=True)
class Identity:
    """M = I, or the rows of I of the channels of the residual stream that a cut student kept.

    For models of one width that were not made from one another the channels mean nothing to each other, and this is a
    control.
    """

    needs_states: ClassVar[bool] = False
    reads_out: ClassVar[bool] = True

    def refusal(self, teacher_width: int, student_width: int, channels: Tensor | None) -> str | None:
        """Return why there is no identity between two widths; None where there is.

        Args:
            teacher_width: D_T.
            student_width: D_S.
            channels: of the teacher that the student kept; None: all, or it was not cut from this teacher.
        """
        if channels is not None or teacher_width == student_width:
            return None
        return (
            f"semantics=identity leaves states as they are, and the teacher's have {teacher_width} channels, the "
            f"student's {student_width}, which were not kept from the teacher's: use a map (semantics=ridge, "
            "logit_lstsq), or a student cut from this teacher (model.student.init=prune)"
        )

    @torch.no_grad()
    def fit(self, *, teacher: HeadView, student: HeadView, states: States | None = None) -> AlignmentMap:
        """Return the map.

        Raises:
            RequestError: see `refusal`.
        """
        widths = teacher.weight.shape[1], student.weight.shape[1]
        if reason := self.refusal(*widths, student.channels):
            raise RequestError(reason)
        whole_DD = torch.eye(widths[0], device=teacher.weight.device)
        weight = whole_DD if student.channels is None else whole_DD[student.channels.to(whole_DD.device)]
        return AlignmentMap(weight=weight, name="identity", info={"channels": len(weight)})
