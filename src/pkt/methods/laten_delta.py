"""What LaTen aligns: the delta of every changed matrix of the student, and the settings that it was chosen from."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file

from pkt.models.sparse_delta import SparseDelta
from pkt.table import Table

FELT = 1e-5  # a delta with a smaller share of the weights' norm is as good as none


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One setting of the alignment and how it did.

    Attributes:
        rho: share of the student's neurons that change.
        lr: learning rate of the hypernetwork.
        steps: optimiser steps.
        losses: cross-entropy of each step's rows, before the step.
        validation: cross-entropy of the student with the delta on the validation split.
    """

    rho: float
    lr: float
    steps: int
    losses: tuple[float, ...]
    validation: float


@dataclass(frozen=True, kw_only=True)
class LatenAlignment:
    """The delta of every changed matrix of the student, and how it was chosen.

    Attributes:
        deltas: what is added where, float32.
        candidates: the settings that were tried.
        chosen: which of them, from 0.
        untouched: validation cross-entropy of the student without a delta.
        norms: module -> ``delta``, ``weight`` and ``rounded`` (see `sparse_delta.norms`).
        trained_parameters: of the hypernetwork.
        rows: of the align and extract splits that the steps drew from.
        dtype: the student's.
        student_forward_tokens: what locating and aligning cost the student, all settings together.
    """

    deltas: tuple[SparseDelta, ...]
    candidates: tuple[Candidate, ...]
    chosen: int
    untouched: float
    norms: dict[str, dict[str, float]]
    trained_parameters: int
    rows: int
    dtype: str
    student_forward_tokens: int

    @property
    def choice(self) -> Candidate:
        """The chosen setting."""
        return self.candidates[self.chosen]

    def norm(self, name: str) -> float:
        """Return one of the norms over all modules."""
        return math.hypot(*(own[name] for own in self.norms.values()))

    def save(self, folder: Path) -> None:
        """Write the deltas as safetensors and the rest as JSON."""
        data = {
            "candidates": [asdict(candidate) for candidate in self.candidates],
            "chosen": self.chosen,
            "untouched": self.untouched,
            "norms": self.norms,
            "trained_parameters": self.trained_parameters,
            "rows": self.rows,
            "dtype": self.dtype,
            "student_forward_tokens": self.student_forward_tokens,
            "deltas": [[delta.layer, delta.module] for delta in self.deltas],
        }
        (folder / "alignment.json").write_text(json.dumps(data, indent=1), encoding="utf-8")
        tensors = {}
        for delta in self.deltas:
            tensors[f"{delta.layer}.{delta.module}.index"] = delta.index_n.contiguous()
            tensors[f"{delta.layer}.{delta.module}.values"] = delta.values_nD.contiguous()
        save_file(tensors, folder / "delta.safetensors")

    @classmethod
    def load(cls, folder: Path) -> LatenAlignment:
        """Read what `save` wrote."""
        data = json.loads((folder / "alignment.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "delta.safetensors")
        deltas = tuple(
            SparseDelta(
                layer=layer,
                module=module,
                index_n=tensors[f"{layer}.{module}.index"],
                values_nD=tensors[f"{layer}.{module}.values"],
            )
            for layer, module in data["deltas"]
        )
        candidates = tuple(Candidate(**{**c, "losses": tuple(c["losses"])}) for c in data["candidates"])
        names = (
            "chosen",
            "untouched",
            "norms",
            "trained_parameters",
            "rows",
            "dtype",
            "student_forward_tokens",
        )
        return cls(deltas=deltas, candidates=candidates, **{name: data[name] for name in names})

    def tables(self) -> list[Table]:
        """Return the settings that were tried, and the size of the delta per module."""
        tried = tuple(
            (
                f"{c.rho:g}",
                f"{c.lr:g}",
                str(c.steps),
                f"{c.losses[-1]:.4f}",
                f"{c.validation:.6f}",
                "chosen" if place == self.chosen else "",
            )
            for place, c in enumerate(self.candidates)
        )
        columns = ("rho", "lr", "steps", "last step's CE", "validation CE", "")
        title = f"hypernetworks; validation cross-entropy of the untouched student: {self.untouched:.6f}"
        return [Table(title=title, columns=columns, rows=tried), self._size()]

    def _size(self) -> Table:
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
        return Table(title="what is added to the student", columns=columns, rows=rows)

    def warnings(self) -> list[str]:
        """Say where the delta is lost to rounding, or does not help."""
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
        if not self.choice.validation < self.untouched:
            notes.append(
                f"the delta does not lower the student's validation cross-entropy ({self.untouched:.6f} without, "
                f"{self.choice.validation:.6f} with); try other method.steps, method.lr or method.rho"
            )
        return notes
