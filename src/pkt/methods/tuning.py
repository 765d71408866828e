"""Methods that train the student on a request's rows, objective and targets.

`tune` trains some layers together, for all optimiser steps; `frontier.py` trains one layer at a time, from shallow to
deep. Both work on a `Task`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from pkt import console
from pkt.late import nn
from pkt.methods.base import Choice, Method, Provides, Reads, Transferred, training
from pkt.methods.keeping import LOSS_SPLITS
from pkt.methods.layer_results import LayerAlignment
from pkt.methods.task import Task
from pkt.methods.workbench import Workbench
from pkt.progress import TOKENS
from pkt.semantics import refits
from pkt.settings import setting
from pkt.training.lora_start import LoraStart
from pkt.training.passes import Prefix
from pkt.training.trainable import Update, make_trainable


@dataclass(frozen=True, kw_only=True)
class TrainingMethod(Method):
    """A method whose transfer trains some layers of the student (`tune`).

    Attributes:
        update: what trains in them.
    """

    uses: ClassVar[tuple[str, ...]] = ("objective",)

    update: Update = setting(factory=Update, decides="transfer")

    @property
    def provides(self) -> Provides:
        """What a method without a teacher has."""
        return Provides(trains_head=self.update.trains_head)

    def reads(self, stage: str, choice: Choice) -> Reads:
        """Name what every training reads."""
        return training(self.update)


def tune(
    bench: Workbench,
    alignment: LayerAlignment | None,
    *,
    update: Update,
    layers: Sequence[int],
    cache_prefix: bool = True,
    snapshots: Path | None,
    start: LoraStart | None = None,
    through: Mapping[int, nn.Module] | None = None,
) -> Transferred:
    """Train `layers` of the student together on the request's objective.

    Args:
        bench: models, rows, objective and hyper-parameters.
        alignment: targets of the layer terms and kept teacher outputs; None where the objective has neither.
        update: what trains in those layers.
        layers: layer numbers, from 1.
        cache_prefix: compute the states that enter the first trained layer once instead of in every epoch; they are
            computed in every step anyway where the embeddings train.
        snapshots: folder for resumable state.
        start: where adapters start, instead of peft's default.
        through: see `Task`.
    """
    trainable = make_trainable(bench.student.arch, update, layers, seed=bench.config.seed, start=start)
    task = Task(
        bench=bench, trainable=trainable, alignment=alignment or LayerAlignment(), through=through or {}
    )
    first, prefixes = min(layers), dict[str, Prefix]()
    again = bool(task.maps) and refits(bench.semantics) == "epochs"
    if again and len(task.plan) < 2:
        console.warn(
            "semantics.refit=epochs: one epoch has no other after it, so the map is not fitted again"
        )
    same = cache_prefix and not update.trains_embeddings
    if same and first > 1 and bench.student.arch.starts_at(first):
        prefixes = {split: task.prefix(split, first - 1, scratch=snapshots) for split in LOSS_SPLITS}
    with bench.track("transfer", task.steps) as advance_bar:

        def listen(step: int, metrics: dict[str, float]) -> None:
            bench.log(step, metrics)
            advance_bar(1, shown={**metrics, TOKENS: bench.student_meter.forward_tokens})

        history = task.fit(
            objective=bench.objective,
            layers=layers,
            parameters=trainable.parameters,
            prefixes=prefixes,
            plan=task.plan,
            snapshots=snapshots,
            listen=listen,
            finish_epoch=partial(task.refit, list(task.maps)) if again else dict,
        )
    return task.transferred(history, layers)
