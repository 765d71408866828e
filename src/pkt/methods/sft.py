"""Plain fine-tuning: the student on the train split's labels, without a teacher.

Idea: cross-entropy on the answer's tokens; the same rows, optimiser steps and update as the method that it is
compared with, so that budgets match.

Reference: the control that layer-wise transfer has to beat. Deviations: none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pkt.methods.base import TRAINING, Choice, Provides, Reads, Transferred, WithoutTeacher
from pkt.methods.tuning import Update, tune
from pkt.methods.workbench import Workbench
from pkt.settings import undecisive


@dataclass(frozen=True, kw_only=True)
class Sft(WithoutTeacher):
    """Supervised fine-tuning.

    Attributes:
        name: how tables call it.
        update: what trains.
        layers: layer numbers, from 1; None trains in every layer.
    """

    uses: ClassVar[tuple[str, ...]] = ("objective",)
    demands: ClassVar[str] = ""

    name: str = undecisive("sft")
    update: Update = field(default_factory=Update)
    layers: list[int] | None = None

    @property
    def provides(self) -> Provides:
        """Nothing of a teacher."""
        return Provides(trains_head=self.update.trains_head)

    def reads(self, stage: str, choice: Choice) -> Reads:
        """Read what every training reads."""
        return TRAINING

    def transfer(self, bench: Workbench, alignment: None, scratch: Path | None) -> Transferred:
        """Fine-tune the student."""
        layers = self.layers or range(1, bench.student.arch.depth + 1)
        return tune(bench, None, update=self.update, layers=list(layers), snapshots=scratch)
