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
(the paper's models have no groups); the one-cycle schedule is one step longer than the run, since a last step at
learning rate 0 would change nothing. The train split is not used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

from pkt.config import OptimConfig
from pkt.data.batching import collate, sorted_batches
from pkt.errors import PktError
from pkt.late import torch
from pkt.methods.base import Choice, Method, Reads, Transferred
from pkt.methods.laten_locate import locate
from pkt.methods.laten_results import MODULES, LatenAlignment, LatenExtraction
from pkt.methods.workbench import Workbench
from pkt.models.sparse_delta import SparseDelta, inject, norms
from pkt.objectives import OutputHead
from pkt.settings import setting, undecisive
from pkt.training.deltas import DeltaLoss, DeltaSite, answer_loss, deltas
from pkt.training.loop import History, Trainer
from pkt.training.trainable import Trainable

if TYPE_CHECKING:
    from pkt.training.hypernetwork import HyperNetwork


@dataclass(frozen=True, kw_only=True)
class LaTen(Method):
    """The method's own settings; it reads no mapping, semantics or objective, and has an optimiser of its own.

    Attributes:
        name: how tables call it.
        rho: share of the neurons of each student layer that change.
        steps: optimiser steps of the hypernetwork.
        lr: peak of the one-cycle learning rate.
        weight_decay: of AdamW, on the hypernetwork.
        penalty: weight of the mean square of the delta, summed over the changed matrices.
        align_rows, extract_rows: how many rows of each split a step has.
        legacy_norm: in the read-out divide by the root of the standard deviation, as the public code does, instead
            of by the final norm's divisor.
    """

    results: ClassVar[Mapping[str, type[Any]]] = {"extract": LatenExtraction, "align": LatenAlignment}
    demands = (
        "gated MLP, RMSNorm before each sublayer and none after it, linear head without soft-cap or "
        "scale, in both models (Llama, Mistral, Qwen 2 and 3); student no deeper than the teacher"
    )

    name: str = undecisive("laten")
    rho: float = setting(0.1, above=0, at_most=1)
    steps: int = setting(4, decides="align", at_least=1)
    lr: float = setting(3e-5, decides="align", above=0)
    weight_decay: float = setting(0.05, decides="align", at_least=0)
    penalty: float = setting(1000.0, decides="align", at_least=0)
    align_rows: int = setting(15, decides="align", at_least=1)
    extract_rows: int = setting(1, decides="align", at_least=0)
    legacy_norm: bool = False

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
        """Locate layers and neurons in both models, and take the teacher's weights of its neurons."""
        return locate(bench, self.rho, legacy_norm=self.legacy_norm)

    def align(
        self, bench: Workbench, extraction: LatenExtraction | None, scratch: Path | None
    ) -> LatenAlignment:
        """Train the hypernetwork, and measure the student with and without the delta that it gives."""
        from pkt.training.hypernetwork import HyperNetwork

        assert extraction is not None
        arch, before = bench.student.arch, bench.student_meter.forward_tokens
        head, sites = OutputHead(arch=arch), [site.to(arch.device) for site in extraction.sites()]
        hypernetwork = HyperNetwork(
            MODULES,
            teacher_width=sites[0].sources_nD.shape[1],
            student_width=arch.width,
            seed=bench.config.seed,
        ).to(arch.device)
        losses = self._train(bench, head, hypernetwork, sites)
        with torch.no_grad():
            changes = deltas(hypernetwork, sites)
        validation, untouched = validated(bench, head, changes), validated(bench, head, [])
        own = {module: norms(arch, [c for c in changes if c.module == module]) for module in MODULES}
        return LatenAlignment(
            deltas=tuple(change.detached() for change in changes),
            losses=tuple(losses),
            validation=validation,
            untouched=untouched,
            norms=own,
            trained_parameters=sum(p.numel() for p in hypernetwork.parameters()),
            rows=sum(len(bench.encoded(split).lengths) for split in ("align", "extract")),
            dtype=str(arch.dtype).removeprefix("torch."),
            student_forward_tokens=extraction.student_forward_tokens
            + bench.student_meter.forward_tokens
            - before,
        )

    def _train(
        self, bench: Workbench, head: OutputHead, hypernetwork: HyperNetwork, sites: Sequence[DeltaSite]
    ) -> list[float]:
        """Train the hypernetwork with the student frozen; return the cross-entropy before each step, on its rows."""
        arch, given = bench.student.arch, bench.config
        arch.model.requires_grad_(False)
        align, extract = bench.encoded("align"), bench.encoded("extract")
        rows = align.followed_by(extract)
        batches = self.plan(len(align.input_ids), len(extract.input_ids), seed=given.seed)
        losses: list[float] = []
        with bench.track("hypernetwork", self.steps) as advance:

            def listen(_step: int, metrics: dict[str, float]) -> None:
                losses.append(metrics["cross_entropy"])
                advance(1)

            Trainer(
                loss=DeltaLoss(
                    arch=arch,
                    hypernetwork=hypernetwork,
                    sites=sites,
                    penalty=self.penalty,
                    head=head,
                    autocast=given.optim.precision == "bfloat16",
                    meter=bench.student_meter,
                ),
                parameters=dict(hypernetwork.named_parameters()),
                plan=[batches],
                collate=lambda chosen: collate(rows, chosen).to(arch.device),
                optim=OptimConfig(
                    lr=self.lr,
                    batch_size=max(map(len, batches)),
                    micro_batch_size=given.optim.micro_batch_size,
                    weight_decay=self.weight_decay,
                    betas=[0.9, 0.95],
                    schedule="one_cycle",
                    max_grad_norm=0.0,
                    validate_every=0,
                ),
                listen=listen,
                seed=given.seed,
            ).fit()
        return losses

    def plan(self, align: int, extract: int, *, seed: int) -> list[list[int]]:
        """Return the rows of each step; 0 .. align - 1 are those of the align split, then come the extract split's.

        Each split is gone through in shuffled rounds. What is left of a round and does not fill a step is skipped,
        so that no step has a row twice; a longer run starts with the steps of a shorter one.
        """
        first = _groups(range(align), self.align_rows, Random(f"{seed}/laten/align"))
        second = _groups(range(align, align + extract), self.extract_rows, Random(f"{seed}/laten/extract"))
        return [next(first) + next(second) for _ in range(self.steps)]

    def transfer(
        self, bench: Workbench, alignment: LatenAlignment | None, scratch: Path | None
    ) -> Transferred:
        """Add the delta to the student's weights."""
        assert alignment is not None
        arch = bench.student.arch
        inject(arch, alignment.deltas)
        steps, delta = len(alignment.losses), alignment.norm("delta")
        validation: dict[str, float] = {"step": steps, "cross_entropy": alignment.validation}
        return Transferred(
            trainable=Trainable(model=arch.model),
            history=History(steps=steps, validations=[validation]),
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


def _groups(rows: Sequence[int], count: int, rng: Random) -> Iterator[list[int]]:
    count = min(count, len(rows))
    while True:
        order = list(rows)
        rng.shuffle(order)
        for start in range(0, len(order) - count + 1, max(count, 1)):
            yield order[start : start + count]


@torch.no_grad()
def validated(bench: Workbench, head: OutputHead, changes: Sequence[SparseDelta]) -> float:
    """Return the student's mean cross-entropy over the validation split's answer tokens, with some deltas.

    Raises:
        PktError: it is not finite.
    """
    arch, encoded, optim = bench.student.arch, bench.encoded("validation"), bench.config.optim
    total, count = 0.0, 0
    for rows in sorted_batches(encoded.lengths, optim.micro_batch_size or 16):
        batch = collate(encoded, rows).to(arch.device)
        loss, tokens = answer_loss(arch, head, batch, changes, autocast=optim.precision == "bfloat16")
        total, count = total + float(loss), count + int(batch.supervised.sum())
        bench.student_meter.count(tokens, layers=arch.depth)
    mean = total / count
    if not math.isfinite(mean):
        raise PktError(
            f"the student's validation cross-entropy is {mean}; load it in float32 "
            "(model.student.dtype=float32), or lower method.lr."
        )
    return mean
