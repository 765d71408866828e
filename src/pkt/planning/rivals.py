"""What the stages of Seeking and LaTen take, which keep nothing of the teacher's states."""

from __future__ import annotations

from pkt.attribution.locate import ROWS_AT_ONCE
from pkt.attribution.neurons import CHUNK_NUMBERS
from pkt.methods.laten_results import MODULES
from pkt.models.surgery import ENDS
from pkt.planning import memory
from pkt.planning.cost import Cost
from pkt.planning.memory import DOUBLE, FLOAT, Item
from pkt.planning.rows import Counts
from pkt.planning.wanted import Wanted


def seeking_extract(wanted: Wanted, rows: Counts) -> Cost:
    """Return the cost of the sensitivity, summed on the disk row by row, and of the cuts."""
    own, teacher = rows["extract"], wanted.teacher
    batch = own.widest(1)
    d, q, m = teacher.width, teacher.queries, teacher.mlp
    per_layer = 2 * FLOAT * d + teacher.bytes * (4 * d + 4 * q + 4 * m)
    kept = Item(
        what="activations of one row", bytes=batch.padded * (per_layer * teacher.layers + 6 * d * FLOAT)
    )
    largest = max(outputs * inputs for role, (outputs, inputs) in _cut(wanted, of_teacher=True).items())
    gradient = Item(what="one gradient", bytes=largest * (teacher.bytes + FLOAT))
    window = Item(what="prefix sums of one matrix", bytes=largest * (FLOAT + 2 * DOUBLE))
    cuts = Item(what="the cut matrices", bytes=_matrices(wanted), host=True)
    held = memory.weights("teacher", teacher)
    ends = sum(
        outputs * inputs for role, (outputs, inputs) in _cut(wanted, of_teacher=True).items() if role in ENDS
    )
    inside = sum(o * i for role, (o, i) in _cut(wanted, of_teacher=True).items() if role not in ENDS)
    return Cost(
        rows=len(own),
        teacher_tokens=own.tokens,
        calls=3.0 * teacher.layers * len(own),
        operations=3 * teacher.forward(own.tokens, own.mean) + 2 * teacher.read_out(own.positions("answer")),
        moments={
            "sensitivity": (held, kept, gradient, memory.logits(teacher, batch.answers, 3)),
            "cutting": (held, cuts, window),
        },
        disk=cuts.bytes,
        scratch=8.0 * (inside * teacher.layers + ends),
    )


def _cut(wanted: Wanted, *, of_teacher: bool = False) -> dict[str, tuple[int, int]]:
    """Return the sizes of the matrices that are cut, by role."""
    sizes = (wanted.teacher if of_teacher else wanted.student).projections
    return {role: sizes[role] for role in wanted.targets if role in sizes}


def _matrices(wanted: Wanted) -> float:
    """Return bytes of the matrices of the student's sizes that are cut out of the teacher."""
    sizes = _cut(wanted).items()
    number = sum(o * i * (1 if role in ENDS else wanted.student.layers) for role, (o, i) in sizes)
    return float(number * wanted.teacher.bytes)


def seeking_align(wanted: Wanted, rows: Counts) -> Cost:
    """Return the cost of the singular directions of the cut matrices."""
    sizes = _cut(wanted)
    largest = max(outputs * inputs for outputs, inputs in sizes.values())
    adapters = FLOAT * (wanted.per_layer * wanted.student.layers + wanted.per_end)
    work = sum(
        20 * max(size) * min(size) ** 2 * (1 if role in ENDS else wanted.student.layers)
        for role, size in sizes.items()
    )
    held = (
        memory.weights("teacher", wanted.teacher),
        Item(what="the cut matrices", bytes=_matrices(wanted), host=True),
    )
    solve = Item(what="one matrix's decomposition", bytes=largest * FLOAT * 4)
    return Cost(operations=work, moments={"singular directions": (*held, solve)}, disk=adapters)


def laten_extract(wanted: Wanted, rows: Counts) -> Cost:
    """Return the cost of locating layers and neurons in both models."""
    own, teacher, student = rows["extract"], wanted.teacher, wanted.student
    batch, tokens = own.widest(ROWS_AT_ONCE), own.tokens - 2 * len(own)
    scores = Item(
        what="attention weights",
        bytes=batch.padded * batch.length * (teacher.queries // teacher.head) * FLOAT * 3,
    )
    inside = len(own) * (4 * teacher.width + teacher.mlp + 2 * teacher.queries) * teacher.layers * FLOAT
    read = 2 * teacher.vocabulary * teacher.width * FLOAT
    neurons = max(CHUNK_NUMBERS, teacher.vocabulary) * FLOAT * 3
    held = (memory.weights("teacher", teacher), memory.weights("student", student))
    gains = sum(
        2 * shape.vocabulary * shape.width * (shape.mlp + shape.queries) * student.layers
        for shape in (teacher, student)
    )
    gains += sum(
        4 * len(own) * shape.vocabulary * (shape.mlp + shape.queries) * student.layers
        for shape in (teacher, student)
    )
    return Cost(
        rows=len(own),
        teacher_tokens=tokens,
        student_tokens=tokens,
        layer_tokens=tokens * student.layers,
        operations=teacher.forward(tokens, own.mean) + student.forward(tokens, own.mean) + gains,
        moments={
            "inside the models": (*held, scores, Item(what="insides", bytes=inside, host=True)),
            "gains of neurons": (
                *held,
                Item(what="insides", bytes=inside, host=True),
                Item(what="the read-out, float32", bytes=read),
                Item(what="V-wide numbers of neurons", bytes=neurons),
            ),
        },
        disk=_sources(wanted) * teacher.width * teacher.bytes,
    )


def _sources(wanted: Wanted) -> float:
    """Return how many rows and columns of the teacher are taken, over the student's layers."""
    own = wanted.own["rho"]
    counts = (int(wanted.student.mlp * own + 1e-9), int(wanted.student.queries * own + 1e-9))
    return 2.0 * wanted.student.layers * sum(counts)


def laten_align(wanted: Wanted, rows: Counts) -> Cost:
    """Return the cost of the hypernetwork's few steps, with the student frozen."""
    own, student, teacher = wanted.own, wanted.student, wanted.teacher
    both = rows["align"] + rows["extract"]
    size = own["align_rows"] + own["extract_rows"]
    micro = wanted.config.optim.micro_batch_size or size
    batch = both.widest(micro)
    parameters = len(MODULES) * (teacher.width**2 + teacher.width * student.width)
    validation = rows["validation"]
    tokens = round(
        own["steps"] * (own["align_rows"] * rows["align"].mean + own["extract_rows"] * rows["extract"].mean)
    )
    taken = _sources(wanted)
    rest = (
        memory.weights("student", student),
        memory.weights("teacher", teacher),
        Item(what="the teacher's neurons", bytes=taken * teacher.width * teacher.bytes),
        Item(what="the hypernetwork, its gradients and moments", bytes=parameters * FLOAT * 4),
    )
    per_layer = memory.layer_numbers(wanted, trains=False)
    kept = Item(
        what="activations", bytes=batch.padded * (student.layers * per_layer + 6 * student.width * FLOAT)
    )
    deltas = Item(
        what="deltas and what made them", bytes=taken * FLOAT * (2 * teacher.width + 3 * student.width)
    )
    work = 2 * student.forward(tokens, both.mean) + 6 * taken * parameters / len(MODULES) * own["steps"]
    return Cost(
        rows=len(both) + len(validation),
        student_tokens=tokens + 2 * validation.tokens,
        layer_tokens=(tokens + 2 * validation.tokens) * student.layers,
        operations=work + student.forward(2 * validation.tokens, validation.mean),
        moments={"the hypernetwork's steps": (*rest, kept, deltas, memory.logits(student, batch.answers, 3))},
        disk=taken * student.width * FLOAT,
    )


def laten_transfer(wanted: Wanted, rows: Counts) -> Cost:
    """Return the cost of adding the delta to the student."""
    student, taken = wanted.student, _sources(wanted)
    delta = Item(what="deltas", bytes=taken * student.width * FLOAT)
    return Cost(
        moments={"adding the delta": (memory.weights("student", student), delta)}, disk=student.folder
    )
