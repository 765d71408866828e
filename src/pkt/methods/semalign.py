"""SemAlign: transfer through activations that are aligned in latent space, layer by layer.

Idea: attribution picks the teacher layers that matter; their states are decomposed over the teacher's
semantic basis and recomposed over the student's (one matrix M, no training); the paired student layers learn
to produce them, while the output learns the answer.

Reference: Gu, Aleti, Chen, Zhang, "Beyond Neural Incompatibility" (arXiv 2510.24208, v1). Three presets share
this file: `method=semalign` is v1 as published (one critical layer, MLP output, answer positions, cosine terms);
`method=semalign_joint` is ours (all pairs trained jointly, block states where the answer is predicted, beside the
teacher's distribution and the labels), and `method=semalign_cut` the same without a map, at every position, for a
student cut from its teacher.
Deviations: the vocabulary never appears per token (M is computed once; the output cosine needs no logits);
layers below the first trained one run once. Both are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from pkt.config import InterfaceName
from pkt.late import Tensor, torch
from pkt.mapping import LayerPair
from pkt.methods.base import TRAINING, Choice, Provides, Reads, Transferred, training
from pkt.methods.frontier import Frontier, tune_frontier
from pkt.methods.keeping import keep, reads_of
from pkt.methods.layer_results import LayerAlignment, LayerExtraction, reordered
from pkt.methods.layerwise import LayerWise, fit_maps, graded, length_ratio
from pkt.methods.tuning import tune
from pkt.methods.workbench import Workbench
from pkt.objectives import LayerTerm
from pkt.semantics import Refit, learns, refits
from pkt.settings import setting, undecisive
from pkt.training.states import States


def by_frontier(own: SemAlign, _choice: Choice) -> bool:
    """Return whether the settings of the frontier decide anything."""
    return own.schedule == "frontier"


@dataclass(frozen=True, kw_only=True)
class SemAlign(LayerWise):
    """The method's own settings; pairing, map and objective are strategies beside it.

    Attributes:
        interface: ``mlp``, ``attention``, ``residual`` or ``block``; see `LayerWise` for settings not named here.
        schedule: ``joint`` (all paired layers together) or ``frontier`` (one after the other, from shallow to
            deep; the same number of optimiser steps in all).
        frontier: how the stages of the frontier differ.
        targets: ``own``, or a control: ``shuffled`` (each position gets the target of a random one) or ``shifted`` (of
            the next one in the split).
        cache_prefix: run the layers below the first trained one only once.
    """

    uses = ("mapping", "semantics", "objective")
    layer_term: ClassVar[type[LayerTerm] | None] = None
    """The class of the layer term that makes a form of SemAlign; None: any layer term will do."""

    name: str = undecisive("semalign")
    interface: InterfaceName = "mlp"
    schedule: Literal["joint", "frontier"] = setting("joint", decides="transfer")
    frontier: Frontier = setting(factory=Frontier, decides="transfer", when=by_frontier)
    targets: Literal["own", "shuffled", "shifted"] = setting("own", decides="align")
    cache_prefix: bool = undecisive(True)

    @property
    def provides(self) -> Provides:
        """Mapped states, and the teacher's outputs."""
        return self.provided("student")

    @property
    def needs_kept(self) -> str | None:
        """Targets in another order are those of other rows."""
        if self.targets == "own":
            return None
        return f"method.targets={self.targets} gives rows the targets of others"

    def refusal(self, choice: Choice) -> str | None:
        """Return why this is not SemAlign, or not this form of it; None where it is."""
        terms, wanted = choice.objective, self.layer_term
        if reason := self._untimely(refits(choice.semantics)) or self._outside_layers():
            return reason
        if wanted is None and not terms.layer_terms:
            return "SemAlign without a layer term is plain fine-tuning or distillation: use method=sft or method=kd"
        if wanted is None or any(isinstance(term, wanted) for term in terms.terms.values()):
            return None
        option = wanted.__name__.lower()
        return (
            f"its layer term is {wanted.__name__}, and the objective has none: set "
            f"term@objective.terms.layer={option} (or objective={option})"
        )

    def _untimely(self, refit: Refit) -> str | None:
        """Return why maps cannot be fitted again at the times asked for; None where they can."""
        frontier = self.schedule == "frontier"
        if refit == "stages" and not frontier:
            return (
                "semantics.refit=stages fits maps before each stage of a frontier: set method.schedule=frontier (or "
                "semantics.refit=epochs)"
            )
        if refit == "epochs" and frontier:
            return "a frontier goes through the rows once, stage by stage, without epochs: set semantics.refit=stages"
        return None

    def _outside_layers(self) -> str | None:
        """Return why what should train would not, because it belongs to no layer; None where all of it does."""
        outside = [role for role in ("embed", "head") if role in self.update.targets]
        if self.schedule != "frontier" or self.update.kind != "lora" or not outside:
            return None
        return (
            f"a frontier trains one layer after the other, and {' and '.join(outside)} of method.update.targets is in "
            "none: leave that out, or set method.schedule=joint"
        )

    def reads(self, stage: str, choice: Choice) -> Reads:
        """Name what each stage reads; shuffled targets are drawn by the seed."""
        if stage == "transfer" and refits(choice.semantics) != "never":
            return replace(training(self.update), rows=("align", *TRAINING.rows))
        if stage != "align":
            return super().reads(stage, choice)
        drawn = ("seed",) if self.targets == "shuffled" else ()
        return Reads(rows=("align", *TRAINING.rows), config=("capture", *drawn), keeps=True)

    def _spanned(self, pairs: tuple[LayerPair, ...]) -> tuple[LayerPair, ...]:
        """Return the pairs with the teacher layers that make up each target; a form of the method may add some."""
        return pairs

    def align(self, bench: Workbench, extraction: LayerExtraction, scratch: Path | None) -> LayerAlignment:
        """Fit the map per pair, grade it on the align split, and keep the mapped teacher states.

        Where the map goes on learning, the teacher's states are kept as they are, and the maps give the length of the
        student's states themselves.
        """
        pairs = self._spanned(extraction.pairs)
        student = self.student_states(bench, pairs)
        teacher = self.teacher_states(bench, pairs)
        maps = fit_maps(bench, pairs, teacher, student)
        scales = {k: length_ratio(maps[k], teacher[k], student[k]) for k in maps}
        quality = graded(bench, maps, self.interface, teacher, student)
        if learning := learns(bench.semantics):
            reads = reads_of(pairs, width=bench.teacher.arch.width)
            maps, scales = {k: map_.scaled(scales[k]) for k, map_ in maps.items()}, {}
        else:
            reads = reads_of(pairs, width=bench.student.arch.width, maps=maps, scales=scales)
        dtype = self.on(bench.device_type).cache_dtype
        targets, outputs = keep(bench, reads, interface=self.interface, dtype=dtype, scratch=scratch)
        orders = {split: self._orders(bench, own) for split, own in targets.items()}
        targets = {split: reordered(own, orders[split]) for split, own in targets.items()}
        if refits(bench.semantics) != "never":
            targets["align"] = teacher
        return LayerAlignment(
            pairs=pairs,
            interface=extraction.interface,
            positions=bench.objective.positions,
            maps=maps,
            scales={} if learning else scales,
            quality=quality,
            orders=orders,
            dtype=dtype,
            targets=targets,
            outputs=outputs,
        )

    def _orders(self, bench: Workbench, states: Mapping[int, States]) -> dict[int, Tensor]:
        """Return in which order the positions of each layer's states stand, where that is not their own."""
        if self.targets == "own":
            return {}
        if self.targets == "shifted":
            return {k: torch.arange(own.count).roll(-1) for k, own in states.items()}
        generator = torch.Generator().manual_seed(bench.config.seed)
        return {k: torch.randperm(own.count, generator=generator) for k, own in states.items()}

    def transfer(self, bench: Workbench, alignment: LayerAlignment, scratch: Path | None) -> Transferred:
        """Train the paired student layers on the objective."""
        if self.schedule == "frontier":
            return tune_frontier(
                bench,
                alignment,
                self.frontier,
                update=self.update,
                cache_prefix=self.cache_prefix,
                snapshots=scratch,
            )
        return tune(
            bench,
            alignment,
            update=self.update,
            layers=[pair.student for pair in alignment.pairs],
            cache_prefix=self.cache_prefix,
            snapshots=scratch,
        )
