"""One forward pass of the student and the sums of its terms.

batch -> [cached states below the first trained layer] -> layers first..L_S -> final norm
|                                             |
layer terms: h_k (or its projection)            output terms: cosine, CE,
against h*_k, at each term's positions          divergence, answer positions
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pkt.data.batching import Batch
from pkt.models.architecture import Architecture
from pkt.models.taps import Interface, decode, skip_above, tap
from pkt.objectives import Objective, OutputHead, cross_entropy_sum
from pkt.training.capture import Prefix
from pkt.training.meter import Meter
from pkt.training.teacher import TeacherOutput
from pkt.training.views import Seen, Targets


@dataclass(kw_only=True)
class TransferLoss:
    """The objective of a student at rows whose teacher targets are known.

    Attributes:
        arch: the student.
        objective: terms and weights.
        interface: where in a layer the layer terms' states are read.
        targets: for layer terms.
        prefix: states that enter the first layer that trains; None runs the student from its embeddings.
        head: the student's read-out.
        teacher: the teacher's distributions, for terms that read them.
        through: per student layer, a module that its states go through before a term sees them (hidden_kd).
        own: the modules of terms that have some, by the term's name.
        first_row: row id of the split's first row.
        autocast: run the student in bfloat16.
        meter: counts the student's forward tokens.
    """

    arch: Architecture
    objective: Objective
    interface: Interface
    targets: Targets
    prefix: Prefix | None
    head: OutputHead
    teacher: TeacherOutput | None = None
    through: Mapping[int, nn.Module] = field(default_factory=dict)
    own: Mapping[str, nn.Module] = field(default_factory=dict)
    first_row: int = 0
    autocast: bool = False
    meter: Meter = field(default_factory=Meter)
    _later: list[Callable[[], None]] = field(default_factory=list, init=False)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return over how many positions (or sequences) each term ``loss_<name>`` sums; needs no forward pass."""
        seen = self._unseen(batch)
        return {f"loss_{name}": term.count(seen.view(term)) for name, term in self.objective.terms.items()}

    def weights(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the weight of each term, given their means over the optimiser step."""
        named = {key.removeprefix("loss_"): value for key, value in values.items()}
        return {f"loss_{name}": weight for name, weight in self.objective.weights(named).items()}

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Return the differentiable sums of each term that has something in this batch."""
        counts = self.counts(batch)
        if not any(counts.values()):
            return {}
        return self._sums(self._forward(batch, with_output=bool(self.objective.output_terms)), counts)

    def _sums(self, seen: Seen, counts: Mapping[str, int]) -> dict[str, Tensor]:
        sums = {}
        for name, term in self.objective.terms.items():
            if count := counts[key := f"loss_{name}"]:
                found = term(seen.view(term, self.own.get(name)))
                assert found.count == count, f"term {name} announced a sum over {count}, not {found.count}"
                sums[key] = found.total
        return sums

    @torch.no_grad()
    def finish_step(self) -> None:
        """Call what terms left for the end of the optimiser step."""
        for change in self._later:
            change()
        self._later.clear()

    @torch.no_grad()
    def measure(self, batch: Batch) -> dict[str, tuple[float, int]]:
        """Return (sum, count) of each term, and of the answer's cross-entropy and top-1 accuracies."""
        seen, counts = self._forward(batch, with_output=True), self.counts(batch)
        sums = self._sums(seen, counts)
        measured = {name: (float(total.mean()), counts[name]) for name, total in sums.items()}
        where = seen.where("answer", labelled=True)
        if len(where.row_N) == 0:
            return measured
        final_nD, labels_n = seen.final(where), seen.labels(where)
        total = cross_entropy_sum(final_nD, labels_n, self.head.read_out)
        measured["cross_entropy"] = (float(total), len(labels_n))
        right_n = self.head.top1(final_nD) == labels_n
        measured["token_accuracy"] = (float(right_n.sum()), len(labels_n))
        rows, row_n = torch.unique_consecutive(where.row_N, return_inverse=True)
        wrong_r = torch.zeros(len(rows), device=right_n.device).index_add_(0, row_n, (~right_n).float())
        measured["row_accuracy"] = (float((wrong_r == 0).sum()), len(rows))
        return measured

    def _unseen(self, batch: Batch) -> Seen:
        return Seen(
            batch=batch,
            head=self.head,
            targets=self.targets,
            teacher=self.teacher,
            through=self.through,
            first_row=self.first_row,
            later=self._remember,
        )

    def _remember(self, change: Callable[[], None]) -> None:
        if torch.is_grad_enabled():  # neither validation nor a pass that only compares terms
            self._later.append(change)

    def _forward(self, batch: Batch, *, with_output: bool) -> Seen:
        seen = self._unseen(batch)
        first = self.prefix.layer if self.prefix is not None else 1
        last = self.arch.depth if with_output else max(self.targets.states)
        with ExitStack() as stack:
            stack.enter_context(torch.autocast(self.arch.device.type, torch.bfloat16, enabled=self.autocast))
            if self.prefix is not None:
                stack.enter_context(self.prefix.entering(self.arch, batch))
            stack.enter_context(skip_above(self.arch, last))
            seen.states = stack.enter_context(tap(self.arch, list(self.targets.states), self.interface))
            final_BTD = decode(self.arch, batch.input_ids, batch.attention_mask)
        seen.final_BTD = final_BTD if with_output else None
        self.meter.count(int(batch.attention_mask.sum()), layers=last - first + 1)
        return seen
