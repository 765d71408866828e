"""LaTen's alignment: a hypernetwork per candidate setting, a few steps each, judged on the validation split.

sites(rho), rows -> Trainer(DeltaLoss) for `steps` -> delta -> validation cross-entropy -> the lowest is kept
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

import torch

from pkt.config import OptimConfig
from pkt.data.batching import collate, sorted_batches
from pkt.data.encoding import Encoded
from pkt.errors import PktError
from pkt.methods.laten_delta import Candidate
from pkt.methods.laten_neurons import MODULES, LatenExtraction
from pkt.methods.workbench import Workbench
from pkt.models.sparse_delta import SparseDelta
from pkt.objectives import OutputHead
from pkt.training.hypernetwork import DeltaLoss, HyperNetwork, Site, answer_loss, deltas
from pkt.training.loop import Trainer


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a hypernetwork trains.

    Attributes:
        align_rows, extract_rows: rows of each split per step.
        weight_decay: of AdamW.
        penalty: weight of the delta's size.
        betas: of AdamW.
    """

    align_rows: int
    extract_rows: int
    weight_decay: float
    penalty: float
    betas: tuple[float, float] = (0.9, 0.95)


def plan(align: int, extract: int, recipe: Recipe, *, steps: int, seed: int) -> list[list[int]]:
    """Return the rows of each step: the align split's are 0 .. align - 1, the extract split's follow.

    Each split is walked through in shuffled rounds, of which a rest that does not fill a step is left out: a step has
    no row twice, and a longer run starts with the steps of a shorter one.
    """
    first = _groups(range(align), recipe.align_rows, Random(f"{seed}/laten/align"))
    second = _groups(range(align, align + extract), recipe.extract_rows, Random(f"{seed}/laten/extract"))
    return [next(first) + next(second) for _ in range(steps)]


def _groups(rows: Sequence[int], count: int, rng: Random) -> Iterator[list[int]]:
    count = min(count, len(rows))
    while True:
        order = list(rows)
        rng.shuffle(order)
        for start in range(0, len(order) - count + 1, max(count, 1)):
            yield order[start : start + count]


@dataclass(frozen=True, kw_only=True)
class Fitter:
    """Fits hypernetworks for one request.

    Attributes:
        bench: student and rows; the student's weights are never written.
        recipe: how they train.
        head: the student's read-out.
    """

    bench: Workbench
    recipe: Recipe
    head: OutputHead

    @property
    def _autocast(self) -> bool:
        return self.bench.config.optim.precision == "bfloat16"

    def fit(
        self, sites: Sequence[Site], *, rho: float, lr: float, steps: int
    ) -> tuple[Candidate, list[SparseDelta]]:
        """Train one hypernetwork and return how it did, and its delta (on the student's device)."""
        bench, arch = self.bench, self.bench.student.arch
        arch.model.requires_grad_(False)
        hypernetwork = HyperNetwork(
            MODULES,
            teacher_width=sites[0].sources_nD.shape[1],
            student_width=arch.width,
            seed=bench.config.seed,
        ).to(arch.device)
        losses: list[float] = []
        with bench.track(f"hypernetwork (rho {rho:g}, lr {lr:g})", steps) as advance:

            def listen(_step: int, metrics: dict[str, float]) -> None:
                losses.append(metrics["cross_entropy"])
                advance(1)

            self._train(hypernetwork, sites, lr, steps, listen)
        with torch.no_grad():
            found = deltas(hypernetwork, sites)
        validation = self.validation(found)
        return Candidate(rho=rho, lr=lr, steps=steps, losses=tuple(losses), validation=validation), found

    def trained_parameters(self, extraction: LatenExtraction) -> int:
        """Return the number of scalars of one hypernetwork."""
        return (
            len(MODULES)
            * extraction.teacher_width
            * (extraction.teacher_width + self.bench.student.arch.width)
        )

    def _train(
        self,
        hypernetwork: HyperNetwork,
        sites: Sequence[Site],
        lr: float,
        steps: int,
        listen: Callable[[int, dict[str, float]], None],
    ) -> None:
        bench, arch = self.bench, self.bench.student.arch
        rows, sizes = self._rows()
        batches = plan(*sizes, self.recipe, steps=steps, seed=bench.config.seed)
        loss = DeltaLoss(
            arch=arch,
            hypernetwork=hypernetwork,
            sites=sites,
            penalty=self.recipe.penalty,
            head=self.head,
            autocast=self._autocast,
            meter=bench.student_meter,
        )
        optim = OptimConfig(
            lr=lr,
            epochs=1,
            batch_size=max(map(len, batches)),
            micro_batch_size=bench.config.optim.micro_batch_size,
            weight_decay=self.recipe.weight_decay,
            betas=list(self.recipe.betas),
            schedule="one_cycle",
            max_grad_norm=0.0,
            validate_every=0,
        )
        Trainer(
            loss=loss,
            parameters=dict(hypernetwork.named_parameters()),
            plan=lambda _epoch: batches,
            collate=lambda chosen: collate(rows, chosen).to(arch.device),
            optim=optim,
            listen=listen,
            seed=bench.config.seed,
        ).fit()

    def _rows(self) -> tuple[Encoded, tuple[int, int]]:
        """Return the rows of the align split, then those of the extract split, and their numbers."""
        align, extract = self.bench.encoded("align"), self.bench.encoded("extract")
        rows = Encoded(
            input_ids=align.input_ids + extract.input_ids,
            prompt_lengths=align.prompt_lengths + extract.prompt_lengths,
        )
        return rows, (len(align.input_ids), len(extract.input_ids))

    @torch.no_grad()
    def validation(self, changes: Sequence[SparseDelta]) -> float:
        """Return the student's mean cross-entropy over the validation split's answer tokens, under some deltas.

        Raises:
            PktError: it is not finite.
        """
        bench, arch, encoded = self.bench, self.bench.student.arch, self.bench.encoded("validation")
        total, count = 0.0, 0
        for rows in sorted_batches(encoded.lengths, bench.config.optim.micro_batch_size or 16):
            batch = collate(encoded, rows).to(arch.device)
            loss, tokens = answer_loss(arch, self.head, batch, changes, autocast=self._autocast)
            total, count = total + float(loss), count + int(batch.supervised.sum())
            bench.student_meter.count(tokens, layers=arch.depth)
        mean = total / count
        if not math.isfinite(mean):
            raise PktError(
                f"the student's validation cross-entropy is {mean}; load it in float32 "
                "(model.student.dtype=float32), or lower method.lr."
            )
        return mean
