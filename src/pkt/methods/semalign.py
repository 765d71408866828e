"""SemAlign: transfer through activations that are aligned in latent space, layer by layer.

Idea: attribution picks the teacher layers that matter; their states are decomposed over the teacher's
semantic basis and recomposed over the student's (one matrix M, no training); the paired student layers learn
to produce them, while the output learns the answer.

Reference: Gu, Aleti, Chen, Zhang, "Beyond Neural Incompatibility" (arXiv 2510.24208, v1). Two presets share
this file: `method=semalign` is v1 as published (one critical layer, MLP output, answer positions, cosine
terms); `method=semalign_joint` is ours (several pairs over the depth trained jointly, block states, all
positions, a strong layer weight).
Deviations: the vocabulary never appears per token (M is computed once; the output cosine needs no logits);
layers below the first trained one run once. Both are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from pkt.attribution import layer_attribution
from pkt.data.batching import collate, sorted_batches
from pkt.mapping import LayerPair
from pkt.methods.base import Alignment, Extraction, Transferred, described
from pkt.methods.tuning import Update, tune
from pkt.methods.workbench import Workbench
from pkt.models.architecture import Architecture
from pkt.models.taps import Interface
from pkt.semantics import AlignmentMap, HeadView, quality_card
from pkt.training.capture import Read, capture
from pkt.training.states import RowStates


@dataclass(frozen=True, kw_only=True)
class SemAlign:
    """The method's own settings; pairing, map and objective are strategies beside it.

    Attributes:
        name: how tables call it.
        interface: supervision interface: ``mlp``, ``attention``, ``residual`` or ``block``, on both sides.
        reduce: aggregation of attribution (``example``, ``signed``, ``abs``, ``l2``).
        update: what trains in the paired layers.
        cache_prefix: run the layers below the first trained one only once.
        cache_dtype: storage of the teacher's targets (``float32`` or ``bfloat16``).
    """

    stages: ClassVar[tuple[str, ...]] = ("extract", "align", "transfer")

    name: str = "semalign"
    interface: Literal["mlp", "attention", "residual", "block"] = "mlp"
    reduce: Literal["example", "signed", "abs", "l2"] = "example"
    update: Update = field(default_factory=Update)
    cache_prefix: bool = True
    cache_dtype: Literal["float32", "bfloat16"] = "float32"

    def settings(self, stage: str, bench: Workbench) -> Mapping[str, Any]:
        """Name what each stage depends on besides models and rows."""
        if stage == "extract":
            scored = {"reduce": self.reduce} if bench.mapping.needs_scores else {}
            return {"interface": self.interface, "mapping": described(bench.mapping), **scored}
        if stage == "align":
            return {
                "semantics": described(bench.semantics),
                "positions": bench.objective.positions,
                "cache_dtype": self.cache_dtype,
            }
        return {
            "update": asdict(self.update),
            "objective": described(bench.objective),
            "optim": asdict(bench.config.optim),
            "seed": bench.config.seed,
        }

    def extract(self, bench: Workbench) -> Extraction:
        """Score the teacher's layers if the mapping asks for it, and pair them with the student's."""
        scores = self._attribution(bench) if bench.mapping.needs_scores else None
        pairs = bench.mapping.pairs(
            bench.teacher_config.num_hidden_layers, bench.student_config.num_hidden_layers, scores
        )
        return Extraction(pairs=pairs, interface=self.interface, scores=tuple(scores) if scores else None)

    def _attribution(self, bench: Workbench) -> list[float]:
        arch, encoded = bench.teacher.arch, bench.encoded("extract")
        plan = sorted_batches(encoded.lengths, bench.config.optim.batch_size)
        with bench.track("attribution", len(encoded.lengths)) as advance:

            def batches() -> Any:
                for rows in plan:
                    batch = collate(encoded, rows).to(arch.device)
                    bench.teacher_meter.count(int(batch.attention_mask.sum()))
                    yield batch
                    advance(len(rows))

            scores = layer_attribution(arch, batches(), Interface(self.interface), reduce=self.reduce)
        return [float(score) for score in scores]

    def align(self, bench: Workbench, extraction: Extraction) -> Alignment:
        """Fit the map per pair, grade it on the align split, and keep the mapped teacher states."""
        positions = bench.objective.positions
        student_states = self._student_states(bench, extraction, positions)
        teacher_states = self._teacher_states(bench, extraction, positions, "align", maps=None)
        maps = self._fit(bench, extraction.pairs, teacher_states, student_states)
        quality = {
            pair.student: asdict(
                quality_card(
                    maps[pair.student],
                    teacher_states[pair.student].flat_ND,
                    student_states[pair.student].flat_ND,
                )
            )
            for pair in extraction.pairs
        }
        targets = {
            split: self._teacher_states(bench, extraction, positions, split, maps=maps)
            for split in ("train", "validation")
        }
        return Alignment(
            pairs=extraction.pairs,
            interface=extraction.interface,
            positions=positions,
            maps=maps,
            quality=quality,
            targets=targets,
        )

    def _fit(
        self,
        bench: Workbench,
        pairs: tuple[LayerPair, ...],
        teacher_states: dict[int, RowStates],
        student_states: dict[int, RowStates],
    ) -> dict[int, AlignmentMap]:
        shared = bench.pair_report.shared_ids
        teacher, student = (head_view(model.arch, shared) for model in (bench.teacher, bench.student))
        if not bench.semantics.needs_states:
            one = bench.semantics.fit(teacher=teacher, student=student)
            return {pair.student: one for pair in pairs}
        return {
            pair.student: bench.semantics.fit(
                teacher=teacher,
                student=student,
                states=(teacher_states[pair.student].flat_ND, student_states[pair.student].flat_ND),
            )
            for pair in pairs
        }

    def _student_states(
        self, bench: Workbench, extraction: Extraction, positions: str
    ) -> dict[int, RowStates]:
        arch, encoded = bench.student.arch, bench.encoded("align")
        reads = {pair.student: Read(layers=(pair.student,), width=arch.width) for pair in extraction.pairs}
        with bench.track("student states (align)", len(encoded.lengths)) as advance:
            return capture(
                arch,
                encoded,
                reads,
                interface=Interface(extraction.interface),
                positions=positions,
                batch_size=bench.config.optim.batch_size,
                meter=bench.student_meter,
                listen=advance,
            )

    def _teacher_states(
        self,
        bench: Workbench,
        extraction: Extraction,
        positions: str,
        split: str,
        *,
        maps: dict[int, AlignmentMap] | None,
    ) -> dict[int, RowStates]:
        """Read the paired teacher layers over a split: mapped where `maps` is given, raw otherwise."""
        arch, encoded = bench.teacher.arch, bench.encoded(split)
        reads = {
            pair.student: Read(
                layers=pair.teacher,
                weights=pair.weights,
                width=bench.student.arch.width if maps else arch.width,
                map=maps[pair.student] if maps else None,
            )
            for pair in extraction.pairs
        }
        with bench.track(f"teacher states ({split})", len(encoded.lengths)) as advance:
            return capture(
                arch,
                encoded,
                reads,
                interface=Interface(extraction.interface),
                positions=positions,
                batch_size=bench.config.optim.batch_size,
                dtype=getattr(torch, self.cache_dtype) if maps else torch.float32,
                meter=bench.teacher_meter,
                listen=advance,
            )

    def transfer(self, bench: Workbench, alignment: Alignment | None, snapshots: Path | None) -> Transferred:
        """Train the paired student layers on the objective."""
        assert alignment is not None
        return tune(
            bench,
            alignment,
            update=self.update,
            layers=[pair.student for pair in alignment.pairs],
            cache_prefix=self.cache_prefix,
            snapshots=snapshots,
        )


def head_view(arch: Architecture, shared: Tensor) -> HeadView:
    """Return what a semantics map sees of a model: head, embeddings, final norm, tokens that both models have."""
    norm = arch.norm_weight()
    return HeadView(
        weight=arch.head_weight().detach(),
        embedding=arch.embedding_weight().detach(),
        norm=norm.detach() if norm is not None else None,
        shared=shared,
    )
