"""What the training takes: passes, what trains, activations, and what was kept for it."""

from __future__ import annotations

from pkt.methods.keeping import LOSS_SPLITS
from pkt.planning import memory
from pkt.planning.cost import Cost
from pkt.planning.layers import kept_outputs, kept_states, maps, refitted
from pkt.planning.memory import FLOAT, Item
from pkt.planning.rows import Counts
from pkt.planning.schedule import Schedule
from pkt.planning.wanted import Wanted


def transfer(wanted: Wanted, rows: Counts) -> Cost:
    """Return the cost of the training, and of what it leaves: the student's folder and the adapter."""
    teacher, student, plan = wanted.teacher, wanted.student, Schedule(wanted=wanted, rows=rows)
    passes, taught = plan.passes, teacher.layers if wanted.outputs else wanted.deepest
    per_token = 2 * student.matrices + 4 * rows["train"].mean * student.queries
    operations = (passes.layer_tokens + passes.back) * per_token + passes.trained * 2 * student.matrices
    operations += student.read_out(passes.read) + teacher.forward(passes.taught, rows["train"].mean, taught)
    parameters = wanted.per_layer * len(wanted.trained) + wanted.per_end
    more = auxiliary(wanted)
    best = 2 if wanted.config.optim.keep == "best" else 1
    open_now = (wanted.per_layer if wanted.frontier else parameters) + more
    done = (parameters + more) * FLOAT if wanted.frontier else 0
    snapshots = 2 * open_now * FLOAT * (2 + best) + done
    adapter = 0 if wanted.full else FLOAT * parameters * (2 if wanted.method in ("Seeking", "Pissa") else 1)
    return Cost(
        rows=len(rows["train"]),
        teacher_tokens=passes.taught,
        student_tokens=passes.tokens,
        layer_tokens=passes.layer_tokens,
        operations=operations,
        # of as many rows as a forward pass has; gradients take twice as long
        calls=(passes.layer_tokens + 2 * passes.back)
        / max(rows["train"].mean * wanted.batch(rows["train"]).rows, 1),
        moments=_moments(wanted, rows, plan),
        disk=student.folder + adapter,
        scratch=snapshots + sum(size for size in _below(wanted, rows, plan) if size > wanted.shard),
    )


def auxiliary(wanted: Wanted) -> int:
    """Return the parameters that train beside the student: projections, or maps, and those of a term's attention."""
    teacher, student = wanted.teacher.width, wanted.student.width
    each = teacher * student * len(wanted.pairs)
    attention = 2 * teacher * (2 * student + 1) + student * (teacher + 1)
    return (each if wanted.projects or wanted.trains_maps else 0) + (
        attention if "Attended" in wanted.output_terms else 0
    )


def _moments(wanted: Wanted, rows: Counts, plan: Schedule) -> dict[str, tuple[Item, ...]]:
    """Return the moments of a training: its steps, where they are widest, and the optimiser's."""
    student, train = wanted.student, rows["train"]
    state, gradients, open_now = _state(wanted)
    held = [
        *memory.student(wanted),
        *([memory.weights("teacher", wanted.teacher)] if wanted.teaches else []),
    ]
    held += _carried(wanted, rows, plan)
    batch = wanted.batch(train)
    layers = wanted.trained[:1] if wanted.frontier else wanted.trained
    compared = 1 if wanted.frontier else len(wanted.pairs)
    last = student.layers if wanted.output_terms else max(layers)
    kept = memory.activations(wanted, batch, layers, last)
    terms = memory.layer_terms(wanted, batch, compared)
    grown = Item(what="gradients", bytes=open_now * FLOAT / max(len(layers), 1))
    fixed = (*held, *state)
    end = Item(what="activations of a layer", bytes=batch.padded * memory.layer_numbers(wanted, trains=True))
    matrix = max(o * i for role, (o, i) in student.projections.items() if role not in ("embed", "head"))
    shared_out = {"sharing out the layers": _whole(wanted)} if wanted.shards else {}
    return shared_out | {
        "the terms": (*fixed, kept, terms, memory.output_terms(wanted, batch, compared)),
        "the backward pass": (*fixed, kept, grown, memory.backward(wanted, batch)),
        "the end of the backward pass": (*fixed, *gradients, end, memory.backward(wanted, batch)),
        "AdamW": (
            *fixed,
            *gradients,
            Item(what="a step's numbers", bytes=FLOAT * matrix * wanted.full),
        ),
        "validation": (
            *fixed,
            memory.frozen_pass(student, rows["validation"].widest(wanted.config.optim.batch_size), compared),
        ),
    }


def _state(wanted: Wanted) -> tuple[list[Item], list[Item], int]:
    """Return what training keeps beside the student, the gradients, and how many parameters train at a time.

    What trains beside the student's layers is whole in every process.
    """
    layers, more = wanted.per_layer * len(wanted.trained), wanted.per_end + auxiliary(wanted)
    at_once = wanted.per_layer if wanted.frontier else layers
    beside = auxiliary(wanted) if wanted.frontier else more
    if wanted.shards:
        states = [
            memory.training(wanted, layers, at_once, of=" (layers)", divided=True),
            memory.training(wanted, more, beside, of=" (beside them)"),
        ]
    else:
        states = [memory.training(wanted, layers + more, at_once + beside)]
    gradients = [state.pop("gradients") for state in states if "gradients" in state]
    return [item for state in states for item in state.values()], gradients, at_once + beside


def _whole(wanted: Wanted) -> tuple[Item, ...]:
    """Return what each process has before the layers are shared out, and again after."""
    trains = wanted.per_layer * len(wanted.trained)
    held = memory.training(wanted, trains, 0).values()
    return (memory.weights("student", wanted.student), *held)


def _carried(wanted: Wanted, rows: Counts, plan: Schedule) -> list[Item]:
    """Return what is in memory of what `align` kept, and of the states that enter the first layer that trains."""
    found = list[Item]()
    if wanted.layer_terms:
        found.append(Item(what="states of the align rows", bytes=refitted(wanted, rows), host=True))
        found.append(Item(what="maps", bytes=maps(wanted) * (2 if wanted.learns else 1)))
    found.append(_waiting(wanted, rows))
    small = sum(size for size in _below(wanted, rows, plan) if size <= wanted.shard)
    found.append(Item(what="states below what trains", bytes=small, host=True, divided=True))
    if wanted.teaches:
        together = wanted.config.capture.batch_size or (1 if not wanted.keeps else wanted.micro)
        found.append(memory.frozen_pass(wanted.teacher, rows["train"].widest(together), len(wanted.pairs)))
    return [item for item in found if item.bytes]


def _waiting(wanted: Wanted, rows: Counts) -> Item:
    """Return what the teacher says of batches to come, which is read or computed before it is needed."""
    kept = kept_states(wanted, [rows["train"]]) + kept_outputs(wanted, rows)
    slow = wanted.config.capture.mode == "window" or kept > wanted.shard
    batch, outputs = wanted.batch(rows["train"]), wanted.outputs
    each = batch.positions(wanted.positions) * wanted.target_width * len(wanted.pairs) * wanted.read_as
    each += batch.answers * outputs.kept * (FLOAT + 4) if outputs else 0
    return Item(what="batches to come", bytes=each * wanted.config.capture.ahead if slow else 0)


def _below(wanted: Wanted, rows: Counts, plan: Schedule) -> list[float]:
    """Return the bytes of the states that enter the first layer that trains, per split; on disk where they are many."""
    last = max(wanted.trained) if wanted.frontier else plan.first
    if last <= 1:
        return []
    # the next prefix is made of the one before
    both = 2 if wanted.frontier and len(wanted.trained) > 1 else 1
    each = wanted.student.width * wanted.student.bytes
    return [float(rows[split].tokens * each) for split in LOSS_SPLITS for _ in range(both)]
