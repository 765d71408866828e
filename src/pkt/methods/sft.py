"""Plain fine-tuning: the student on the train split's labels, without a teacher.

Idea: cross-entropy on the answer's tokens; the same rows, optimiser steps and update as the method that it is
compared with, so that budgets match.

Reference: the control that layer-wise transfer has to beat. Deviations: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pkt.methods.base import Transferred
from pkt.methods.layer_results import LayerAlignment
from pkt.methods.tuning import TrainingMethod, tune
from pkt.methods.workbench import Workbench
from pkt.settings import setting, undecisive


@dataclass(frozen=True, kw_only=True)
class Sft(TrainingMethod):
    """Supervised fine-tuning.

    Attributes:
        name: how tables call it.
        update: what trains in each layer.
        layers: layer numbers, from 1; None trains in every layer.
    """

    name: str = undecisive("sft")
    layers: list[int] | None = setting(None, decides="transfer")

    def trained(self, bench: Workbench) -> list[int]:
        """Return the layers that train."""
        return self.layers or list(range(1, bench.student.arch.depth + 1))

    def transfer(
        self, bench: Workbench, alignment: LayerAlignment | None, scratch: Path | None
    ) -> Transferred:
        """Train the layers on the request's objective; `alignment` is there in forms that have a teacher."""
        return tune(bench, alignment, update=self.update, layers=self.trained(bench), snapshots=scratch)
