"""One forward pass of the student: what each term sees of it, and the sums of the terms.

batch -> [cached states below the first trained layer] -> layers first..L_S -> final norm
|                                             |
layer terms: h_k (or its projection)            output terms: cosine, CE,
against h*_k, at each term's positions          divergence, answer positions

    batch -> Positions (rows, positions) -> View per term

What terms share is selected once. Where teacher and student read other tokens, a term that compares them sees the
positions at which both have read the same text; what the teacher says is given at these, in the same order.
Shape suffixes: B rows, T positions, N positions of a term, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pkt.data.batching import Batch, next_tokens, position_mask
from pkt.late import Tensor, nn, torch
from pkt.models.architecture import Architecture
from pkt.models.taps import Interface, decode, recomputed, skip_above, tap
from pkt.objectives import (
    AttendedAnswers,
    ChunkedAnswers,
    Chunks,
    Distributions,
    Head,
    Labels,
    Need,
    Objective,
    OutputHead,
    Outputs,
    Pair,
    RowIds,
    Sequences,
    States,
    TeacherAnswers,
    Term,
    View,
    cross_entropy_sum,
    needed_states,
)
from pkt.training.attended import answers_of, with_teacher
from pkt.training.chunked import chunked
from pkt.training.meter import Meter
from pkt.training.passes import Prefix
from pkt.training.states import States as Stored
from pkt.training.teacher import Given, Kept, Source


@dataclass(frozen=True, kw_only=True)
class Positions:
    """N positions: entry n is `student_N[n]` in row `row_N[n]` of the student."""

    row_N: Tensor
    student_N: Tensor


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What the terms compare the student with.

    Attributes:
        source: what the teacher says of a batch.
        layers: the paired student layers that it has states for.
        positions: at which positions of every row: ``answer`` or ``all``.
        maps: per student layer, the map that goes on learning and that the states have not been through; none where
            they are what the student is compared with.
    """

    source: Source = field(default_factory=Kept)
    layers: tuple[int, ...] = ()
    positions: str = "answer"
    maps: Mapping[int, nn.Module] = field(default_factory=dict)

    @classmethod
    def kept(cls, states: Mapping[int, Stored], positions: str = "answer") -> Targets:
        """Return targets that were captured before, and no distributions."""
        return cls(source=Kept(states=states), layers=tuple(states), positions=positions)

    def of(self, layer: int, given: Given, batch: Batch, where: Positions) -> Tensor:
        """Return a layer's targets at some positions, (N, D), on the batch's device."""
        mask_BT = position_mask(batch, self.positions)  # where the teacher's states stand, in the same order
        place_BT = (mask_BT.flatten().cumsum(0) - 1).view_as(mask_BT)
        states_ND = given.states[layer][place_BT[where.row_N, where.student_N]]
        return self.maps[layer](states_ND) if layer in self.maps else states_ND


@dataclass(kw_only=True)
class TransferLoss:
    """The objective of a student at rows whose teacher targets are known.

    Attributes:
        arch: the student.
        objective: terms and weights.
        interface: where in a layer the layer terms' states are read.
        targets: what the terms compare it with.
        prefix: states that enter the first layer that trains; None runs the student from its embeddings.
        head: the student's read-out.
        through: per student layer, a module that its states go through before a term sees them (hidden_kd).
        own: the modules of terms that have some, by the term's name.
        first_row: row id of the split's first row.
        autocast: run the student in bfloat16.
        recomputes: keep the states between layers alone, and run each layer again for its gradient.
        reaches_all: let every term's gradient reach every layer that a pass runs, if only with zeros: processes that
            share out weights add up the gradients of all of them.
        meter: counts the student's forward tokens.
    """

    arch: Architecture
    objective: Objective
    interface: Interface
    targets: Targets
    prefix: Prefix | None
    head: OutputHead
    through: Mapping[int, nn.Module] = field(default_factory=dict)
    own: Mapping[str, nn.Module] = field(default_factory=dict)
    first_row: int = 0
    autocast: bool = False
    recomputes: bool = False
    reaches_all: bool = False
    meter: Meter = field(default_factory=Meter)
    _later: list[Callable[[], None]] = field(default_factory=list, init=False)
    _progress: float = field(default=0.0, init=False)

    @property
    def compares(self) -> bool:
        """Whether the weights depend on the terms' values."""
        return self.objective.balance == "auto"

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return over how many positions (or sequences) each term ``loss_<name>`` sums; needs no forward pass."""
        seen = Seen(loss=self, batch=batch)
        return {f"loss_{name}": term.count(seen.view(term)) for name, term in self.objective.terms.items()}

    def weights(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the weight of each term, given their means over the optimiser step."""
        named = {key.removeprefix("loss_"): value for key, value in values.items()}
        return {
            f"loss_{name}": weight for name, weight in self.objective.weights(named, self._progress).items()
        }

    def begin_step(self, progress: float) -> dict[str, float]:
        """Let the weights be those of an optimiser step, and return the ones that are not constant, as metrics."""
        self._progress = progress
        return {f"weight_{name}": weight for name, weight in self.objective.scheduled(progress).items()}

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
        where = seen.where("answer", taught=False)
        if len(where.row_N) == 0:
            return measured
        final_nD, labels_n = seen.final(where), seen.labels(where)
        total = cross_entropy_sum(final_nD, labels_n, self.head.read_out)
        measured["cross_entropy"] = (float(total), len(labels_n))
        right_n = self.head.top1(final_nD) == labels_n
        measured["label_accuracy"] = (float(right_n.sum()), len(labels_n))
        rows, row_n = torch.unique_consecutive(where.row_N, return_inverse=True)
        wrong_r = torch.zeros(len(rows), device=right_n.device).index_add_(0, row_n, (~right_n).float())
        measured["row_accuracy"] = (float((wrong_r == 0).sum()), len(rows))
        return measured

    def idle(self, batch: Batch, *, measures: bool = False) -> Tensor:
        """Return zero, by a pass over a batch whose terms are not asked for and that no meter counts.

        Args:
            batch: any.
            measures: run the layers of `measure`, and not those of a training step.
        """
        seen = self._pass(batch, with_output=measures or bool(self.objective.output_terms))
        assert seen.final_BTD is not None
        return 0.0 * seen.final_BTD.sum()

    def forget(self) -> None:
        """Drop what terms left for the end of a step that is begun anew."""
        self._later.clear()

    def remember(self, change: Callable[[], None]) -> None:
        """Keep a function for `finish_step`, unless this is validation or a pass that only compares terms."""
        if torch.is_grad_enabled():
            self._later.append(change)

    def _forward(self, batch: Batch, *, with_output: bool) -> Seen:
        seen = self._pass(batch, with_output=with_output)
        if self.reaches_all and seen.states is not None and seen.final_BTD is not None:
            nothing = 0.0 * seen.final_BTD.sum()
            seen.states = {layer: states_BTD + nothing for layer, states_BTD in seen.states.items()}
        if not with_output:
            seen.final_BTD = None
        first, last = self._layers(with_output=with_output)
        self.meter.count(int(batch.attention_mask.sum()), layers=last - first + 1)
        return seen

    def _layers(self, *, with_output: bool) -> tuple[int, int]:
        """Return the first and the last layer of a pass."""
        first = self.prefix.layer if self.prefix is not None else 1
        return first, self.arch.depth if with_output else max(self.targets.layers)

    def _pass(self, batch: Batch, *, with_output: bool) -> Seen:
        """Run the student, and return its states and what leaves its last layer, or the last that is run."""
        seen, (first, last) = Seen(loss=self, batch=batch), self._layers(with_output=with_output)
        with ExitStack() as stack:
            stack.enter_context(torch.autocast(self.arch.device.type, torch.bfloat16, enabled=self.autocast))
            if self.recomputes:
                stack.enter_context(recomputed(self.arch, range(first, last + 1)))
            if self.prefix is not None:
                stack.enter_context(self.prefix.entering(self.arch, batch))
            stack.enter_context(skip_above(self.arch, last))
            seen.states = stack.enter_context(tap(self.arch, list(self.targets.layers), self.interface))
            seen.final_BTD = decode(self.arch, batch.input_ids, batch.attention_mask)
        return seen


@dataclass(kw_only=True)
class Seen:
    """One batch, and what a forward pass made of it. Before the pass a view holds no states: a term can count.

    Attributes:
        loss: whose batch it is; it knows head, targets and teacher.
        batch: the rows.
        states: per layer, (B, T, D); None before the pass.
        final_BTD: final-normed states; None before the pass, and in one that stops below the last layer.
    """

    loss: TransferLoss
    batch: Batch
    states: Mapping[int, Tensor] | None = None
    final_BTD: Tensor | None = None
    _positions: dict[tuple[str, bool], Positions] = field(default_factory=dict, init=False)
    _selected: dict[tuple[int, int], Tensor] = field(default_factory=dict, init=False)

    def view(self, term: Term, own: nn.Module | None = None) -> View:
        """Return what a term sees, with its own modules."""
        states, needs = needed_states(term), {type(need) for need in term.needs}
        assert states is None or Labels not in needs or states.positions == "answer", (
            "labels are the answer's"
        )
        chunks = next((need for need in term.needs if isinstance(need, Chunks)), None)
        where = self._chunked(chunks)[1] if chunks is not None else self._where_of(states, needs)
        final = self.final(where) if states is None and self.final_BTD is not None else None
        return View(
            count=len(where.row_N),
            given={
                type(need): found for need in term.needs if (found := self._given(need, where)) is not None
            },
            final=final,
            own=own,
            later=self.loss.remember,
        )

    def _where_of(self, states: States | None, needs: set[type[Need]]) -> Positions:
        """Return the positions of a term that compares states, reads distributions or learns labels."""
        outputs = "token" if Outputs in needs else "answer"
        which = states.positions if states is not None else outputs
        return self.where(which, taught=bool({States, Outputs} & needs))

    def _chunked(self, need: Chunks) -> tuple[ChunkedAnswers, Positions]:
        """Return the chunks of the batch, and the positions that predict their tokens."""
        chunks, mask_BT = chunked(self.batch, need.ends)
        return chunks, self._kept(("chunks", False), mask_BT)

    def where(self, which: str, *, taught: bool) -> Positions:
        """Return positions of the batch.

        Args:
            which: ``answer``, ``token`` or ``all``.
            taught: those at which there is something of the teacher.
        """
        batch = self.batch if taught else replace(self.batch, met=None)
        return self._kept((which, batch.met is not None), position_mask(batch, which))

    def _kept(self, key: tuple[str, bool], mask_BT: Tensor) -> Positions:
        """Return the positions that a mask selects; all terms that ask alike get the same object."""
        if key not in self._positions:
            row_N, position_N = mask_BT.nonzero(as_tuple=True)
            self._positions[key] = Positions(row_N=row_N, student_N=position_N)
        return self._positions[key]

    def final(self, where: Positions) -> Tensor:
        """Return the final-normed states (N, D)."""
        assert self.final_BTD is not None
        return self._select(0, where, self.final_BTD)

    def labels(self, where: Positions) -> Tensor:
        """Return the tokens to predict (N)."""
        return next_tokens(self.batch)[where.row_N, where.student_N]

    def _given(self, need: Need, where: Positions) -> Any:
        """Return what a term that declared a need gets; None if it needs a forward pass that has not been run."""
        if isinstance(need, States):
            return None if self.states is None else [self._pair(k, where) for k in self.loss.targets.layers]
        if isinstance(need, Outputs):
            return None if self.final_BTD is None else self._taught()
        if isinstance(need, Chunks):
            return self._chunks(need)
        if isinstance(need, TeacherAnswers):
            return self._answers()
        if isinstance(need, Labels):
            return self.labels(where)
        if isinstance(need, RowIds):
            index_B = torch.tensor(self.batch.index, device=where.row_N.device)
            return index_B[where.row_N] + self.loss.first_row
        others: dict[type[Need], Any] = {Head: self.loss.head, Sequences: where.row_N}
        return others[type(need)]

    def _pair(self, layer: int, where: Positions) -> Pair:
        assert self.states is not None
        states_ND = self._select(layer, where, self.states[layer])
        targets_ND = self.loss.targets.of(layer, self.given, self.batch, where)
        return Pair(layer=layer, states_ND=states_ND, targets_ND=targets_ND)

    def _select(self, layer: int, where: Positions, states_BTD: Tensor) -> Tensor:
        """Return states at some positions; all terms get the same tensor. Layer 0 stands for the final norm."""
        key = (layer, id(where))
        if key not in self._selected:
            states_ND = states_BTD[where.row_N, where.student_N]
            if layer in self.loss.through:
                states_ND = self.loss.through[layer](states_ND.float())
            self._selected[key] = states_ND
        return self._selected[key]

    def _taught(self) -> Distributions:
        """Return the teacher's outputs."""
        whole = self.given.outputs
        assert whole is not None, "a method that provides no outputs refuses terms that read them"
        return whole

    def _chunks(self, need: Chunks) -> ChunkedAnswers:
        """Return the answers' chunks, and after the pass what the teacher says of them."""
        chunks, _ = self._chunked(need)
        if self.final_BTD is None:
            return chunks
        return replace(chunks, teacher_C=self._taught().chunks_C)

    def _answers(self) -> AttendedAnswers:
        """Return the student's answers, and after the pass those of the teacher."""
        answers = answers_of(self.batch, self.loss.arch)
        if self.final_BTD is None:
            return answers
        attended_MX = self._taught().attended_MX
        assert attended_MX is not None, "they were kept"
        return with_teacher(answers, attended_MX)

    @cached_property
    def given(self) -> Given:
        """What the teacher says of the batch."""
        source = self.loss.targets.source
        source.count(self.batch)
        return source.of(self.batch)
