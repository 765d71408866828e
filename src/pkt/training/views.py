"""What each term sees of a forward pass: the states, targets, labels and outputs that it asked for.

    batch ─> Positions (rows, student positions, teacher positions) ─> View per term

Positions are two index lists, one into each model's sequences. What terms share is selected once.
Shape suffixes: B rows, T positions, N positions of a term, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from pkt.data.batching import Batch, next_tokens
from pkt.objectives import (
    Distributions,
    Head,
    Labels,
    Need,
    OutputHead,
    Outputs,
    Pair,
    RowIds,
    Sequences,
    States,
    Term,
    View,
    needed_states,
)
from pkt.training.capture import position_mask
from pkt.training.states import RowStates
from pkt.training.teacher import TeacherOutput


@dataclass(frozen=True, kw_only=True)
class Positions:
    """N positions: entry n is `student_N[n]` in row `row_N[n]` of the student, and `teacher_N[n]` of the teacher."""

    row_N: Tensor
    student_N: Tensor
    teacher_N: Tensor


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What the layer terms compare the student's states with.

    Attributes:
        states: per paired student layer, the teacher's states.
        positions: at which positions of every row: ``answer`` or ``all``.
    """

    states: Mapping[int, RowStates]
    positions: str = "answer"

    def of(self, layer: int, batch: Batch, where: Positions) -> Tensor:
        """Return a layer's targets at some positions, (N, D), on the batch's device."""
        states = self.states[layer]
        start_B = states.offsets_R1[torch.tensor(batch.index)]
        if self.positions == "answer":
            start_B = start_B - batch.supervised.int().argmax(1).cpu()
        slots_N = start_B[where.row_N.cpu()] + where.teacher_N.cpu()
        return states.flat_ND[slots_N].to(batch.input_ids.device)


@dataclass(kw_only=True)
class Seen:
    """One batch, and what a forward pass made of it. Before the pass a view holds no states: a term can count.

    Attributes:
        batch: the rows.
        head: the student's read-out.
        targets: for layer terms.
        teacher: for terms that read the teacher's outputs.
        through: per layer, a module that the student's states go through before a term sees them.
        first_row: row id of the split's first row.
        states: per layer, (B, T, D); None before the pass.
        final_BTD: final-normed states; None before the pass, and in one that stops below the last layer.
        later: takes functions that a term wants called after the optimiser step.
    """

    batch: Batch
    head: OutputHead
    targets: Targets
    teacher: TeacherOutput | None = None
    through: Mapping[int, nn.Module] = field(default_factory=dict)
    first_row: int = 0
    states: Mapping[int, Tensor] | None = None
    final_BTD: Tensor | None = None
    later: Callable[[Callable[[], None]], None] = lambda _change: None
    _positions: dict[tuple[str, bool], Positions] = field(default_factory=dict, init=False)
    _selected: dict[tuple[int, int], Tensor] = field(default_factory=dict, init=False)

    def view(self, term: Term, own: nn.Module | None = None) -> View:
        """Return what a term sees, with its own modules."""
        states, needs = needed_states(term), {type(need) for need in term.needs}
        which = states.positions if states is not None else "answer"
        assert which == "answer" or Labels not in needs, "labels are known at the answer's positions only"
        where = self.where(which, labelled=Labels in needs)
        final = self.final(where) if states is None and self.final_BTD is not None else None
        return View(
            count=len(where.row_N),
            given={need: found for need in needs if (found := self._given(need, where)) is not None},
            final=final,
            own=own,
            later=self.later,
        )

    def where(self, which: str, *, labelled: bool) -> Positions:
        """Return the batch's positions (``answer`` or ``all``), with `labelled` those of rows that have a label."""
        key = (which, labelled and self.batch.labelled is not None)
        if key not in self._positions:
            mask_BT = position_mask(self.batch, which)
            if key[1] and self.batch.labelled is not None:
                mask_BT = mask_BT & self.batch.labelled[:, None]
            row_N, position_N = mask_BT.nonzero(as_tuple=True)
            self._positions[key] = Positions(row_N=row_N, student_N=position_N, teacher_N=position_N)
        return self._positions[key]

    def final(self, where: Positions) -> Tensor:
        """Return the final-normed states (N, D)."""
        assert self.final_BTD is not None
        return self._select(0, where, self.final_BTD)

    def labels(self, where: Positions) -> Tensor:
        """Return the tokens to predict (N)."""
        return next_tokens(self.batch)[where.row_N, where.student_N]

    def _given(self, need: type[Need], where: Positions) -> Any:
        """Return what a term that declared a need gets; None if it needs a forward pass that has not been run."""
        if need is States:
            return None if self.states is None else [self._pair(k, where) for k in self.targets.states]
        if need is Outputs:
            return None if self.final_BTD is None else self._outputs(where)
        if need is Labels:
            return self.labels(where)
        if need is RowIds:
            index_B = torch.tensor(self.batch.index, device=where.row_N.device)
            return index_B[where.row_N] + self.first_row
        return {Head: self.head, Sequences: where.row_N}[need]

    def _pair(self, layer: int, where: Positions) -> Pair:
        assert self.states is not None
        states_ND = self._select(layer, where, self.states[layer])
        return Pair(layer=layer, states_ND=states_ND, targets_ND=self.targets.of(layer, self.batch, where))

    def _select(self, layer: int, where: Positions, states_BTD: Tensor) -> Tensor:
        """Return states at some positions; all terms get the same tensor. Layer 0 stands for the final norm."""
        key = (layer, id(where))
        if key not in self._selected:
            states_ND = states_BTD[where.row_N, where.student_N]
            if layer in self.through:
                states_ND = self.through[layer](states_ND.float())
            self._selected[key] = states_ND
        return self._selected[key]

    def _outputs(self, where: Positions) -> Distributions:
        """Return the teacher's distributions at the answer positions, or at those of rows that have a label."""
        whole = self._distributions
        if len(where.row_N) == len(whole.tensors[0]):
            return whole
        assert self.batch.labelled is not None
        kept_n = self.batch.labelled[self.where("answer", labelled=False).row_N]
        return Distributions(tensors=tuple(tensor[kept_n] for tensor in whole.tensors), read=whole.read)

    @cached_property
    def _distributions(self) -> Distributions:
        assert self.teacher is not None, "a method that provides no outputs refuses terms that read them"
        return self.teacher.of(self.batch)
