"""One forward pass of the student and the loss terms on it.

    batch -> [cached states below the first trained layer] -> layers first..L_S -> final norm
                                     |                                             |
                        layer term: h_k (or its projection)             output term: cosine, CE, or
                        against h*_k, at `positions`                    KL to the teacher, answer positions

Shape suffixes: B rows, T positions, D student width, n selected positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pkt.data.batching import Batch
from pkt.models.architecture import Architecture
from pkt.models.taps import Interface, decode, skip_above, tap
from pkt.objectives import Objective
from pkt.training.capture import Prefix, position_mask
from pkt.training.head import OutputHead
from pkt.training.meter import Meter
from pkt.training.states import RowStates
from pkt.training.teacher import TeacherOutput


@dataclass(kw_only=True)
class TransferLoss:
    """The objective of a student at rows whose teacher targets are known.

    Attributes:
        arch: the student.
        objective: terms and weights.
        interface: supervision interface of the layer term.
        targets: per paired student layer, the teacher's states at the objective's positions.
        prefix: states that enter the first layer that trains; None runs the student from its embeddings.
        head: read-out of the output terms.
        teacher: the teacher's distributions, for a KL term.
        projections: per student layer, what its states go through before they meet the target (hidden_kd).
        autocast: run the student in bfloat16.
        meter: counts the student's forward tokens.
    """

    arch: Architecture
    objective: Objective
    interface: Interface
    targets: Mapping[int, RowStates]
    prefix: Prefix | None
    head: OutputHead
    teacher: TeacherOutput | None = None
    projections: Mapping[int, nn.Module] = field(default_factory=dict)
    autocast: bool = False
    meter: Meter = field(default_factory=Meter)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Number of positions behind each term of a batch, known before any forward pass."""
        counts: dict[str, int] = {}
        if self.targets:
            counts["loss_layer"] = self._layer_count(batch)
        if self.objective.output != "none":
            counts["loss_output"] = int(batch.supervised.sum())
        return counts

    def _layer_count(self, batch: Batch) -> int:
        """Return the number of positions, or of sequences that have a geometry, behind the layer term."""
        per_row_B = position_mask(batch, self.objective.positions).sum(1)
        return int((per_row_B > 1).sum() if self.objective.per_sequence else per_row_B.sum())

    def weights(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the weight of each term, given the terms of this batch (``balance=auto`` compares them)."""
        layer = self.objective.layer_weight
        if self.objective.balance == "auto" and values.get("loss_layer", 0.0) > 0 and "loss_output" in values:
            layer *= values["loss_output"] / values["loss_layer"]
        return {"loss_layer": layer, "loss_output": self.objective.output_weight}

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Return the mean of each term over its positions of this batch, differentiable."""
        states, final_nD = self._forward(batch, with_output=self.objective.output != "none")
        terms: dict[str, Tensor] = {}
        if self.targets:
            terms["loss_layer"] = self._layer_term(batch, states)
        if final_nD is not None:
            terms["loss_output"] = self._output_term(batch, final_nD)
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
            measured["loss_output"] = (float(self._output_term(batch, final_nD)), counts["loss_output"])
        measured["cross_entropy"] = (float(self.head.loss(final_nD, labels, "ce")), len(labels))
        right = self.head.top1(final_nD) == labels
        measured["token_accuracy"] = (float(right.float().mean()), len(labels))
        row_of = batch.supervised.nonzero()[:, 0]
        wrong = torch.zeros(len(batch.index), device=right.device).index_add_(0, row_of, (~right).float())
        measured["row_accuracy"] = (float((wrong == 0).float().mean()), len(batch.index))
        return measured

    def _forward(self, batch: Batch, *, with_output: bool) -> tuple[dict[int, Tensor], Tensor | None]:
        first = self.prefix.layer if self.prefix is not None else 1
        last = self.arch.depth if with_output else max(self.targets)
        with ExitStack() as stack:
            stack.enter_context(torch.autocast(self.arch.device.type, torch.bfloat16, enabled=self.autocast))
            if self.prefix is not None:
                stack.enter_context(self.prefix.entering(self.arch, batch))
            stack.enter_context(skip_above(self.arch, last))
            states = stack.enter_context(tap(self.arch, list(self.targets), self.interface))
            final_BTD = decode(self.arch, batch.input_ids, batch.attention_mask)
        self.meter.count(int(batch.attention_mask.sum()), layers=last - first + 1)
        return states, final_BTD[batch.supervised] if with_output else None

    def _layer_term(self, batch: Batch, states: Mapping[int, Tensor]) -> Tensor:
        mask_BT = position_mask(batch, self.objective.positions)
        row_n, term = mask_BT.nonzero()[:, 0], self.objective.layer_term(self.head.lens)
        distances = []
        for layer, target in self.targets.items():
            state_nD = states[layer][mask_BT]
            if layer in self.projections:
                state_nD = self.projections[layer](state_nD.float())
            distances.append(term(state_nD, target.of(batch.index).to(self.arch.device), row_n))
        return torch.stack(distances).mean()

    def _output_term(self, batch: Batch, final_nD: Tensor) -> Tensor:
        labels_n = answer_labels(batch)
        if self.teacher is None:
            return self.head.loss(final_nD, labels_n, self.objective.output)
        return self.head.to_teacher(final_nD, labels_n, self.teacher.of(batch), self.objective)


def answer_labels(batch: Batch) -> Tensor:
    """Return the tokens that the answer's positions predict, row after row, as (n,) int64."""
    next_BT = torch.nn.functional.pad(batch.input_ids[:, 1:], (0, 1))
    return next_BT[batch.supervised]
