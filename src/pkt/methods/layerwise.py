"""What layer-wise methods share: scores and pairs of layers, states of both models, maps between them.

extract split -> attribution | similarity -> mapping -> pairs
align split   -> states of both models -> semantics -> a map per pair and its quality card
train, validation -> one pass of the teacher: its states through the maps, its outputs where a term reads them
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pkt import console
from pkt.attribution import layer_attribution
from pkt.attribution.layer import Reduction
from pkt.attribution.similarity import compare_layers
from pkt.config import InterfaceName
from pkt.data.batching import Batch, collate, sorted_batches
from pkt.late import torch
from pkt.mapping import LayerPair
from pkt.methods.base import Choice, Provides, Reads, training
from pkt.methods.keeping import Stored, reads_of
from pkt.methods.layer_results import LayerAlignment, LayerExtraction
from pkt.methods.readings import compared, read_by
from pkt.methods.tuning import TrainingMethod
from pkt.methods.workbench import Workbench
from pkt.models.taps import Interface
from pkt.objectives import OutputHead
from pkt.semantics import AlignmentMap, HeadView, Identity, Semantics, quality_card, without_massive
from pkt.settings import setting
from pkt.training.capture import capture
from pkt.training.passes import Read
from pkt.training.states import States


@dataclass(frozen=True, kw_only=True)
class LayerWise(TrainingMethod):
    """A method that pairs teacher layers with student layers, and trains the paired student layers.

    Attributes:
        name: how tables call it.
        interface: where in a layer states are read, in both models.
        reduce: how attribution is aggregated (only read where the mapping asks for scores).
        update: what trains in the paired layers.
        cache_dtype: storage of the teacher's states; `on` decides what ``auto`` is.
    """

    results: ClassVar[Mapping[str, type[Any]]] = {"extract": LayerExtraction, "align": LayerAlignment}
    uses: ClassVar[tuple[str, ...]] = ("mapping", "objective")

    interface: InterfaceName = "block"
    reduce: Reduction = setting("example", when=lambda _, choice: choice.mapping.needs_scores)
    cache_dtype: Literal["auto", Stored] = setting("auto", decides="align")

    def on(self, device_type: str) -> Self:
        """Return the method as it is on a type of device: on a GPU what is kept is bfloat16, elsewhere float32."""
        if self.cache_dtype != "auto":
            return self
        return replace(self, cache_dtype="bfloat16" if device_type == "cuda" else "float32")

    def provided(self, states: Literal["student", "teacher"]) -> Provides:
        """Return what the method provides; `states` says whose space the targets are in."""
        return Provides(
            states=states, interface=self.interface, outputs=True, trains_head=self.update.trains_head
        )

    def reads(self, stage: str, choice: Choice) -> Reads:
        """Name what `extract` and `transfer` read: the extract rows only where the mapping looks at the models."""
        if stage == "transfer":
            return training(self.update)
        asks = choice.mapping.needs_scores or choice.mapping.needs_similarity
        return Reads(rows=("extract",) if asks else ())

    def extract(self, bench: Workbench, scratch: Path | None) -> LayerExtraction:
        """Pair the layers; attribution and similarity are computed where the mapping asks for them."""
        mapping, interface = bench.pairing, self.interface
        scores = attribution(bench, interface, self.reduce) if mapping.needs_scores else None
        similarity = similarities(bench, interface) if mapping.needs_similarity else None
        depths = bench.teacher_config.num_hidden_layers, bench.student_config.num_hidden_layers
        return LayerExtraction(
            pairs=mapping.pairs(*depths, scores, similarity),
            interface=interface,
            scores=tuple(scores) if scores else None,
            similarity=tuple(map(tuple, similarity)) if similarity else None,
        )

    def teacher_states(self, bench: Workbench, pairs: tuple[LayerPair, ...]) -> dict[int, States]:
        """Read the paired teacher layers over the align split, as they are."""
        reads = reads_of(pairs, width=bench.teacher.arch.width)
        return self._captured(bench, "teacher", reads)

    def student_states(self, bench: Workbench, pairs: tuple[LayerPair, ...]) -> dict[int, States]:
        """Read the untouched student's paired layers over the align split."""
        width = bench.student.arch.width
        reads = {pair.student: Read(layers=(pair.student,), width=width) for pair in pairs}
        return self._captured(bench, "student", reads)

    def _captured(self, bench: Workbench, role: str, reads: Mapping[int, Read]) -> dict[int, States]:
        model, encoded = getattr(bench, role), compared(bench, role, "align")
        with bench.track(f"{role} states (align)", len(encoded.lengths)) as advance:
            return capture(
                model.arch,
                encoded,
                reads,
                interface=Interface(self.interface),
                positions=bench.objective.positions,
                batch_size=bench.config.optim.batch_size,
                meter=getattr(bench, f"{role}_meter"),
                listen=advance,
            )


def attribution(bench: Workbench, interface: str, reduce: str) -> list[float]:
    """Return one score per teacher layer, over the extract split."""
    arch, encoded = bench.teacher.arch, read_by(bench, "teacher", "extract")
    with bench.track("attribution", len(encoded.lengths)) as advance:

        def batches() -> Iterator[Batch]:
            for rows in sorted_batches(encoded.lengths, bench.config.optim.batch_size):
                batch = collate(encoded, rows).to(arch.device)
                bench.teacher_meter.count(int(batch.attention_mask.sum()), layers=arch.depth)
                yield batch
                advance(len(rows))

        scores = layer_attribution(arch, batches(), Interface(interface), reduce=reduce)
    return [float(score) for score in scores]


def similarities(bench: Workbench, interface: str) -> list[list[float]]:
    """Return linear CKA between every teacher and every student layer, over the extract split."""
    encoded, teacher, student = read_by(bench, "student", "extract"), bench.teacher.arch, bench.student.arch
    with bench.track("similarity of layers", len(encoded.lengths)) as advance:

        def listen(rows: int, tokens: int) -> None:
            bench.teacher_meter.count(tokens, layers=teacher.depth)
            bench.student_meter.count(tokens, layers=student.depth)
            advance(rows)

        compared = compare_layers(
            teacher,
            student,
            encoded,
            interface=interface,
            read_by_teacher=read_by(bench, "teacher", "extract"),
            batch_size=bench.config.optim.batch_size,
            listen=listen,
        )
    if compared.left_out:
        console.note(
            f"similarity of layers: {compared.left_out} of {compared.left_out + compared.positions} positions of the "
            "extract split have massive activations and are left out"
        )
    similarity: list[list[float]] = compared.cka_LL.tolist()
    return similarity


def fit_maps(
    bench: Workbench,
    pairs: tuple[LayerPair, ...],
    teacher: Mapping[int, States],
    student: Mapping[int, States],
) -> dict[int, AlignmentMap]:
    """Fit the request's semantics: per pair where it reads states, otherwise once for all pairs."""
    shared, two = bench.pair_report, not bench.one_vocabulary
    for arch in (bench.teacher.arch, bench.student.arch):
        if getattr(bench.semantics, "fold_norm", False) and arch.probe is not None:
            arch.probe.require("norm_weight")
    fit = partial(
        bench.semantics.fit,
        teacher=HeadView.of(bench.teacher.arch, shared.teacher_ids, two_vocabularies=two),
        student=HeadView.of(bench.student.arch, shared.student_ids, bench.channels, two_vocabularies=two),
    )
    layers = [pair.student for pair in pairs]
    if not bench.semantics.needs_states:
        return dict.fromkeys(layers, fit())
    return {k: fit(states=(teacher[k].flat(), student[k].flat())) for k in layers}


def no_map(semantics: Semantics, bench: Workbench) -> str | None:
    """Return why there is no such map between the widths of a pair; None where there is one."""
    if not isinstance(semantics, Identity):
        return None
    widths = int(bench.teacher_config.hidden_size), int(bench.student_config.hidden_size)
    return semantics.refusal(*widths, bench.channels)


def graded(
    bench: Workbench,
    maps: Mapping[int, AlignmentMap],
    interface: str,
    teacher: Mapping[int, States],
    student: Mapping[int, States],
) -> dict[int, dict[str, float | None]]:
    """Return each map's quality card on the align split, with a read-out KL where states are those of blocks.

    A ridge map's `alpha` is in it too, as it may have been chosen, and of two vocabularies the number of anchors that a
    map through the vocabulary is made of.
    """
    told = {"alpha"} if bench.one_vocabulary else {"alpha", "anchors"}
    read_out = OutputHead(arch=bench.student.arch).lens if interface == "block" else None
    return {
        k: asdict(quality_card(map_, teacher[k].flat(), student[k].flat(), read_out=read_out))
        | {name: value for name, value in map_.info.items() if name in told}
        for k, map_ in maps.items()
    }


def length_ratio(map_: AlignmentMap, teacher: States, student: States) -> float:
    """Return the student's mean state length over that of the mapped teacher states, on the align split.

    It is 1 for a map that predicts values (ridge), since only a normalised map gives directions without lengths. The
    cosine term and a read-out through a norm do not depend on lengths; other terms do.
    """
    if not map_.normalise:
        return 1.0
    (teacher_ND, student_ND), _ = without_massive((teacher.flat(), student.flat()), map_.massive)
    length = torch.cat([map_(part).norm(dim=-1) for part in torch.split(teacher_ND, 4096)]).mean()
    return float(student_ND.float().norm(dim=-1).mean() / length.clamp_min(1e-12))
