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

from pkt.methods.base import TRAINING, Choice, Provides, Reads, training
from pkt.methods.keeping import keep
from pkt.methods.layer_results import LayerAlignment
from pkt.methods.sft import Sft
from pkt.methods.workbench import Workbench
from pkt.settings import undecisive


@dataclass(frozen=True, kw_only=True)
class Kd(Sft):
    """Distillation through the output; settings as in `Sft`."""

    results: ClassVar[Mapping[str, type[Any]]] = {"align": LayerAlignment}

    name: str = undecisive("kd")

    @property
    def provides(self) -> Provides:
        """The teacher's outputs."""
        return Provides(outputs=True, trains_head=self.update.trains_head)

    def refusal(self, choice: Choice) -> str | None:
        """Return why the objective does not distil; None where it does."""
        if not choice.objective.reads_outputs:
            terms = ", ".join(choice.objective.terms)
            return f"no term ({terms}) looks at the teacher's outputs: use objective=kd (or method=sft)"
        return None

    def reads(self, stage: str, choice: Choice) -> Reads:
        """Name what each stage reads: the rows of the training, `align` with the teacher."""
        if stage == "transfer":
            return training(self.update)
        return Reads(rows=TRAINING.rows, config=("capture",), keeps=True)

    def align(self, bench: Workbench, extraction: None, scratch: Path | None) -> LayerAlignment:
        """Keep the teacher's distributions (nothing where the teacher is live)."""
        _, outputs = keep(bench, {}, scratch=scratch)
        return LayerAlignment(outputs=outputs)
