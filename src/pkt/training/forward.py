"""One forward pass of the student and the loss terms on it.

    batch -> [cached states below the first trained layer] -> layers first..L_S -> final norm
                                     |                                             |
                        layer term: cosine(h_k, h*_k), paired layers    output term: cosine or CE,
                        at `positions`                                  at the answer's positions only

Shape suffixes: B rows, T positions, D student width, n selected positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pkt.data.batching import Batch
from pkt.models.architecture import Architecture
from pkt.models.taps import Interface, decode, skip_above, skip_below, tap
from pkt.objectives import Objective, cosine_distance
from pkt.training.capture import position_mask
from pkt.training.head import OutputHead
from pkt.training.meter import Meter
from pkt.training.states import RowStates


@dataclass(kw_only=True)
class TransferLoss:
    """The objective of a student at rows whose teacher targets are known.

    Attributes:
        arch: the student.
        objective: terms and weights.
        interface: supervision interface of the layer term.
        targets: per paired student layer, the mapped teacher states at the objective's positions.
        prefix: states that enter `first_layer`; None runs the student from its embeddings.
        first_layer: the first layer that trains.
        head: read-out of the output terms.
    """

    arch: Architecture
    objective: Objective
    interface: Interface
    targets: Mapping[int, RowStates]
    prefix: RowStates | None
    first_layer: int
    head: OutputHead
    autocast: bool = False
    meter: Meter = field(default_factory=Meter)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Number of positions behind each term of a batch, known before any forward pass."""
        counts: dict[str, int] = {}
        if self.targets:
            counts["loss_layer"] = int(position_mask(batch, self.objective.positions).sum())
        if self.objective.output != "none":
            counts["loss_output"] = int(batch.supervised.sum())
        return counts

    def weights(self) -> dict[str, float]:
        """Weight of each term."""
        return {"loss_layer": self.objective.layer_weight, "loss_output": self.objective.output_weight}

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Return the mean of each term over its positions of this batch, differentiable."""
        states, final_nD = self._forward(batch, with_output=self.objective.output != "none")
        terms: dict[str, Tensor] = {}
        if self.targets:
            terms["loss_layer"] = self._layer_term(batch, states)
        if final_nD is not None:
            terms["loss_output"] = self.head.loss(final_nD, answer_labels(batch), self.objective.output)
        return terms

    @torch.no_grad()
    def measure(self, batch: Batch) -> dict[str, tuple[float, int]]:
        """Return (mean, count) of each term, and of the answer's cross-entropy and top-1 accuracies."""
        states, final_nD = self._forward(batch, with_output=True)
        assert final_nD is not None
        labels, counts = answer_labels(batch), self.counts(batch)
        measured: dict[str, tuple[float, int]] = {}
        if self.targets:
            measured["loss_layer"] = (float(self._layer_term(batch, states)), counts["loss_layer"])
        if self.objective.output != "none":
            loss = self.head.loss(final_nD, labels, self.objective.output)
            measured["loss_output"] = (float(loss), counts["loss_output"])
        measured["cross_entropy"] = (float(self.head.loss(final_nD, labels, "ce")), len(labels))
        right = self.head.top1(final_nD) == labels
        measured["token_accuracy"] = (float(right.float().mean()), len(labels))
        row_of = batch.supervised.nonzero()[:, 0]
        wrong = torch.zeros(len(batch.index), device=right.device).index_add_(0, row_of, (~right).float())
        measured["row_accuracy"] = (float((wrong == 0).float().mean()), len(batch.index))
        return measured

    def _forward(self, batch: Batch, *, with_output: bool) -> tuple[dict[int, Tensor], Tensor | None]:
        device = self.arch.device
        with ExitStack() as stack:
            stack.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=self.autocast))
            if self.prefix is not None:
                entering_BTD = self.prefix.padded(batch.index, batch.input_ids.shape[1])
                stack.enter_context(
                    skip_below(self.arch, self.first_layer, entering_BTD.to(device, self.arch.dtype))
                )
            if not with_output:
                stack.enter_context(skip_above(self.arch, max(self.targets)))
            states = stack.enter_context(tap(self.arch, list(self.targets), self.interface))
            final_BTD = decode(self.arch, batch.input_ids, batch.attention_mask)
        self.meter.count(int(batch.attention_mask.sum()))
        return states, final_BTD[batch.supervised] if with_output else None

    def _layer_term(self, batch: Batch, states: Mapping[int, Tensor]) -> Tensor:
        mask_BT = position_mask(batch, self.objective.positions)
        distances = [
            cosine_distance(states[layer][mask_BT], target.of(batch.index).to(self.arch.device))
            for layer, target in self.targets.items()
        ]
        return torch.stack(distances).mean()


def answer_labels(batch: Batch) -> Tensor:
    """Return the tokens that the answer's positions predict, row after row, as (n,) int64."""
    next_BT = torch.nn.functional.pad(batch.input_ids[:, 1:], (0, 1))
    return next_BT[batch.supervised]
