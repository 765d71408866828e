"""What LaTen extracts: which neurons of which layers go together, and the teacher's weights of its own.

Shape suffixes: n neurons (as rows or columns of a matrix), L_S student layers, D_T teacher width.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pkt.attribution.locate import Kind
from pkt.mapping import LayerPair
from pkt.models.internals import NeuronShape
from pkt.table import Table
from pkt.training.hypernetwork import Site

KINDS: dict[Kind, tuple[str, str]] = {"ffn": ("up", "down"), "attention": ("v", "o")}  # row and column
MODULES = tuple(module for modules in KINDS.values() for module in modules)


def count_of(total: int, rho: float) -> int:
    """Return n = int(total * rho), robust to the rounding of rho (100 * 0.29 is 29)."""
    return int(total * rho + 1e-9)


@dataclass(frozen=True, kw_only=True)
class LatenExtraction:
    """Which neurons of which layers go together, and the teacher's weights of its own.

    Attributes:
        pairs: FFN neurons: student layer i and the i-th of the teacher's best layers by I_ffn.
        attention_pairs: attention neurons: the same by I_attn.
        scores: I_ffn of every teacher layer.
        attention_scores: I_attn of every teacher layer.
        student: numbers of neurons of a student layer.
        teacher_neurons: kind -> (L_S, n), neurons of the paired teacher layer, best first.
        student_neurons: kind -> (L_S, n), neurons of the student layer, best first.
        sources: module -> (L_S, n, D_T), the teacher's weights of `teacher_neurons`.
        student_forward_tokens: what locating cost the student.
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

    @property
    def teacher_width(self) -> int:
        """D_T."""
        return int(self.sources["up"].shape[-1])

    def sites(self, rho: float) -> list[Site]:
        """Return the student's matrices that change with a share `rho` of its neurons, at most that extracted.

        Student neurons that share a row of W_v (grouped-query attention) leave it to the best of them, so that a
        row gets one delta, whatever the size of the group.
        """
        return [site for layer in range(1, len(self.pairs) + 1) for site in self._of_layer(layer, rho)]

    def _of_layer(self, layer: int, rho: float) -> Iterator[Site]:
        for kind, modules in KINDS.items():
            count = count_of(getattr(self.student, kind), rho)
            neurons_n = self.student_neurons[kind][layer - 1, :count]
            assert len(neurons_n) == count, "the extraction holds the largest share"
            for module in modules:
                index_n = self.student.value_rows(neurons_n) if module == "v" else neurons_n
                first_n = _first_of_each(index_n)
                yield Site(
                    layer=layer,
                    module=module,
                    index_n=index_n[first_n],
                    sources_nD=self.sources[module][layer - 1, first_n],
                )

    def save(self, folder: Path) -> None:
        """Write neurons and weights as safetensors and the rest as JSON."""
        data = {
            "pairs": [asdict(pair) for pair in self.pairs],
            "attention_pairs": [asdict(pair) for pair in self.attention_pairs],
            "scores": self.scores,
            "attention_scores": self.attention_scores,
            "student": asdict(self.student),
            "student_forward_tokens": self.student_forward_tokens,
        }
        (folder / "extraction.json").write_text(json.dumps(data, indent=1), encoding="utf-8")
        groups = {"teacher": self.teacher_neurons, "student": self.student_neurons, "source": self.sources}
        tensors = {
            f"{group}.{name}": t.contiguous() for group, own in groups.items() for name, t in own.items()
        }
        save_file(tensors, folder / "neurons.safetensors")

    @classmethod
    def load(cls, folder: Path) -> LatenExtraction:
        """Read what `save` wrote."""
        data = json.loads((folder / "extraction.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "neurons.safetensors")

        def group(name: str) -> dict[str, Tensor]:
            return {k.removeprefix(f"{name}."): t for k, t in tensors.items() if k.startswith(f"{name}.")}

        return cls(
            pairs=_pairs(data["pairs"]),
            attention_pairs=_pairs(data["attention_pairs"]),
            scores=tuple(data["scores"]),
            attention_scores=tuple(data["attention_scores"]),
            student=NeuronShape(**data["student"]),
            teacher_neurons=group("teacher"),
            student_neurons=group("student"),
            sources=group("source"),
            student_forward_tokens=data["student_forward_tokens"],
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

    def warnings(self) -> list[str]:
        """Return nothing: what cannot be located is refused."""
        return []


def _first_of_each(index_n: Tensor) -> Tensor:
    """Return the positions at which each value of `index_n` occurs first, in order."""
    seen: dict[int, int] = {}
    for position, value in enumerate(index_n.tolist()):
        seen.setdefault(value, position)
    return torch.tensor(list(seen.values()), dtype=torch.int64)


def _pairs(data: Sequence[Mapping[str, Any]]) -> tuple[LayerPair, ...]:
    return tuple(LayerPair(student=p["student"], teacher=tuple(p["teacher"])) for p in data)
