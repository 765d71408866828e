"""What LaTen hands from stage to stage: neurons with the teacher's weights, and the delta made of them.

Shape suffixes: n neurons (as rows or columns of a matrix), L_S student layers, D_T teacher width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pkt.attribution.locate import Kind
from pkt.late import Tensor, torch
from pkt.mapping import LayerPair
from pkt.methods.base import Alignment, Extraction
from pkt.models.internals import NeuronShape
from pkt.models.sparse_delta import SparseDelta
from pkt.table import Table
from pkt.training.deltas import DeltaSite

KINDS: dict[Kind, tuple[str, str]] = {"ffn": ("up", "down"), "attention": ("v", "o")}  # row and column
MODULES = tuple(module for modules in KINDS.values() for module in modules)
FELT = 1e-5  # share of the weights' norm below which a delta is as good as none


@dataclass(frozen=True, kw_only=True)
class LatenExtraction(Extraction):
    """Which neurons of which layers go together, and the weights of the teacher's neurons.

    Attributes:
        pairs: for FFN neurons, student layer i with the i-th of the teacher's best layers by I_ffn.
        attention_pairs: for attention neurons, the same by I_attn.
        scores: I_ffn of every teacher layer.
        attention_scores: I_attn of every teacher layer.
        student: how many neurons a student layer has.
        teacher_neurons: kind -> (L_S, n), neurons of the paired teacher layer, best first.
        student_neurons: kind -> (L_S, n), neurons of the student layer, best first.
        sources: module -> (L_S, n, D_T), the teacher's weights of `teacher_neurons`.
        student_forward_tokens: tokens that went through the student to locate its neurons.
    """

    pairs: tuple[LayerPair, ...]
    attention_pairs: tuple[LayerPair, ...]
    scores: tuple[float, ...]
    attention_scores: tuple[float, ...]
    student: NeuronShape
    teacher_neurons: dict[str, Tensor]
    student_neurons: dict[str, Tensor]
    sources: dict[str, Tensor]
    student_forward_tokens: int

    def sites(self) -> list[DeltaSite]:
        """Return the student's matrices that change.

        With grouped-query attention several student neurons share a row of W_v. The best of them decides what the
        row gets, so that each row gets one delta, whatever the size of the group.
        """
        return [site for layer in range(1, len(self.pairs) + 1) for site in self._of_layer(layer)]

    def _of_layer(self, layer: int) -> Iterator[DeltaSite]:
        for kind, modules in KINDS.items():
            neurons_n = self.student_neurons[kind][layer - 1]
            for module in modules:
                index_n = self.student.value_rows(neurons_n) if module == "v" else neurons_n
                first_n = _first_of_each(index_n)
                yield DeltaSite(
                    layer=layer,
                    module=module,
                    index_n=index_n[first_n],
                    sources_nD=self.sources[module][layer - 1, first_n],
                )

    def tables(self) -> list[Table]:
        """Return one row per student layer: the paired layers, their scores, and how many neurons."""
        rows = tuple(
            (
                str(ffn.student),
                str(ffn.teacher[0]),
                f"{self.scores[ffn.teacher[0] - 1]:.3g}",
                str(attention.teacher[0]),
                f"{self.attention_scores[attention.teacher[0] - 1]:.3g}",
            )
            for ffn, attention in zip(self.pairs, self.attention_pairs, strict=True)
        )
        counts = {kind: own.shape[1] for kind, own in self.student_neurons.items()}
        title = (
            f"layers of the {counts['ffn']} FFN and {counts['attention']} attention neurons taken from each"
        )
        columns = ("student layer", "teacher layer, FFN", "I_ffn", "teacher layer, attention", "I_attn")
        return [Table(title=title, columns=columns, rows=rows)]


def _first_of_each(index_n: Tensor) -> Tensor:
    """Return the positions at which each value of `index_n` occurs first, in order."""
    seen: dict[int, int] = {}
    for position, value in enumerate(index_n.tolist()):
        seen.setdefault(value, position)
    return torch.tensor(list(seen.values()), dtype=torch.int64)


@dataclass(frozen=True, kw_only=True)
class LatenAlignment(Alignment):
    """The delta of every changed matrix of the student, and how it was found.

    Attributes:
        deltas: what is added where, float32.
        losses: cross-entropy of each step's rows, before the step.
        validation: cross-entropy of the student with the delta on the validation split.
        untouched: the same without it.
        norms: module -> ``delta``, ``weight`` and ``rounded`` (see `sparse_delta.norms`).
        trained_parameters: of the hypernetwork.
        rows: number of rows of the align and extract splits, from which the steps drew.
        dtype: the student's.
        student_forward_tokens: tokens that went through the student in `extract` and `align`.
    """

    deltas: tuple[SparseDelta, ...]
    losses: tuple[float, ...]
    validation: float
    untouched: float
    norms: dict[str, dict[str, float]]
    trained_parameters: int
    rows: int
    dtype: str
    student_forward_tokens: int

    def norm(self, name: str) -> float:
        """Return one of the norms over all modules."""
        return math.hypot(*(own[name] for own in self.norms.values()))

    def tables(self) -> list[Table]:
        """Return how the student does with the delta, and the size of the delta per module."""
        row = (str(len(self.losses)), *(f"{value:.4f}" for value in (self.losses[0], self.losses[-1])))
        columns = ("steps", "first step's CE", "last step's CE", "validation CE", "without the delta")
        trained = Table(
            title="hypernetwork",
            columns=columns,
            rows=((*row, f"{self.validation:.6f}", f"{self.untouched:.6f}"),),
        )
        changed = {m: sum(len(d.index_n) for d in self.deltas if d.module == m) for m in self.norms}
        rows = tuple(
            (
                module,
                str(changed[module]),
                f"{own['delta']:.3g}",
                f"{own['delta'] / own['weight']:.3g}",
                f"{own['rounded']:.3g}",
            )
            for module, own in self.norms.items()
        )
        columns = ("module", "rows or columns", "|delta|", "|delta| / |W|", f"|delta| kept in {self.dtype}")
        return [trained, Table(title="what is added to the student", columns=columns, rows=rows)]

    def warnings(self) -> list[str]:
        """Warn of a delta that is lost to rounding, too small, or of no help."""
        notes = []
        delta, rounded = self.norm("delta"), self.norm("rounded")
        if not 0.5 * delta <= rounded <= 2 * delta or rounded == 0.0:
            notes.append(
                f"the student's {self.dtype} weights do not hold the delta: its norm is {delta:.3g}, what arrives "
                f"after rounding {rounded:.3g}; load the student in float32 (model.student.dtype=float32)"
            )
        if delta < FELT * self.norm("weight"):
            notes.append(
                f"the delta is {delta / self.norm('weight'):.2g} of the weights' norm and changes next to nothing; "
                "raise method.lr (the paper's is for widths of thousands) or method.steps"
            )
        if not self.validation < self.untouched:
            notes.append(
                f"the delta does not lower the student's validation cross-entropy ({self.untouched:.6f} without, "
                f"{self.validation:.6f} with); try other method.steps, method.lr or method.rho"
            )
        return notes
