"""Change a student by gradient descent: the part of `transfer` that methods share.

student -> trainable parameters -> states entering the first trained layer (once) -> Trainer -> Transferred
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from pkt.data.batching import Batch, collate, epoch_batches, sorted_batches
from pkt.errors import RequestError
from pkt.methods.base import Alignment, Transferred
from pkt.methods.workbench import Workbench
from pkt.models.taps import Interface
from pkt.training.capture import Read, capture
from pkt.training.forward import TransferLoss
from pkt.training.head import OutputHead
from pkt.training.loop import Trainer
from pkt.training.states import RowStates
from pkt.training.trainable import Trainable, make_trainable


@dataclass(frozen=True, kw_only=True)
class Update:
    """What trains in a layer.

    Attributes:
        kind: ``lora`` or ``full``.
        rank: LoRA rank.
        alpha: LoRA alpha; the update is scaled by alpha / rank.
        targets: projection roles that get an adapter.
    """

    kind: Literal["lora", "full"] = "lora"
    rank: int = 16
    alpha: float = 16.0
    targets: list[str] = field(default_factory=lambda: ["up", "down", "v", "o"])


def tune(
    bench: Workbench,
    alignment: Alignment | None,
    *,
    update: Update,
    layers: Sequence[int],
    cache_prefix: bool,
    snapshots: Path | None,
) -> Transferred:
    """Train `layers` of the student on the objective.

    Args:
        bench: models, rows, objective and hyper-parameters.
        alignment: targets of the layer term; None where the objective has none.
        update: what trains in those layers.
        layers: layer numbers, from 1.
        cache_prefix: compute the states that enter the first trained layer once instead of every epoch
            (exact: the layers below it do not change).
        snapshots: folder for resumable state.
    """
    arch, optim = bench.student.arch, bench.config.optim
    trainable = make_trainable(
        arch,
        update=update.kind,
        layers=layers,
        rank=update.rank,
        alpha=update.alpha,
        targets=update.targets,
        seed=bench.config.seed,
    )
    losses = {
        split: _loss(bench, alignment, split, first_layer=min(layers), cache_prefix=cache_prefix)
        for split in ("train", "validation")
    }
    train = bench.encoded("train")
    if len(train.lengths) == 0:
        raise RequestError(
            "the train split is empty; give rows with data.train=... or raise data.sizes.train."
        )
    steps = -(-len(train.lengths) // optim.batch_size) * optim.epochs
    with bench.track("transfer", steps) as advance:

        def listen(step: int, metrics: dict[str, float]) -> None:
            bench.log(step, metrics)
            advance(1)

        history = Trainer(
            loss=losses["train"],
            parameters=trainable.parameters,
            plan=lambda epoch: epoch_batches(
                train.lengths, optim.batch_size, seed=bench.config.seed, epoch=epoch
            ),
            collate=lambda rows: collate(train, rows).to(arch.device),
            optim=optim,
            validate=lambda: _validate(bench, losses["validation"]),
            snapshots=snapshots,
            listen=listen,
        ).fit()
    return Transferred(
        trainable=trainable,
        history=history,
        layers=tuple(sorted(set(layers))),
        budget=_budget(bench, trainable, history.steps),
    )


def _budget(bench: Workbench, trainable: Trainable, steps: int) -> dict[str, float]:
    return {
        "trained_parameters": trainable.count,
        "optimiser_steps": steps,
        "train_rows": len(bench.encoded("train").lengths),
        "student_forward_tokens": bench.student_meter.forward_tokens,
    }


def _loss(
    bench: Workbench, alignment: Alignment | None, split: str, *, first_layer: int, cache_prefix: bool
) -> TransferLoss:
    arch = bench.student.arch
    use_layer_term = alignment is not None and bench.objective.layer != "none"
    return TransferLoss(
        arch=arch,
        objective=bench.objective,
        interface=Interface(alignment.interface) if alignment is not None else Interface.block,
        targets=alignment.targets[split] if alignment is not None and use_layer_term else {},
        prefix=_prefix(bench, split, first_layer) if cache_prefix and first_layer > 1 else None,
        first_layer=first_layer,
        head=OutputHead(arch=arch),
        autocast=bench.config.optim.precision == "bfloat16" or arch.dtype == torch.bfloat16,
        meter=bench.student_meter,
    )


def _prefix(bench: Workbench, split: str, first_layer: int) -> RowStates:
    arch, encoded = bench.student.arch, bench.encoded(split)
    below = first_layer - 1
    with bench.track(f"states entering layer {first_layer} ({split})", len(encoded.lengths)) as advance:
        states = capture(
            arch,
            encoded,
            {below: Read(layers=(below,), width=arch.width)},
            interface=Interface.block,
            positions="all",
            batch_size=bench.config.optim.batch_size,
            dtype=arch.dtype,
            meter=bench.student_meter,
            listen=advance,
        )
    return states[below]


@torch.no_grad()
def _validate(bench: Workbench, loss: TransferLoss) -> dict[str, float]:
    encoded = bench.encoded("validation")
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    for rows in sorted_batches(encoded.lengths, bench.config.optim.batch_size):
        batch: Batch = collate(encoded, rows).to(bench.student.arch.device)
        for name, (mean, count) in loss.measure(batch).items():
            sums[name] = sums.get(name, 0.0) + mean * count
            counts[name] = counts.get(name, 0) + count
    return {name: value / counts[name] for name, value in sums.items()}
