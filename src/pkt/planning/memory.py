"""What is in memory at a moment, one function per ingredient; bytes, closed forms of what the code keeps now.

Tests compare the training step with the real one, run without allocating anything (`tests/unit/test_planning_step.py`).
Letters: d width, q channels of the query heads, m channels of the MLP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pkt.objectives.chunks import CHUNK
from pkt.planning.rows import Batch, Rows
from pkt.planning.shapes import Shape
from pkt.planning.wanted import Wanted
from pkt.semantics.massive import BLOCK

FLOAT, DOUBLE, HALF = 4, 8, 2
# V-wide float32 numbers per position that a term which reads logits keeps for its backward pass, and more of them there
V_WIDE = {
    "Attended": (3, 3),
    "Chunk": (2, 3),
    "CrossEntropy": (1, 2),
    "Divergence": (2, 3),
    "Fisher": (2, 3),
    "OutputCosine": (0, 0),
    "Uld": (2, 3),
}
PER_STATE = 4  # float32 numbers that a layer term keeps per channel: state, target, and both scaled


@dataclass(frozen=True, kw_only=True)
class Item:
    """One ingredient of a moment.

    Attributes:
        what: its name in the table.
        bytes: its size.
        host: whether it is in the machine's memory even where models are on a GPU.
        divided: whether several processes share it out.
    """

    what: str
    bytes: float
    host: bool = False
    divided: bool = False


def weights(who: str, shape: Shape) -> Item:
    """Return a loaded model."""
    return Item(what=f"{who}'s weights", bytes=shape.weights, divided=shape.spread)


def kept(what: str, rows: Iterable[Rows], which: str, width: float, number: int) -> Item:
    """Return numbers that are kept for every position of some rows, in the machine's memory."""
    positions = sum(own.positions(which) for own in rows)
    return Item(what=what, bytes=positions * width * number, host=True, divided=True)


def shard(wanted: Wanted, size: float) -> Item:
    """Return the file of kept numbers that is being filled: its parts, and what they are joined to."""
    return Item(what="a file of what is kept", bytes=2 * min(size, wanted.shard), host=True)


def frozen_pass(shape: Shape, batch: Batch, tapped: int) -> Item:
    """Return what a forward pass without gradients holds: one layer's numbers, and the states that are tapped."""
    widest = 3 * shape.mlp + 4 * shape.width
    return Item(
        what="a pass without gradients", bytes=batch.padded * shape.bytes * (widest + tapped * shape.width)
    )


def logits(shape: Shape, positions: int, copies: float) -> Item:
    """Return V-wide float32 numbers of a chunk of positions."""
    return Item(what="logits of a chunk", bytes=min(positions, CHUNK) * shape.vocabulary * FLOAT * copies)


def layer_numbers(wanted: Wanted, *, trains: bool) -> float:
    """Return bytes per token that a layer keeps for the backward pass.

    The norms keep what enters them, attention its queries, keys and values (repeated to the query heads) and what
    leaves it, the MLP gate, activation and up. Where weights train, what enters each matrix is kept too.
    """
    shape, half = wanted.student, autocast(wanted)
    d, q, m = shape.width, shape.queries, shape.mlp * (1 if shape.gated else 2 / 3)
    number = HALF if half else FLOAT
    frozen = 2 * FLOAT * d + number * (4 * q + 3 * m)
    if not trains:
        return frozen
    if not wanted.full:
        roles = set(wanted.targets)
        read = d * bool(roles & {"q", "k", "v"}) + d * bool(roles & {"up", "gate"}) + m * ("down" in roles)
        return frozen + number * (read + (q if half and "o" in roles else 0))
    if not half:
        return frozen + FLOAT * (4 * d + m)
    # a norm in float32 gives float32, of which each matrix makes a copy of its own
    return frozen + HALF * m + (2 * shape.bytes + 5 * HALF) * d


def autocast(wanted: Wanted) -> bool:
    """Return whether the student runs in bfloat16."""
    return wanted.config.optim.precision == "bfloat16" or wanted.student.bytes == HALF


def activations(wanted: Wanted, batch: Batch, trained: Iterable[int], last: int) -> Item:
    """Return what a forward pass keeps for the backward pass: the layers from the first that trains on."""
    trains, shape = set(trained), wanted.student
    first = min(trains)
    if wanted.config.optim.checkpointing:  # only what enters each layer
        per_token = (last - first + 1.0) * shape.width * shape.bytes
    else:
        per_token = sum(layer_numbers(wanted, trains=layer in trains) for layer in range(first, last + 1))
    # the final norm, the gradient of the residual stream, masks and positions
    per_token += 6 * shape.width * FLOAT
    copies = (last - first + 1) * shape.layer * HALF if autocast(wanted) and copied(wanted) else 0
    return Item(what="activations", bytes=batch.padded * per_token + copies)


def copied(wanted: Wanted) -> bool:
    """Return whether autocast makes copies of weights: of those in float32."""
    return wanted.full or wanted.student.bytes == FLOAT


def backward(wanted: Wanted, batch: Batch) -> Item:
    """Return the gradients that are alive inside a layer, and its numbers where it is run again for them."""
    number = HALF if autocast(wanted) else FLOAT
    again = layer_numbers(wanted, trains=True) if wanted.config.optim.checkpointing else 0
    return Item(
        what="gradients inside a layer", bytes=batch.padded * (2.5 * wanted.student.mlp * number + again)
    )


def layer_terms(wanted: Wanted, batch: Batch, layers: int) -> Item:
    """Return what layer terms keep of states and targets of the paired layers that a step compares."""
    width = max(wanted.student.width, wanted.target_width)
    per_pair = sum(PER_STATE * batch.positions(own["positions"]) * width for _, own in wanted.layer_terms)
    return Item(what="states and targets of the terms", bytes=per_pair * layers * FLOAT)


def output_terms(wanted: Wanted, batch: Batch, layers: int) -> Item:
    """Return the V-wide numbers of a step's terms, where they peak."""
    readers = [(name, batch.answers, 1) for name in wanted.output_terms]
    fisher = [own for name, own in wanted.layer_terms if name == "Fisher"]
    readers = [("Fisher", batch.positions(own["positions"]), layers) for own in fisher] + readers
    held = most = 0.0
    for name, positions, times in readers:
        keeps, more = V_WIDE[name]
        if positions <= CHUNK:  # one chunk is kept, several are computed again
            held += keeps * positions * times
            most = max(most, held + more * positions)
        else:
            most = max(most, held + (keeps + more) * CHUNK)
    return Item(what="logits of a chunk", bytes=most * wanted.student.vocabulary * FLOAT)


def student(wanted: Wanted) -> tuple[Item, ...]:
    """Return the student as it is loaded; in parts where processes share out its layers, of which two are whole."""
    shape = wanted.student
    if not wanted.shards:
        return (weights("student", shape),)
    layers = shape.layers * shape.layer * shape.bytes
    return (
        Item(what="the student's layers", bytes=layers, divided=True),
        Item(what="the student's embeddings and head", bytes=shape.weights - layers),
        Item(what="two layers, whole", bytes=2 * shape.layer * (FLOAT if wanted.full else shape.bytes)),
    )


def training(
    wanted: Wanted, trained: int, open_now: int, *, of: str = "", divided: bool = False
) -> dict[str, Item]:
    """Return what training keeps beside the student.

    Args:
        wanted: the request.
        trained: parameters that train in the course of it.
        open_now: those that train at the same time.
        of: what they belong to, where there are several.
        divided: whether processes share them out.
    """
    held = trained * (FLOAT - (wanted.student.bytes if wanted.full else 0))
    best = open_now if wanted.config.optim.keep == "best" else 0
    found = {
        "what trains, in float32": held,
        "gradients": open_now * FLOAT,
        "AdamW's moments": open_now * 2 * FLOAT,
        "the best weights so far": best * FLOAT,
    }
    return {what: Item(what=what + of, bytes=size, divided=divided) for what, size in found.items() if size}


def fit(teacher: Shape, student: Shape, *, svd: bool) -> Item:
    """Return the float64 sums of one map that is fitted on states, its solve and a block of positions."""
    widths = teacher.width**2 * (3 if not svd else 1) + teacher.width * student.width * (2 if not svd else 4)
    return Item(
        what="sums of a map's fit, float64", bytes=DOUBLE * (widths + BLOCK * (teacher.width + student.width))
    )


def heads_fit(teacher: Shape, student: Shape) -> Item:
    """Return the float64 Gram matrices of both heads, their eigenvectors, and the matrix between them."""
    squares = 4 * max(teacher.width, student.width) ** 2 + teacher.width**2 + student.width**2
    between = 2 * teacher.width * student.width
    return Item(what="Gram matrices of the heads, float64", bytes=DOUBLE * (squares + between))


def attribution(teacher: Shape, batch: Batch) -> Item:
    """Return what a backward pass through the frozen teacher keeps, states and their gradients at every layer."""
    d, q, m = teacher.width, teacher.queries, teacher.mlp
    per_layer = 2 * FLOAT * d + teacher.bytes * (4 * q + 3 * m + 2 * d)
    return Item(
        what="activations of the teacher", bytes=batch.padded * (teacher.layers * per_layer + 2.5 * m * FLOAT)
    )


def similarity(teacher: Shape, student: Shape, batch: Batch, positions: int, memory: int) -> Item:
    """Return the sums that all pairs of layers are compared by: moments, or Gram matrices where these are too large."""
    sides = ((teacher.layers, teacher.width), (student.layers, student.width))
    moments = DOUBLE * (
        sides[0][0] * sides[0][1] * sides[1][0] * sides[1][1] + sum(n * d**2 for n, d in sides)
    )
    grams = min(memory, DOUBLE * (teacher.layers + student.layers) * positions**2)
    sums = moments if moments <= memory else grams
    states = batch.tokens * sum(n * d for n, d in sides) * (FLOAT + DOUBLE)
    return Item(what="similarity of all pairs of layers", bytes=sums + states)


def total(
    items: Iterable[Item], *, on: Callable[[Item], bool] = lambda _item: True, processes: int = 1
) -> float:
    """Return the bytes of a moment's items in one process."""
    return sum(item.bytes / (processes if item.divided else 1) for item in items if on(item))
