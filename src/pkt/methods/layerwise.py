"""What layer-wise methods share: scores and pairs of layers, states of both models, maps between them.

extract split -> attribution | similarity -> mapping -> pairs
align split   -> states of both models -> semantics -> a map per pair and its quality card
train, validation -> teacher states through the maps, and the teacher's outputs where a term reads them
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial

import torch
from torch import Tensor

from pkt.attribution import layer_attribution
from pkt.attribution.similarity import compare_layers
from pkt.data.batching import Batch, collate, sorted_batches
from pkt.mapping import LayerPair
from pkt.methods.base import Choice, Reads
from pkt.methods.layer_results import LayerExtraction
from pkt.methods.tuning import SPLITS, live_teacher
from pkt.methods.workbench import Workbench
from pkt.models.architecture import Architecture
from pkt.models.taps import Interface
from pkt.objectives import OutputHead
from pkt.semantics import AlignmentMap, HeadView, quality_card
from pkt.training.capture import Read, capture
from pkt.training.states import RowStates
from pkt.training.teacher import TopRows, capture_outputs


def pairing_reads(choice: Choice) -> Reads:
    """Name what `pair_layers` reads: the extract rows, if the mapping asks what layers do with them."""
    asks = choice.mapping.needs_scores or choice.mapping.needs_similarity
    return Reads(rows=("extract",) if asks else ())


def pair_layers(bench: Workbench, interface: str, reduce: str) -> LayerExtraction:
    """Score the teacher's layers and compare them with the student's, as far as the mapping asks, and pair them."""
    scores = attribution(bench, interface, reduce) if bench.mapping.needs_scores else None
    similarity = similarities(bench, interface) if bench.mapping.needs_similarity else None
    pairs = bench.mapping.pairs(
        bench.teacher_config.num_hidden_layers,
        bench.student_config.num_hidden_layers,
        scores,
        similarity,
    )
    return LayerExtraction(
        pairs=pairs,
        interface=interface,
        scores=tuple(scores) if scores else None,
        similarity=tuple(map(tuple, similarity)) if similarity else None,
    )


def attribution(bench: Workbench, interface: str, reduce: str) -> list[float]:
    """Return one score per teacher layer, over the extract split."""
    arch, encoded = bench.teacher.arch, bench.encoded("extract")
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
    encoded, teacher, student = bench.encoded("extract"), bench.teacher.arch, bench.student.arch
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
            batch_size=bench.config.optim.batch_size,
            listen=listen,
        )
    similarity: list[list[float]] = compared.cka_LL.tolist()
    return similarity


def student_states(
    bench: Workbench, pairs: tuple[LayerPair, ...], interface: str, positions: str
) -> dict[int, RowStates]:
    """Read the untouched student's paired layers over the align split."""
    arch = bench.student.arch
    reads = {pair.student: Read(layers=(pair.student,), width=arch.width) for pair in pairs}
    with bench.track("student states (align)", len(bench.encoded("align").lengths)) as advance:
        return capture(
            arch,
            bench.encoded("align"),
            reads,
            interface=Interface(interface),
            positions=positions,
            batch_size=bench.config.optim.batch_size,
            meter=bench.student_meter,
            listen=advance,
        )


def teacher_states(
    bench: Workbench,
    pairs: tuple[LayerPair, ...],
    interface: str,
    positions: str,
    split: str,
    *,
    maps: Mapping[int, AlignmentMap] | None,
    dtype: torch.dtype = torch.float32,
) -> dict[int, RowStates]:
    """Read the paired teacher layers over a split: mapped where `maps` is given, the teacher's own otherwise."""
    arch, encoded = bench.teacher.arch, bench.encoded(split)
    reads = {
        pair.student: Read(
            layers=pair.teacher,
            weights=pair.weights,
            width=bench.student.arch.width if maps else arch.width,
            map=maps[pair.student] if maps else None,
        )
        for pair in pairs
    }
    with bench.track(f"teacher states ({split})", len(encoded.lengths)) as advance:
        return capture(
            arch,
            encoded,
            reads,
            interface=Interface(interface),
            positions=positions,
            batch_size=bench.config.optim.batch_size,
            dtype=dtype,
            meter=bench.teacher_meter,
            listen=advance,
        )


def fit_maps(
    bench: Workbench,
    pairs: tuple[LayerPair, ...],
    teacher: Mapping[int, RowStates],
    student: Mapping[int, RowStates],
) -> dict[int, AlignmentMap]:
    """Fit the semantics of the request: once for all pairs, or per pair where it reads states."""
    shared = bench.pair_report.shared_ids
    fit = partial(
        bench.semantics.fit,
        teacher=head_view(bench.teacher.arch, shared),
        student=head_view(bench.student.arch, shared),
    )
    layers = [pair.student for pair in pairs]
    if not bench.semantics.needs_states:
        return dict.fromkeys(layers, fit())
    return {k: fit(states=(teacher[k].flat_ND, student[k].flat_ND)) for k in layers}


def graded(
    bench: Workbench,
    maps: Mapping[int, AlignmentMap],
    interface: str,
    teacher: Mapping[int, RowStates],
    student: Mapping[int, RowStates],
) -> dict[int, dict[str, float | None]]:
    """Return each map's quality card on the align split; only block states can be read by the head."""
    read_out = OutputHead(arch=bench.student.arch).lens if interface == "block" else None
    return {
        k: asdict(quality_card(map_, teacher[k].flat_ND, student[k].flat_ND, read_out=read_out))
        for k, map_ in maps.items()
    }


def length_ratio(map_: AlignmentMap, teacher: RowStates, student: RowStates) -> float:
    """Return the student's mean state length over that of the mapped teacher states, on the align split.

    1 for a map that predicts values (ridge): only a normalised map gives directions without lengths. The cosine
    term and a read-out through a norm do not see the difference, others do.
    """
    if not map_.normalise:
        return 1.0
    length = torch.cat([map_(part).norm(dim=-1) for part in torch.split(teacher.flat_ND, 4096)]).mean()
    return float(student.flat_ND.float().norm(dim=-1).mean() / length.clamp_min(1e-12))


def teacher_outputs(bench: Workbench) -> dict[str, TopRows]:
    """Keep the teacher's distributions at answer positions, where the objective wants them kept."""
    if (outputs := bench.objective.outputs) is None or outputs.live:
        return {}
    kept = {}
    for split in SPLITS:
        encoded = bench.encoded(split)
        with bench.track(f"teacher outputs ({split})", len(encoded.lengths)) as advance:
            kept[split] = capture_outputs(
                live_teacher(bench), encoded, batch_size=bench.config.optim.batch_size, listen=advance
            )
    return kept


def head_view(arch: Architecture, shared: Tensor) -> HeadView:
    """Return what a semantics map sees of a model: head, embeddings, final norm, tokens that both models have."""
    norm = arch.norm_weight()
    return HeadView(
        weight=arch.head_weight().detach(),
        embedding=arch.embedding_weight().detach(),
        norm=norm.detach() if norm is not None else None,
        shared=shared,
    )
