"""LaTen: add a few of the teacher's neurons to the student's, mapped by a hypernetwork; then no training.

Idea: attribution locates the layers and neurons that decide the answer, in both models; a small hypernetwork,
trained for a few steps with the student frozen, maps the teacher's weights of its best neurons along the residual
stream; what it gives is added to the student's weights of its own best neurons.

Reference: Tan, He, Liu, Zhao, "Neural Incompatibility: The Unbridgeable Gap of Cross-Scale Parametric Knowledge
Transfer in Large Language Models" (ACL 2025), section "LaTen".
Readings: y is the last token of the answer's text, not EOS; scores are means over the extract rows; "width" in
n = int(width * rho) is the student's number of neurons of that kind in a layer (FFN width; heads * head size); the
"modules" of the penalty are the changed matrices.
Deviations: with grouped-query attention several neurons share a row of W_v, and the best of them decides its delta
(the paper's models have no groups); the one cycle ends one step after the last, which would otherwise not move;
steps, rho and lr may be lists, of which the validation split's cross-entropy chooses. The train split is not used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

from pkt.methods.base import Choice, Provides, Reads, Transferred
from pkt.methods.laten_delta import Candidate, LatenAlignment
from pkt.methods.laten_fit import Fitter, Recipe
from pkt.methods.laten_locate import checked_counts, locate
from pkt.methods.laten_neurons import MODULES, LatenExtraction
from pkt.methods.workbench import Workbench
from pkt.models.architecture import Architecture
from pkt.models.sparse_delta import SparseDelta, inject, norms
from pkt.objectives import OutputHead
from pkt.settings import setting, undecisive
from pkt.training.hypernetwork import Site
from pkt.training.loop import History
from pkt.training.trainable import Trainable


@dataclass(frozen=True, kw_only=True)
class LaTen:
    """The method's own settings; it has its own optimiser, and reads no mapping, semantics or objective.

    Attributes:
        name: how tables call it.
        rho: share of each student layer's neurons that change; a list is chosen from.
        steps: optimiser steps of the hypernetwork; a list is chosen from.
        lr: peak of the one-cycle learning rate; a list is chosen from.
        weight_decay: of AdamW, on the hypernetwork.
        penalty: weight of the delta's mean square in every changed matrix.
        align_rows, extract_rows: rows of each split per step.
        legacy_norm: divide by the root of a standard deviation in the read-out, as the public code does.
    """

    results: ClassVar[Mapping[str, type[Any]]] = {"extract": LatenExtraction, "align": LatenAlignment}
    uses: ClassVar[tuple[str, ...]] = ()
    demands: ClassVar[str] = (
        "gated MLP, RMSNorm before each sublayer and none after it, linear head without soft-cap or "
        "scale, in both models (Llama, Mistral, Qwen 2 and 3); student no deeper than the teacher"
    )

    name: str = undecisive("laten")
    rho: float | list[float] = 0.1
    steps: int | list[int] = setting(4, decides="align")
    lr: float | list[float] = setting(3e-5, decides="align")
    weight_decay: float = setting(0.05, decides="align")
    penalty: float = setting(1000.0, decides="align")
    align_rows: int = setting(15, decides="align")
    extract_rows: int = setting(1, decides="align")
    legacy_norm: bool = False

    def __post_init__(self) -> None:
        if not self._rhos or not all(0 < rho <= 1 for rho in self._rhos):
            raise ValueError(f"rho is a share above 0 and up to 1, or a list of them, got {self.rho}")
        if not self._steps or not all(steps >= 1 for steps in self._steps):
            raise ValueError(f"steps is 1 or more, or a list of such numbers, got {self.steps}")
        if not self._lrs or not all(lr > 0 for lr in self._lrs):
            raise ValueError(f"lr is above 0, or a list of such numbers, got {self.lr}")
        if self.weight_decay < 0 or self.penalty < 0:
            raise ValueError(
                f"weight_decay and penalty are 0 or more, got {self.weight_decay}, {self.penalty}"
            )
        if self.align_rows < 1 or self.extract_rows < 0:
            raise ValueError(
                f"align_rows is 1 or more and extract_rows 0 or more, got {self.align_rows} and {self.extract_rows}"
            )

    @property
    def _rhos(self) -> list[float]:
        return _listed(self.rho)

    @property
    def _steps(self) -> list[int]:
        return _listed(self.steps)

    @property
    def _lrs(self) -> list[float]:
        return _listed(self.lr)

    @property
    def provides(self) -> Provides:
        """Nothing: it reads no objective."""
        return Provides()

    def refusal(self, choice: Choice) -> str | None:
        """Refuse nothing: no strategy is read."""
        return None

    def reads(self, stage: str, choice: Choice) -> Reads:
        """Name what each stage reads; the transfer only adds the delta."""
        if stage == "extract":
            return Reads(rows=("extract",))
        if stage == "transfer":
            return Reads(models=("student",))
        return Reads(
            rows=("extract", "align", "validation"),
            config=("optim.precision", "optim.micro_batch_size", "seed"),
        )

    def extract(self, bench: Workbench, scratch: Path | None) -> LatenExtraction:
        """Locate layers and neurons in both models, and take the teacher's weights of its neurons.

        Raises:
            RequestError: a model whose neurons cannot be located, a teacher with fewer layers or neurons than
                are needed, or a share of no neuron.
        """
        return locate(bench, self._rhos, legacy_norm=self.legacy_norm)

    def align(
        self, bench: Workbench, extraction: LatenExtraction | None, scratch: Path | None
    ) -> LatenAlignment:
        """Train the hypernetworks of all settings and keep the delta with the lowest validation cross-entropy."""
        assert extraction is not None
        # the extraction is keyed by the largest share only: the smallest may be new
        checked_counts(bench, self._rhos)
        arch, before = bench.student.arch, bench.student_meter.forward_tokens
        recipe = Recipe(
            align_rows=self.align_rows,
            extract_rows=self.extract_rows,
            weight_decay=self.weight_decay,
            penalty=self.penalty,
        )
        fitter = Fitter(bench=bench, recipe=recipe, head=OutputHead(arch=arch))
        candidates: list[Candidate] = []
        chosen: tuple[float, int, list[SparseDelta]] | None = None
        for sites, rho, lr, steps in self._grid(extraction, arch):
            candidate, found = fitter.fit(sites, rho=rho, lr=lr, steps=steps)
            if chosen is None or candidate.validation < chosen[0]:
                chosen = (candidate.validation, len(candidates), found)
            candidates.append(candidate)
        assert chosen is not None
        untouched = fitter.validation([])
        return LatenAlignment(
            deltas=tuple(delta.detached() for delta in chosen[2]),
            candidates=tuple(candidates),
            chosen=chosen[1],
            untouched=untouched,
            norms=_norms(arch, chosen[2]),
            trained_parameters=fitter.trained_parameters(extraction),
            rows=sum(len(bench.encoded(split).lengths) for split in ("align", "extract")),
            dtype=str(arch.dtype).removeprefix("torch."),
            student_forward_tokens=extraction.student_forward_tokens
            + bench.student_meter.forward_tokens
            - before,
        )

    def _grid(
        self, extraction: LatenExtraction, arch: Architecture
    ) -> Iterator[tuple[list[Site], float, float, int]]:
        for rho in self._rhos:
            sites = [site.to(arch.device) for site in extraction.sites(rho)]
            for lr, steps in product(self._lrs, self._steps):
                yield sites, rho, lr, steps

    def transfer(
        self, bench: Workbench, alignment: LatenAlignment | None, scratch: Path | None
    ) -> Transferred:
        """Add the delta to the student's weights."""
        assert alignment is not None
        arch = bench.student.arch
        inject(arch, alignment.deltas)
        steps, delta = alignment.choice.steps, alignment.norm("delta")
        validation: dict[str, float] = {"step": steps, "cross_entropy": alignment.choice.validation}
        return Transferred(
            trainable=Trainable(model=arch.model, parameters={}, adapter=None, dtypes={}),
            history=History(steps=steps, validations=[validation], best_step=None),
            layers=tuple(sorted({change.layer for change in alignment.deltas})),
            budget={
                "trained_parameters": alignment.trained_parameters,
                "optimiser_steps": steps,
                "train_rows": alignment.rows,
                "student_forward_tokens": alignment.student_forward_tokens,
                "delta_norm": delta,
                "delta_norm_relative": delta / alignment.norm("weight"),
                "delta_norm_rounded": alignment.norm("rounded"),
            },
        )


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _norms(arch: Architecture, changes: list[SparseDelta]) -> dict[str, dict[str, float]]:
    return {module: norms(arch, [c for c in changes if c.module == module]) for module in MODULES}
