"""Plain fine-tuning: the student on the train split's labels, without a teacher.

Idea: cross-entropy on the answer's tokens; the same rows, optimiser steps and update as the method that it is
compared with, so that budgets match.

Reference: the control that layer-wise transfer has to beat. Deviations: none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pkt.errors import RequestError
from pkt.methods.base import Alignment, Extraction, Transferred
from pkt.methods.tuning import Update, tune
from pkt.methods.workbench import Workbench


@dataclass(frozen=True, kw_only=True)
class Sft:
    """Supervised fine-tuning.

    Attributes:
        name: how tables call it.
        update: what trains.
        layers: layer numbers, from 1; None trains in every layer.
    """

    stages: ClassVar[tuple[str, ...]] = ("transfer",)

    name: str = "sft"
    update: Update = field(default_factory=Update)
    layers: list[int] | None = None

    def settings(self, stage: str, bench: Workbench) -> Mapping[str, Any]:
        """Name what the transfer depends on besides models and rows."""
        return {
            "update": asdict(self.update),
            "layers": self.layers,
            "output": [bench.objective.output, bench.objective.output_weight],
            "optim": asdict(bench.config.optim),
            "seed": bench.config.seed,
        }

    def extract(self, bench: Workbench) -> Extraction:
        """Refuse: nothing is taken from a teacher."""
        raise RequestError(
            "method=sft has no extract stage: it uses no teacher. Try `pkt transfer method=sft`."
        )

    def align(self, bench: Workbench, extraction: Extraction) -> Alignment:
        """Refuse: nothing is aligned."""
        raise RequestError(
            "method=sft has no align stage: it uses no teacher. Try `pkt transfer method=sft`."
        )

    def transfer(self, bench: Workbench, alignment: Alignment | None, snapshots: Path | None) -> Transferred:
        """Fine-tune the student."""
        layers = self.layers or range(1, bench.student.arch.depth + 1)
        return tune(
            bench, None, update=self.update, layers=list(layers), cache_prefix=True, snapshots=snapshots
        )
