"""What the teacher says of the train and validation rows: kept once, or asked for while the student trains.

pairs, maps, objective -> Pass per split ── keep ──> columns on disk or in memory ──> Kept
                                         └─ live, window ───────────────────────────> Live, Ahead
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from pkt import console
from pkt.data.batching import collate
from pkt.errors import PktError
from pkt.late import torch
from pkt.mapping import LayerPair
from pkt.methods.layer_results import LayerAlignment
from pkt.methods.readings import begins_word, compared, counts_rest
from pkt.methods.workbench import Workbench
from pkt.models.taps import Interface
from pkt.objectives import Objective
from pkt.semantics import AlignmentMap, learns
from pkt.training.attended import AttendedRead
from pkt.training.capture import Shelf, capture_all
from pkt.training.chunked import ChunkRead
from pkt.training.forward import TransferLoss
from pkt.training.passes import Pass, Read, ReadOut, column_of
from pkt.training.states import States
from pkt.training.teacher import Ahead, Kept, Live, LiveTeacher, Source, TeacherOutput, TopRows

LOSS_SPLITS = ("train", "validation")
Stored = Literal["float32", "bfloat16", "float8_e4m3"]
STORED = get_args(Stored)
_ROOM = 0.95  # of a disk's free bytes may be taken


def dtype_of(name: str) -> torch.dtype:
    """Return the type of numbers that `method.cache_dtype` names."""
    found: torch.dtype = getattr(torch, {"float8_e4m3": "float8_e4m3fn"}.get(name, name))
    return found


def reads_of(
    pairs: tuple[LayerPair, ...],
    *,
    width: int,
    maps: Mapping[int, AlignmentMap] | None = None,
    scales: Mapping[int, float] | None = None,
) -> dict[int, Read]:
    """Return what is read of the teacher for each student layer.

    Args:
        pairs: which teacher layers.
        width: of what is kept.
        maps: by student layer; None keeps the teacher's own states.
        scales: by student layer; None: one.
    """
    return {
        pair.student: Read(
            layers=pair.teacher,
            weights=pair.weights,
            width=width,
            map=maps[pair.student] if maps else None,
            scale=scales[pair.student] if scales else 1.0,
        )
        for pair in pairs
    }


def read_out(bench: Workbench) -> ReadOut | None:
    """Return how the objective wants the teacher's distributions; None: it does not."""
    if (outputs := bench.objective.outputs) is None:
        return None
    if outputs.ordered:
        rows = torch.arange(int(bench.teacher_config.vocab_size))
        return ReadOut(shared=rows, temperature=outputs.temperature, top_k=outputs.top_k, ordered=True)
    return ReadOut(
        shared=bench.pair_report.teacher_ids,
        temperature=outputs.temperature,
        top_k=outputs.top_k,
        counts_rest=counts_rest(bench),
    )


def chunk_read(bench: Workbench) -> ChunkRead | None:
    """Return how the objective wants the likelihoods of chunks; None: it does not."""
    if (chunks := bench.objective.chunks) is None:
        return None
    space = begins_word(bench, "teacher") if chunks.ends == "unbiased" else None
    return ChunkRead(ends=chunks.ends, space=space)


def attended_read(bench: Workbench) -> AttendedRead | None:
    """Return how the teacher's answers are kept for a term that attends to them; None: there is none."""
    return AttendedRead.of(bench.teacher.arch) if bench.objective.attends else None


def _pass(
    bench: Workbench, split: str, reads: Mapping[int, Read], *, interface: str, positions: str, outputs: bool
) -> Pass:
    """Return the one pass over a split that has all that is wanted of the teacher."""
    return Pass(
        arch=bench.teacher.arch,
        encoded=compared(bench, "teacher", split),
        reads=reads,
        interface=Interface(interface),
        positions=positions,
        outputs=read_out(bench) if outputs else None,
        chunks=chunk_read(bench) if outputs else None,
        attended=attended_read(bench) if outputs else None,
        meter=bench.teacher_meter,
    )


def _keeps_outputs(objective: Objective) -> bool:
    return objective.reads_outputs and not objective.live


def keep(
    bench: Workbench,
    reads: Mapping[int, Read],
    *,
    interface: str = "block",
    dtype: str = "float32",
    scratch: Path | None,
) -> tuple[dict[str, dict[int, States]], dict[str, TopRows]]:
    """Run the teacher over the rows of a training, and keep what the terms want of it.

    Args:
        bench: models and rows.
        reads: its states, by student layer.
        interface: where they are read.
        dtype: as which they are stored.
        scratch: folder for what is large; None: in memory.

    Returns:
        Split -> student layer -> states, and split -> distributions; both empty where the teacher runs beside the
        training (`capture.mode`).

    Raises:
        PktError: it is more than there is room for.
    """
    if bench.config.capture.mode != "keep":
        return {}, {}
    objective, outputs_too = bench.objective, _keeps_outputs(bench.objective)
    if not (reads or outputs_too):
        return {}, {}
    passes = {
        split: _pass(
            bench, split, reads, interface=interface, positions=objective.positions, outputs=outputs_too
        )
        for split in LOSS_SPLITS
    }
    check_room(bench, passes, dtype_of(dtype), scratch)
    targets, outputs = {}, {}
    for split, wanted in passes.items():
        with bench.track(f"teacher ({split})", len(wanted.encoded.lengths)) as advance:
            columns = capture_all(
                wanted,
                batch_size=bench.config.capture.batch_size or bench.config.optim.batch_size,
                dtype=dtype_of(dtype),
                shelf=shelf(bench, scratch, f"states/{split}"),
                listen=advance,
            )
        if reads:
            targets[split] = {layer: columns[column_of(layer)] for layer in reads}
        if (top := TopRows.among(columns)) is not None:
            outputs[split] = top
    return targets, outputs


def shelf(bench: Workbench, scratch: Path | None, name: str) -> Shelf | None:
    """Return a place in a stage's folder; None where there is no folder."""
    if scratch is None:
        return None
    limit = bench.config.capture.shard_mb * 10**6
    return Shelf(folder=scratch / name, limit=limit, processes=bench.processes)


def check_room(
    bench: Workbench, passes: Mapping[str, Pass], dtype: torch.dtype, scratch: Path | None
) -> None:
    """Refuse to keep more than is allowed, or than the disk has room for, and say what would fit.

    Raises:
        PktError: it is more.
    """
    if scratch is None:
        return

    def size(dtype: torch.dtype) -> int:
        return sum(column.bytes for own in passes.values() for column in own.columns(dtype).values())

    needed, tokens = size(dtype), sum(sum(own.encoded.lengths) for own in passes.values())
    room, limit = _room(bench, scratch)
    console.note(
        f"the teacher's states and outputs: {needed / max(tokens, 1):,.0f} bytes per token, {_gb(needed)} in all"
    )
    if needed <= room:
        return
    rows = sum(len(own.encoded.lengths) for own in passes.values())
    smaller = [
        f"method.cache_dtype={name} ({_gb(size(dtype_of(name)))})"
        for name in STORED
        if size(dtype_of(name)) < needed
    ]
    less = ", ".join([*smaller, "fewer layer pairs (mapping)", "fewer rows (data.sizes.train)"])
    raise PktError(
        f"the teacher's states and outputs of {rows:,} rows ({tokens:,} tokens) would take {_gb(needed)}, and "
        f"there is room for {limit}. Keep less: {less}; or keep nothing: capture.mode=window or live, which cost "
        "a pass of the teacher over the rows in every epoch."
    )


def prefix_shelf(bench: Workbench, scratch: Path | None, name: str, needed: int) -> Shelf | None:
    """Return where the states that enter a layer are kept; None: in memory, where they fit into one file.

    Raises:
        PktError: they are more than there is room for.
    """
    place = shelf(bench, scratch, name)
    if scratch is None or place is None or needed <= place.limit:
        return None
    room, limit = _room(bench, scratch)
    if needed > room:
        raise PktError(
            f"the states that enter the first trained layer would take {_gb(needed)}, and there is room for {limit}: "
            "set method.cache_prefix=false (the layers below run in every step then), or train on fewer rows."
        )
    return place


def _room(bench: Workbench, folder: Path) -> tuple[float, str]:
    """Return how many bytes may be kept in a folder, and what says so."""
    most = bench.config.capture.max_gb
    folder.mkdir(parents=True, exist_ok=True)
    free = _ROOM * shutil.disk_usage(folder).free
    if most is not None and most * 1e9 <= free:
        return most * 1e9, f"capture.max_gb={most:g}"
    return free, f"{_gb(int(free))} under {folder}"


def source_of(
    bench: Workbench, alignment: LayerAlignment, split: str, objective: Objective, layers: Sequence[int]
) -> Source:
    """Return what the teacher says of a split, as far as an objective wants it.

    Args:
        bench: models, rows and how what is wanted reaches the training.
        alignment: what was kept, or how it is read.
        split: whose rows.
        objective: the terms.
        layers: student layers whose targets the layer terms cover.
    """
    if bench.config.capture.mode == "keep":
        states = alignment.targets[split] if objective.layer_terms else {}
        return Kept(
            states={k: own for k, own in states.items() if k in layers},
            outputs=_outputs(bench, alignment, split) if objective.reads_outputs else None,
        )
    reads = live_reads(bench, alignment) if objective.layer_terms else {}
    reads = {k: read for k, read in reads.items() if k in layers}
    outputs = objective.reads_outputs
    if not (reads or outputs):
        return Kept()
    wanted = _pass(
        bench, split, reads, interface=alignment.interface, positions=alignment.positions, outputs=outputs
    )
    together = bench.config.capture.batch_size or 1
    return Live(wanted=wanted, together=together, dtype=dtype_of(alignment.dtype))


def live_reads(bench: Workbench, alignment: LayerAlignment) -> dict[int, Read]:
    """Return what is read of a teacher that runs beside the training."""
    if learns(bench.semantics) or not alignment.maps:
        return reads_of(alignment.pairs, width=bench.teacher.arch.width)
    width = bench.student.arch.width
    return reads_of(alignment.pairs, width=width, maps=alignment.maps, scales=alignment.scales)


def _outputs(bench: Workbench, alignment: LayerAlignment, split: str) -> TeacherOutput:
    if alignment.outputs:
        return alignment.outputs[split]
    encoded = None if bench.one_vocabulary else compared(bench, "teacher", split)
    wanted = read_out(bench)
    assert wanted is not None, "only distributions are asked for at every step"
    return LiveTeacher(
        arch=bench.teacher.arch,
        read_out=wanted,
        chunks=chunk_read(bench),
        attended=attended_read(bench),
        encoded=encoded,
        meter=bench.teacher_meter,
    )


def ahead(bench: Workbench, source: Source, order: Sequence[list[int]]) -> Ahead | None:
    """Return a source that is asked before its answers are needed; None where that gains nothing.

    Args:
        bench: models, rows, and how far ahead.
        source: of the train split.
        order: the rows of every forward pass of the training.
    """
    capture, encoded = bench.config.capture, bench.encoded("train")
    slow = capture.mode == "window" or (isinstance(source, Kept) and source.files > 1)
    if not (slow and capture.ahead):
        return None
    device = bench.student.arch.device
    return Ahead(
        source=source, order=order, make=lambda rows: collate(encoded, rows).to(device), most=capture.ahead
    )


@contextmanager
def reading_ahead(bench: Workbench, loss: TransferLoss, order: Sequence[list[int]]) -> Iterator[None]:
    """Let a loss ask for what the teacher says of the batches to come, where that takes time."""
    before = loss.targets
    if (source := ahead(bench, before.source, order)) is None:
        yield
        return
    loss.targets = replace(before, source=source)
    try:
        with source.running():
            yield
    finally:
        loss.targets = before


def _gb(size: int) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 1e7 else f"{size / 1e6:,.2f} MB"
