"""What every stage of a request takes, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable

from pkt.planning import memory
from pkt.planning.cost import Cost
from pkt.planning.layers import align_layers, align_outputs, extract_layers
from pkt.planning.memory import Item
from pkt.planning.rivals import laten_align, laten_extract, laten_transfer, seeking_align, seeking_extract
from pkt.planning.rows import Counts, Rows, Scored
from pkt.planning.training import transfer
from pkt.planning.wanted import Wanted


def costs(wanted: Wanted, rows: Counts) -> dict[str, Cost]:
    """Return what each stage takes, in the order in which they run: those of the method where its student is scored."""
    found: dict[str, Cost] = {}
    own = wanted.config.eval
    if "transferred" in own.models and own.checkpoint is None:
        if wanted.taught:
            found["answer"] = answer(wanted, rows)
            rows = _taught(wanted, rows)
        for stage, of_method in {"extract": EXTRACTS, "align": ALIGNS, "transfer": TRANSFERS}.items():
            if stage in (*wanted.strategy.results, "transfer"):
                layers = of_method["LayerWise"] if wanted.layerwise else None
                found[stage] = (layers or of_method[wanted.method])(wanted, rows)
    return found | {f"eval {role}": scores(wanted, rows, role) for role in own.models}


def _taught(wanted: Wanted, rows: Counts) -> Counts:
    """Return the rows with the teacher's answers among the train rows, as many tokens as labels have."""
    labelled, own = rows["train"], wanted.config.answer
    alone = wanted.config.data.unlabelled is None
    count = round(len(rows.prompts) * own.samples * (own.share if own.keep == "confident" else 1))
    answers = (rows.prompts.lengths * own.samples)[:count], (rows.prompts.answers * own.samples)[:count]
    more = Rows(lengths=answers[0], answers=answers[1])
    return Counts(
        splits=rows.splits | {"train": more if alone else labelled + more},
        prompts=rows.prompts,
        scored=rows.scored,
        told=rows.told,
    )


def answer(wanted: Wanted, rows: Counts) -> Cost:
    """Return the cost of the teacher's answers: each is generated with a cache, then read once more."""
    own, shape, prompts = wanted.config.answer, wanted.teacher, rows.prompts
    tokens = 2 * prompts.tokens * own.samples
    new = max(prompts.answers, default=0)
    cache = 2 * shape.layers * shape.keys * shape.bytes
    batch = prompts.widest(max(1, own.batch_size // own.samples))
    alive = Item(what="keys and values", bytes=batch.padded * own.samples * cache)
    read = memory.logits(shape, batch.rows * own.samples, 2)
    return Cost(
        rows=len(prompts) * own.samples,
        teacher_tokens=tokens,
        operations=shape.forward(tokens, prompts.mean)
        + shape.read_out(2 * sum(prompts.answers) * own.samples),
        calls=float(shape.layers * new * -(-len(prompts) * own.samples // own.batch_size)),
        reads=shape.weights * new * -(-len(prompts) * own.samples // own.batch_size),
        moments={"generating": (memory.weights("teacher", shape), alive, read)},
        disk=prompts.tokens * own.samples * 8,
    )


def scores(wanted: Wanted, rows: Counts, role: str) -> Cost:
    """Return the cost of scoring a model."""
    shape = wanted.teacher if role == "teacher" else wanted.student
    own = wanted.config.eval
    tokens = sum(scored.rows.tokens * own.samples for scored in rows.scored)
    writes = [scored for scored in rows.scored if scored.writes]
    new = sum(_written(scored, own.batch_size, own.samples) for scored in writes)
    batches = [scored.rows.widest(own.batch_size) for scored in rows.scored]
    wide = max(batches, key=lambda batch: batch.padded, default=Rows().widest(1))
    cache = 2 * shape.layers * shape.keys * shape.bytes if writes else 0
    return Cost(
        rows=sum(len(scored.rows) for scored in rows.scored),
        teacher_tokens=tokens if role == "teacher" else 0,
        student_tokens=0 if role == "teacher" else tokens,
        operations=sum(shape.forward(scored.rows.tokens, scored.rows.mean) for scored in rows.scored)
        * own.samples
        + shape.read_out(sum(scored.rows.positions("answer") for scored in rows.scored) * own.samples),
        calls=float(shape.layers * (new + sum(len(scored.rows) for scored in rows.scored) / own.batch_size)),
        reads=float(shape.weights * new),
        moments={
            "scoring": (
                memory.weights("model", shape),
                Item(what="keys and values", bytes=wide.padded * cache),
                memory.frozen_pass(shape, wide, 0),
                memory.logits(shape, wide.rows if writes else wide.answers, 2),
            )
        },
        disk=tokens * 8.0,
    )


def _written(scored: Scored, batch: int, samples: int) -> int:
    """Return how many passes write answers: one a token, for a batch at a time."""
    return max(scored.rows.answers, default=0) * -(-len(scored.rows) * samples // batch)


def nothing(wanted: Wanted, rows: Counts) -> Cost:
    """Return the cost of a method that changes nothing, and saves the student."""
    held = (memory.weights("student", wanted.student),)
    return Cost(moments={"saving": held}, disk=wanted.student.folder)


Stage = Callable[[Wanted, Counts], Cost]
EXTRACTS: dict[str, Stage] = {
    "LayerWise": extract_layers,
    "Seeking": seeking_extract,
    "LaTen": laten_extract,
}
ALIGNS: dict[str, Stage] = {
    "LayerWise": align_layers,
    "Kd": align_outputs,
    "Seeking": seeking_align,
    "LaTen": laten_align,
}
TRANSFERS: dict[str, Stage] = {
    **dict.fromkeys(("LayerWise", "Kd", "Sft", "SeqKd", "Pissa", "Seeking"), transfer),
    "LaTen": laten_transfer,
    "Identity": nothing,
}
