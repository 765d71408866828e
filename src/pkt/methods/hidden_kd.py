"""Hidden-state distillation: the plain layer-wise baseline, with a learned projection in place of a map.

Idea: each paired student layer's state goes through a linear projection of its own, trained along with the student,
and has to meet the teacher's raw state, by any layer term that compares in the teacher's space; the projections
are left out of what is saved.

Reference: FitNets (Romero et al., arXiv 1412.6550); layer-wise as in TED (Liang et al., arXiv 2210.01351).
Deviations: one linear map per pair and no separate filter training on the teacher's side (TED has one).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from pkt.methods.base import TRAINING, Choice, Provides, Reads, Transferred
from pkt.methods.layer_results import LayerAlignment, LayerExtraction
from pkt.methods.layerwise import (
    pair_layers,
    pairing_reads,
    teacher_outputs,
    teacher_states,
)
from pkt.methods.tuning import SPLITS, Update, tune
from pkt.methods.workbench import Workbench
from pkt.settings import setting, undecisive


@dataclass(frozen=True, kw_only=True)
class HiddenKd:
    """Distillation through hidden states.

    Attributes:
        name: how tables call it.
        interface: where in a layer states are read, on both sides.
        reduce: aggregation of attribution (only where the mapping asks for scores).
        update: what trains in the paired layers.
        cache_dtype: storage of the teacher's states.
    """

    results: ClassVar[Mapping[str, type[Any]]] = {"extract": LayerExtraction, "align": LayerAlignment}
    uses: ClassVar[tuple[str, ...]] = ("mapping", "objective")
    demands: ClassVar[str] = ""

    name: str = undecisive("hidden_kd")
    interface: Literal["mlp", "attention", "residual", "block"] = "block"
    reduce: Literal["example", "signed", "abs", "l2"] = setting(
        "example", when=lambda _, choice: choice.mapping.needs_scores
    )
    update: Update = setting(factory=Update, decides="transfer")
    cache_dtype: Literal["float32", "bfloat16"] = setting("float32", decides="align")

    @property
    def provides(self) -> Provides:
        """The teacher's own states, which the student's are projected to, and its outputs."""
        return Provides(
            states="teacher", interface=self.interface, outputs=True, trains_head=self.update.trains_head
        )

    def refusal(self, choice: Choice) -> str | None:
        """Return why this is no distillation through hidden states; None where it is."""
        if not choice.objective.layer_terms:
            return "its layer term is the method: set objective=hidden (or method=kd)"
        return None

    def reads(self, stage: str, choice: Choice) -> Reads:
        """Name what each stage reads; a learned projection has no use for the align rows."""
        if stage == "extract":
            return pairing_reads(choice)
        return TRAINING if stage == "transfer" else Reads(rows=TRAINING.rows, keeps=True)

    def extract(self, bench: Workbench, scratch: Path | None) -> LayerExtraction:
        """Pair the layers."""
        return pair_layers(bench, self.interface, self.reduce)

    def align(self, bench: Workbench, extraction: LayerExtraction, scratch: Path | None) -> LayerAlignment:
        """Keep the teacher's own states at the paired layers."""
        positions, dtype = bench.objective.positions, getattr(torch, self.cache_dtype)
        return LayerAlignment(
            pairs=extraction.pairs,
            interface=self.interface,
            positions=positions,
            targets={
                split: teacher_states(
                    bench, extraction.pairs, self.interface, positions, split, maps=None, dtype=dtype
                )
                for split in SPLITS
            },
            outputs=teacher_outputs(bench),
        )

    def transfer(self, bench: Workbench, alignment: LayerAlignment, scratch: Path | None) -> Transferred:
        """Train the paired student layers and the projections."""
        arch = bench.student.arch
        layers = [pair.student for pair in alignment.pairs]
        through = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(bench.config.seed)
            for k in layers:
                width = alignment.targets["train"][k].flat_ND.shape[1]
                through[k] = nn.Linear(arch.width, width, bias=False).to(arch.device)
        return tune(
            bench,
            alignment,
            update=self.update,
            layers=layers,
            snapshots=scratch,
            through=through,
        )
