"""The frontier schedule: student layers from shallow to deep, one at a time, each on what the last one left.

    prefix of layer k ──> train layer k ──> advance the prefix through layer k ──> layer k + 1 ...

Layers below the frontier stay as trained. The prefix moves up by one block per stage instead of being recomputed,
and a stage without output term runs one block only. All stages together take the optimiser steps of a joint
training, evenly divided; each has its own warm-up and decay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from pkt.late import Tensor, nn, torch
from pkt.methods.base import Transferred
from pkt.methods.keeping import LOSS_SPLITS
from pkt.methods.layer_results import LayerAlignment
from pkt.methods.task import Task
from pkt.methods.workbench import Workbench
from pkt.objectives import Objective
from pkt.progress import TOKENS
from pkt.semantics import refits
from pkt.training.loop import History
from pkt.training.meter import Meter
from pkt.training.passes import Prefix
from pkt.training.snapshot import Snapshot, load_snapshot, save_snapshot
from pkt.training.trainable import Update, make_trainable


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """How the stages of a frontier differ.

    Attributes:
        output_at: which stages have the output terms: ``all``, or only the ``last`` (the others run one block).
        last_layer_term: whether the last layer has layer terms beside its output terms.
    """

    output_at: Literal["all", "last"] = "all"
    last_layer_term: bool = True

    def objective(self, whole: Objective, *, last: bool, paired: bool) -> Objective:
        """Return the terms of one stage."""
        layer, output = whole.layer_terms, whole.output_terms
        with_layer = bool(layer) and paired and (self.last_layer_term or not last or not output)
        with_output = bool(output) and (last or self.output_at == "all" or not with_layer)
        return replace(
            whole,
            terms=(layer if with_layer else {}) | (output if with_output else {}),
            balance=whole.balance if with_layer and with_output else "none",
        )


def tune_frontier(
    bench: Workbench,
    alignment: LayerAlignment,
    frontier: Frontier,
    *,
    update: Update,
    cache_prefix: bool = True,
    snapshots: Path | None,
) -> Transferred:
    """Train the paired student layers, and the last one where there are output terms, from shallow to deep.

    Args:
        bench: models, rows, objective and hyper-parameters.
        alignment: pairs and targets.
        frontier: how the stages differ.
        update: what trains in each layer.
        cache_prefix: advance the prefix by one block per stage; otherwise every step runs from the tokens
            (the same numbers, slower).
        snapshots: folder for resumable state: one snapshot per finished stage, and that of the running one.
    """
    depth = bench.student.arch.depth
    last = {depth} if bench.objective.output_terms else set[int]()
    paired = {pair.student for pair in alignment.pairs}
    layers = sorted(paired | last)
    trainable = make_trainable(bench.student.arch, update, layers, seed=bench.config.seed)
    task = Task(bench=bench, trainable=trainable, alignment=alignment)
    flat = [rows for epoch in task.plan for rows in epoch]
    histories: list[History] = []
    prefixes: dict[str, Prefix] = {}
    with bench.track("transfer", len(flat)) as advance_bar:
        for i, layer in enumerate(layers):
            start, stop = (len(flat) * n // len(layers) for n in (i, i + 1))
            if cache_prefix and layer > 1 and bench.student.arch.starts_at(layer):
                prefixes = {
                    s: task.prefix(s, layer - 1, prefixes.get(s), scratch=snapshots) for s in LOSS_SPLITS
                }

            def listen(step: int, metrics: dict[str, float], offset: int = start, k: int = layer) -> None:
                bench.log(offset + step, {**metrics, "frontier": k})
                advance_bar(1, shown={**metrics, TOKENS: bench.student_meter.forward_tokens})

            stage = _Stage(task=task, layer=layer, folder=snapshots)
            histories.append(
                stage.run(
                    frontier.objective(bench.objective, last=layer == depth, paired=layer in paired),
                    flat[start:stop],
                    prefixes,
                    listen,
                )
            )
    return task.transferred(_joined(histories), layers)


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """The training of one layer; a finished one is saved, so that a stopped run goes on with the next."""

    task: Task
    layer: int
    folder: Path | None

    def run(
        self,
        objective: Objective,
        steps: Sequence[list[int]],
        prefixes: Mapping[str, Prefix],
        listen: Callable[[int, dict[str, float]], None],
    ) -> History:
        """Train the layer, or put back what an earlier process trained."""
        parameters = self._open()
        done = self.folder / f"layer_{self.layer}_done" if self.folder is not None else None
        processes = self.task.bench.processes
        snapshot = (
            processes.in_turn(lambda: load_snapshot(done, self._kept(parameters)))
            if done is not None
            else None
        )
        if snapshot is not None:
            return self._put_back(parameters, snapshot)
        history = History(steps=0)
        if steps:  # fewer optimiser steps than layers leave some layers without any
            fits = self._refit(objective)
            history = self.task.fit(
                objective=objective,
                layers=[self.layer],
                parameters=parameters,
                prefixes=prefixes,
                plan=[steps],
                snapshots=self.folder / f"layer_{self.layer}" if self.folder is not None else None,
                listen=lambda step, metrics: listen(step, metrics | fits if step == 1 else metrics),
            )
        if done is not None and processes.main:
            meters = [asdict(meter) for meter in self._meters()]
            save_snapshot(done, self._kept(parameters), {"history": asdict(history), "meters": meters})
        return history

    def _refit(self, objective: Objective) -> dict[str, float]:
        """Fit the layer's map again on what the layers below have learned, where the request says so."""
        if refits(self.task.bench.semantics) == "never" or not objective.layer_terms:
            return {}
        return self.task.refit([self.layer])

    def _open(self) -> dict[str, nn.Parameter]:
        """Let this layer's parameters train and no others, and return them."""
        own = {id(parameter) for parameter in self.task.bench.student.arch.layer(self.layer).parameters()}
        for parameter in self.task.trainable.parameters.values():
            parameter.requires_grad_(id(parameter) in own)
        return {name: p for name, p in self.task.trainable.parameters.items() if id(p) in own}

    def _meters(self) -> tuple[Meter, Meter]:
        return self.task.bench.student_meter, self.task.bench.teacher_meter

    def _kept(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        """Return the layer's parameters and what is auxiliary: the tensors themselves, no copies."""
        return {**parameters, **self.task.auxiliary.state_dict()}

    @torch.no_grad()
    def _put_back(self, parameters: Mapping[str, nn.Parameter], snapshot: Snapshot) -> History:
        for name, value in self._kept(parameters).items():
            value.copy_(snapshot.tensors[name])
        for meter, counted in zip(self._meters(), snapshot.state["meters"], strict=True):
            meter.restore(counted)
        return History(**snapshot.state["history"])


def _joined(histories: Sequence[History]) -> History:
    """Return the history of all stages, with their steps numbered through."""
    validations, steps = [], 0
    for history in histories:
        validations += [{**entry, "step": entry["step"] + steps} for entry in history.validations]
        steps += history.steps
    return History(steps=steps, validations=validations)
