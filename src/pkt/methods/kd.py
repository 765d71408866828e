"""Logit distillation: the student learns the teacher's next-token distribution on the answers.

Idea: tau^2 D(teacher, student) beside the cross-entropy, D forward, reverse or Jensen-Shannon; the teacher's
distributions are computed once and kept as top-k log-probabilities and a tail mass, or live at every step.

Reference: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531); reverse KL as
in MiniLLM (arXiv 2306.08543), but on the train rows' own answers.
Deviations: answer positions only; no sampling from the student.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pkt.methods.base import TRAINING, Choice, Provides, Reads, Transferred
from pkt.methods.layer_results import LayerAlignment
from pkt.methods.layerwise import teacher_outputs
from pkt.methods.tuning import Update, tune
from pkt.methods.workbench import Workbench
from pkt.settings import setting, undecisive


@dataclass(frozen=True, kw_only=True)
class Kd:
    """Distillation through the output.

    Attributes:
        name: how tables call it.
        update: what trains.
        layers: layer numbers, from 1; None trains in every layer.
    """

    results: ClassVar[Mapping[str, type[Any]]] = {"align": LayerAlignment}
    uses: ClassVar[tuple[str, ...]] = ("objective",)
    demands: ClassVar[str] = ""

    name: str = undecisive("kd")
    update: Update = setting(factory=Update, decides="transfer")
    layers: list[int] | None = setting(None, decides="transfer")

    @property
    def provides(self) -> Provides:
        """The teacher's outputs."""
        return Provides(outputs=True, trains_head=self.update.trains_head)

    def refusal(self, choice: Choice) -> str | None:
        """Return why this objective is no distillation; None where it is."""
        if choice.objective.outputs is None:
            terms = ", ".join(choice.objective.terms)
            return f"no term ({terms}) looks at the teacher's outputs: use objective=kd (or method=sft)"
        return None

    def reads(self, stage: str, choice: Choice) -> Reads:
        """Read the rows that are trained on, twice: with the teacher, and with the student."""
        return TRAINING if stage == "transfer" else Reads(rows=TRAINING.rows, keeps=True)

    def extract(self, bench: Workbench, scratch: Path | None) -> None:
        """Never called: `results` names no such stage."""
        raise AssertionError("kd has no extract stage")

    def align(self, bench: Workbench, extraction: None, scratch: Path | None) -> LayerAlignment:
        """Keep the teacher's distributions (nothing where the teacher is live)."""
        return LayerAlignment(outputs=teacher_outputs(bench))

    def transfer(self, bench: Workbench, alignment: LayerAlignment, scratch: Path | None) -> Transferred:
        """Distil into the student."""
        layers = self.layers or range(1, bench.student.arch.depth + 1)
        return tune(bench, alignment, update=self.update, layers=list(layers), snapshots=scratch)
