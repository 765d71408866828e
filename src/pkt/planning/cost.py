"""What one stage takes, as its closed form gives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pkt.planning.memory import Item


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one stage takes.

    Attributes:
        rows: that it goes through.
        teacher_tokens: forward tokens of the teacher, as the stage's meter counts them.
        student_tokens: those of the student.
        layer_tokens: the student's tokens times the layers that ran on them.
        operations: floating point operations.
        calls: times that a layer is called on a batch, forward and backward, each of which takes time of its own.
        reads: bytes of weights that are read again for every token that is written.
        moments: what is in memory at the moments that can be the peak, by their names.
        disk: bytes of the result.
        scratch: bytes of resumable state, which goes when the result is there.
        kept: bytes of the result that are the teacher's states and distributions.
    """

    rows: int = 0
    teacher_tokens: int = 0
    student_tokens: int = 0
    layer_tokens: int = 0
    operations: float = 0.0
    calls: float = 0.0
    reads: float = 0.0
    moments: Mapping[str, tuple[Item, ...]] = field(default_factory=dict)
    disk: float = 0.0
    scratch: float = 0.0
    kept: float = 0.0
