"""The untouched student: the row that every table needs.

Idea: nothing is taken, nothing is changed. What `transfer` leaves is the student, bit for bit, so that its scores
go through the same path as every other method's.

Reference: none. Deviations: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pkt.methods.base import Choice, Method, Reads, Transferred
from pkt.methods.workbench import Workbench
from pkt.settings import undecisive
from pkt.training.loop import History
from pkt.training.trainable import Trainable


@dataclass(frozen=True, kw_only=True)
class Identity(Method):
    """Change nothing.

    Attributes:
        name: how tables call it.
    """

    name: str = undecisive("identity")

    def reads(self, stage: str, choice: Choice) -> Reads:
        """Name the student, which is all that is read."""
        return Reads(models=("student",))

    def transfer(self, bench: Workbench, alignment: None, scratch: Path | None) -> Transferred:
        """Return the student as it is."""
        budget: dict[str, float] = {
            "trained_parameters": 0,
            "optimiser_steps": 0,
            "train_rows": 0,
            "student_forward_tokens": 0,
        }
        return Transferred(
            trainable=Trainable(model=bench.student.model), history=History(steps=0), layers=(), budget=budget
        )
