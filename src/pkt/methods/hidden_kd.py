"""Hidden-state distillation: the plain layer-wise baseline, with a learned projection in place of a map.

Idea: each paired student layer's state goes through a linear projection of its own, trained along with the student,
and has to meet the teacher's raw state, by any layer term that compares in the teacher's space; the projections
are left out of what is saved.

Reference: FitNets (Romero et al., arXiv 1412.6550); layer-wise as in TED (Liang et al., arXiv 2210.01351).
Deviations: one linear map per pair and no separate filter training on the teacher's side (TED has one).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pkt.late import nn, torch
from pkt.methods.base import TRAINING, Choice, Provides, Reads, Transferred
from pkt.methods.keeping import keep, reads_of
from pkt.methods.layer_results import LayerAlignment, LayerExtraction
from pkt.methods.layerwise import LayerWise
from pkt.methods.tuning import tune
from pkt.methods.workbench import Workbench
from pkt.settings import undecisive


@dataclass(frozen=True, kw_only=True)
class HiddenKd(LayerWise):
    """Distillation through hidden states; settings as in `LayerWise`."""

    name: str = undecisive("hidden_kd")

    @property
    def provides(self) -> Provides:
        """The teacher's own states, which the student's are projected to, and its outputs."""
        return self.provided("teacher")

    def refusal(self, choice: Choice) -> str | None:
        """Return why this is no distillation through hidden states; None where it is."""
        if not choice.objective.layer_terms:
            return "its layer term is the method: set objective=hidden (or method=kd)"
        return None

    def reads(self, stage: str, choice: Choice) -> Reads:
        """Name what each stage reads; `align` fits no map, so that it has no use for the align rows."""
        if stage != "align":
            return super().reads(stage, choice)
        return Reads(rows=TRAINING.rows, config=("capture",), keeps=True)

    def align(self, bench: Workbench, extraction: LayerExtraction, scratch: Path | None) -> LayerAlignment:
        """Keep the teacher's own states at the paired layers."""
        reads = reads_of(extraction.pairs, width=bench.teacher.arch.width)
        dtype = self.on(bench.device_type).cache_dtype
        targets, outputs = keep(bench, reads, interface=self.interface, dtype=dtype, scratch=scratch)
        return LayerAlignment(
            pairs=extraction.pairs,
            interface=self.interface,
            positions=bench.objective.positions,
            dtype=dtype,
            targets=targets,
            outputs=outputs,
        )

    def transfer(self, bench: Workbench, alignment: LayerAlignment, scratch: Path | None) -> Transferred:
        """Train the paired student layers and the projections."""
        arch, width = bench.student.arch, int(bench.teacher_config.hidden_size)
        layers = [pair.student for pair in alignment.pairs]
        through = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(bench.config.seed)
            for k in layers:
                through[k] = nn.Linear(arch.width, width, bias=False).to(arch.device)
        return tune(bench, alignment, update=self.update, layers=layers, snapshots=scratch, through=through)
