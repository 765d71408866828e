"""What a training of the student works on: rows, objective, what the teacher says, and what learns beside it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pkt.data.batching import Batch, collate, epoch_batches, epochs_of, sorted_batches
from pkt.data.encoding import Encoded
from pkt.errors import RequestError
from pkt.late import nn, torch
from pkt.methods.base import Transferred
from pkt.methods.keeping import LOSS_SPLITS, prefix_shelf, reading_ahead, source_of
from pkt.methods.layer_results import LayerAlignment
from pkt.methods.readings import begins_word, counts_rest, read_by
from pkt.methods.workbench import Workbench
from pkt.models.taps import Interface
from pkt.objectives import Objective, OutputHead, Sizes
from pkt.semantics import Fitted, Trains, learns, quality_card
from pkt.training.capture import advance, capture
from pkt.training.forward import Targets, TransferLoss
from pkt.training.loop import History, Trainer
from pkt.training.meter import counted_together
from pkt.training.passes import Prefix, Read
from pkt.training.sharding import sharded
from pkt.training.trainable import Trainable

if TYPE_CHECKING:
    from pkt.semantics.learning_map import LearningMap


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a training of the student works on, whichever of its layers train.

    Attributes:
        bench: models, rows and hyper-parameters.
        trainable: what may train.
        alignment: targets of the layer terms and kept teacher outputs; empty where the objective needs neither.
        through: per student layer, a module that its states go through before a term sees them; it trains too.
    """

    bench: Workbench
    trainable: Trainable
    alignment: LayerAlignment = field(default_factory=LayerAlignment)
    through: Mapping[int, nn.Module] = field(default_factory=dict)

    @cached_property
    def own(self) -> dict[str, nn.Module]:
        """The modules of terms that have parameters or buffers, by the term's name; the seed decides their start."""
        arch, rows = self.bench.student.arch, sum(len(self.bench.encoded(s).lengths) for s in LOSS_SPLITS)
        widths = {pair.student: self._target_width(pair.student) for pair in self.alignment.pairs}
        own = {k: widths[k] if k in self.through else arch.width for k in widths}
        sizes = Sizes(
            states=own,
            targets=widths,
            rows=rows,
            student=arch.width,
            teacher=int(self.bench.teacher_config.hidden_size) if self.bench.objective.attends else 0,
        )
        made = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.bench.config.seed)
            for name, term in self.bench.objective.terms.items():
                if (module := term.modules(sizes)) is not None:
                    made[name] = module.to(arch.device)
        return made

    def _target_width(self, layer: int) -> int:
        """Return the width of a layer's targets as a term sees them."""
        kept = self.alignment.targets.get("train", {})
        if layer in self.alignment.maps:
            return self.bench.student.arch.width
        return kept[layer].width if layer in kept else int(self.bench.teacher_config.hidden_size)

    @cached_property
    def maps(self) -> dict[int, LearningMap]:
        """The maps that go on learning, by student layer; empty where the targets are what `align` made them."""
        from pkt.semantics.learning_map import LearningMap

        semantics, device = self.bench.semantics, self.bench.student.arch.device
        if not learns(semantics):
            return {}
        share = semantics.map_lr if isinstance(semantics, Trains) and semantics.trainable else None
        return {k: LearningMap(map_, share=share).to(device) for k, map_ in self.alignment.maps.items()}

    @cached_property
    def head(self) -> OutputHead:
        """The student's read-out: one for all splits and stages, as it keeps a Gram matrix."""
        bench = self.bench
        objective, arch = bench.objective, bench.student.arch
        unbiased = objective.chunks is not None and objective.chunks.ends == "unbiased"
        space = begins_word(bench, "student").to(arch.device) if unbiased else None
        if objective.outputs is None or objective.outputs.ordered:
            return OutputHead(arch=arch, space=space)
        shared, rest = bench.pair_report.student_ids, counts_rest(bench)
        return OutputHead(arch=arch, shared=shared, counts_rest=rest, space=space)

    def rows(self, split: str) -> Encoded:
        """Return the rows of a split, with the positions at which terms compare the student with its teacher."""
        objective = self.bench.objective
        taught = objective.layer_terms or objective.reads_outputs
        return read_by(self.bench, "student", split) if taught else self.bench.encoded(split)

    @cached_property
    def auxiliary(self) -> nn.ModuleDict:
        """What learns beside the student and is not saved with it."""
        modules = {f"projection_{layer}": module for layer, module in self.through.items()}
        modules |= {f"map_{layer}": module for layer, module in self.maps.items()}
        modules |= {f"term_{name}": module for name, module in self.own.items()}
        return nn.ModuleDict(modules)

    @cached_property
    def plan(self) -> list[list[list[int]]]:
        """Rows of every optimiser step, per epoch.

        Raises:
            RequestError: the train split is empty.
        """
        lengths, optim = self.bench.encoded("train").lengths, self.bench.config.optim
        if len(lengths) == 0:
            raise RequestError(
                "the train split is empty; give rows with data.train=... or raise data.sizes.train."
            )

        def batches(epoch: int) -> list[list[int]]:
            return epoch_batches(
                lengths,
                optim.batch_size,
                seed=self.bench.config.seed,
                epoch=epoch,
                tokens=optim.tokens_per_batch,
            )

        return epochs_of(batches, epochs=optim.epochs, steps=optim.steps)

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        return sum(len(epoch) for epoch in self.plan)

    def fit(
        self,
        *,
        objective: Objective,
        layers: Sequence[int],
        parameters: Mapping[str, nn.Parameter],
        prefixes: Mapping[str, Prefix],
        plan: Sequence[Sequence[list[int]]],
        snapshots: Path | None,
        listen: Callable[[int, dict[str, float]], None],
        finish_epoch: Callable[[], dict[str, float]] = dict,
    ) -> History:
        """Train some of the student's parameters, and all that is auxiliary, on an objective.

        Args:
            objective: the terms.
            layers: student layers whose targets the layer terms cover.
            parameters: what trains.
            prefixes: per split, states that enter the first layer that trains; empty: the student runs from the
                tokens.
            plan: per epoch, the rows of each step.
            snapshots: folder for resumable state.
            listen: called after every step.
            finish_epoch: see `Trainer`.
        """
        check_processes(self.bench, objective, self.own)
        losses = {split: self._loss(objective, split, layers, prefixes.get(split)) for split in LOSS_SPLITS}
        train, arch, processes = self.rows("train"), self.bench.student.arch, self.bench.processes
        with sharded(arch, parameters, processes) as shards:
            trainer = Trainer(
                loss=losses["train"],
                parameters={**shards.parameters, **dict(self.auxiliary.named_parameters())},
                plan=plan,
                collate=lambda rows: collate(train, rows).to(arch.device),
                optim=self.bench.config.optim,
                validate=lambda: self._validate(losses["validation"]),
                snapshots=snapshots,
                listen=listen,
                seed=self.bench.config.seed,
                meters=(self.bench.student_meter, self.bench.teacher_meter),
                buffers=dict(self.auxiliary.named_buffers()),
                begin_step=losses["train"].begin_step,
                finish_step=losses["train"].finish_step,
                finish_epoch=finish_epoch,
                forget=losses["train"].forget,
                inseparable=objective.together is not None,
                masked=bool(self.trainable.dropouts),
                layers=shards.layers,
                idle=losses["train"].idle,
                processes=processes,
            )
            order = [rows for epoch in plan for step in epoch for rows in trainer.micro_batches(step)]
            with reading_ahead(self.bench, losses["train"], order):
                return trainer.fit()

    def _loss(
        self, objective: Objective, split: str, layers: Sequence[int], prefix: Prefix | None
    ) -> TransferLoss:
        arch, alignment = self.bench.student.arch, self.alignment
        paired = {pair.student for pair in alignment.pairs} if objective.layer_terms else set()
        return TransferLoss(
            arch=arch,
            objective=objective,
            interface=Interface(alignment.interface),
            targets=Targets(
                source=source_of(self.bench, alignment, split, objective, layers),
                layers=tuple(sorted(paired & set(layers))),
                positions=alignment.positions,
                maps=self.maps,
            ),
            prefix=prefix,
            head=self.head,
            through=self.through,
            own=self.own,
            first_row=0 if split == "train" else len(self.bench.encoded("train").lengths),
            autocast=self._autocast,
            recomputes=self.bench.config.optim.checkpointing and split == "train",
            reaches_all=self.bench.processes.shards,
            meter=self.bench.student_meter,
        )

    @property
    def _autocast(self) -> bool:
        """Whether the student runs in bfloat16: if asked for, or if all but the weights that train are in it."""
        return (
            self.bench.config.optim.precision == "bfloat16" or self.bench.student.arch.dtype == torch.bfloat16
        )

    def prefix(
        self, split: str, layer: int, before: Prefix | None = None, scratch: Path | None = None
    ) -> Prefix:
        """Return the states that enter the layer after `layer`, computed from `before`, or from the tokens.

        Args:
            split: whose rows.
            layer: the last layer that runs, from 1.
            before: of a layer below; its files go.
            scratch: folder for states that are more than memory should hold.
        """
        encoded, arch = self.bench.encoded(split), self.bench.student.arch
        what = f"states entering layer {layer + 1} ({split})"
        needed = sum(encoded.lengths) * arch.width * arch.dtype.itemsize
        autocast = torch.autocast(arch.device.type, torch.bfloat16, enabled=self._autocast)  # as in training
        with self.trainable.evaluating(), autocast, self.bench.track(what, len(encoded.lengths)) as step:
            found = advance(
                arch,
                encoded,
                layer,
                before,
                batch_size=self.bench.config.optim.batch_size,
                meter=self.bench.student_meter,
                shelf=prefix_shelf(self.bench, scratch, f"prefix/{split}_{layer + 1}", needed),
                listen=step,
            )
        if before is not None and scratch is not None:
            shutil.rmtree(scratch / f"prefix/{split}_{before.layer}", ignore_errors=True)
        return found

    def refit(self, layers: Sequence[int]) -> dict[str, float]:
        """Fit the maps of some layers again on the student as it is, and return how well they fit, as metrics."""
        bench, arch, alignment = self.bench, self.bench.student.arch, self.alignment
        assert isinstance(bench.semantics, Fitted), "no other map is fitted again"
        rows, found = read_by(bench, "student", "align"), dict[str, float]()
        autocast = torch.autocast(arch.device.type, torch.bfloat16, enabled=self._autocast)  # as in training
        with (
            self.trainable.evaluating(),
            autocast,
            bench.track("student states (align)", len(rows.lengths)) as step,
        ):
            student = capture(
                arch,
                rows,
                {k: Read(layers=(k,), width=arch.width) for k in layers},
                interface=Interface(alignment.interface),
                positions=alignment.positions,
                batch_size=bench.config.optim.batch_size,
                meter=bench.student_meter,
                listen=step,
            )
        for k in layers:
            states = alignment.targets["align"][k].flat(), student[k].flat()
            fitted = bench.semantics.fitted(states, self.maps[k].weight.device)
            self.maps[k].put(fitted)
            found[f"map_explained_variance_{k}"] = quality_card(fitted, *states).explained_variance
        return found

    @torch.no_grad()
    def _validate(self, loss: TransferLoss) -> dict[str, float]:
        encoded, processes = self.rows("validation"), self.bench.processes
        sums, counts = dict[str, float](), dict[str, int]()
        meters = self.bench.student_meter, self.bench.teacher_meter
        batches = sorted_batches(encoded.lengths, self.bench.config.optim.batch_size)
        with self.trainable.evaluating(), counted_together(meters, processes):
            for rows in processes.own(batches):
                batch: Batch = collate(encoded, rows).to(self.bench.student.arch.device)
                for name, (total, count) in loss.measure(batch).items():
                    sums[name] = sums.get(name, 0.0) + total
                    counts[name] = counts.get(name, 0) + count
            if processes.shards:
                self._keep_up(loss, len(processes.own(batches)), of=batches)
        if processes.count > 1:
            sums, counts = (_added(parts) for parts in zip(*processes.joined((sums, counts)), strict=True))
        return {name: value / counts[name] for name, value in sums.items()}

    def _keep_up(self, loss: TransferLoss, done: int, *, of: Sequence[list[int]]) -> None:
        """Run the student as often as the first process does, whose batches may be one more."""
        for rows in of[: math.ceil(len(of) / self.bench.processes.count) - done]:
            batch = collate(self.bench.encoded("validation"), rows)
            loss.idle(batch.to(self.bench.student.arch.device), measures=True)

    def transferred(self, history: History, layers: Sequence[int]) -> Transferred:
        """Return the trained student with what it cost."""
        bench = self.bench
        return Transferred(
            trainable=self.trainable,
            history=history,
            layers=tuple(sorted(set(layers))),
            budget={
                "trained_parameters": self.trainable.count,
                "auxiliary_parameters": sum(p.numel() for p in self.auxiliary.parameters()),
                "optimiser_steps": history.steps,
                "train_rows": len(bench.encoded("train").lengths),
                **({"answered_rows": len(bench.answered)} if bench.answered else {}),
                "student_forward_tokens": bench.student_meter.forward_tokens,
                "student_layer_tokens": bench.student_meter.layer_tokens,
            },
        )


def _added(parts: Iterable[Mapping[str, float]]) -> dict[str, Any]:
    """Return the sums of several processes by name."""
    found: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            found[name] = found.get(name, 0) + value
    return found


def check_processes(bench: Workbench, objective: Objective, own: Mapping[str, nn.Module]) -> None:
    """Refuse terms that have to see all rows of a step, where several processes share them.

    Raises:
        RequestError: there is such a term.
    """
    if bench.processes.count == 1:
        return
    keeping = (name for name, module in own.items() if any(True for _ in module.buffers()))
    if name := objective.together or next(keeping, None):
        raise RequestError(
            f"objective.terms.{name} compares rows of a step with one another, and {bench.processes.count} processes "
            "share the rows: run it in one process, or compare within rows (scope=sequence) where the term can"
        )
