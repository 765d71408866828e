"""What the stages of layer-wise methods take before the training: scores of layers, maps, kept states and outputs."""

from __future__ import annotations

from collections.abc import Sequence

from pkt.attribution.similarity import MEMORY
from pkt.methods.keeping import LOSS_SPLITS
from pkt.planning import memory
from pkt.planning.cost import Cost
from pkt.planning.memory import FLOAT, Item
from pkt.planning.rows import Counts, Rows
from pkt.planning.wanted import Wanted
from pkt.semantics import quality
from pkt.semantics.massive import BLOCK
from pkt.semantics.ridge import ALPHAS


def calls(rows: Rows, wanted: Wanted, layers: int) -> float:
    """Return how often layers are called where all rows go through them."""
    return float(-(-len(rows) // wanted.config.optim.batch_size) * layers)


def extract_layers(wanted: Wanted, rows: Counts) -> Cost:
    """Return the cost of scores and similarities of layers; without either a mapping takes nothing."""
    own, teacher, student = rows["extract"], wanted.teacher, wanted.student
    batch = own.widest(wanted.config.optim.batch_size)
    loaded, operations, taught, learnt = [memory.weights("teacher", teacher)], 0.0, 0, 0
    moments: dict[str, tuple[Item, ...]] = {}
    if wanted.scores:
        moments["attribution"] = (
            *loaded,
            memory.attribution(teacher, batch),
            memory.logits(teacher, batch.answers, 3),
        )
        operations += 2 * teacher.forward(own.tokens, own.mean) + 2 * teacher.read_out(
            own.positions("answer")
        )
        taught += own.tokens
    if wanted.similarity:
        loaded.append(memory.weights("student", student))
        sums = memory.similarity(teacher, student, batch, own.tokens, MEMORY)
        moments["similarity of layers"] = (*loaded, sums)
        operations += teacher.forward(own.tokens, own.mean) + student.forward(own.tokens, own.mean)
        wide = teacher.layers * teacher.width, student.layers * student.width
        operations += 2 * own.tokens * (wide[0] * wide[1] + wide[0] * teacher.width + wide[1] * student.width)
        taught, learnt = taught + own.tokens, own.tokens
    return Cost(
        rows=len(own) if moments else 0,
        teacher_tokens=taught,
        student_tokens=learnt,
        layer_tokens=learnt * student.layers,
        operations=operations,
        calls=calls(
            own,
            wanted,
            2 * teacher.layers * wanted.scores + (teacher.layers + student.layers) * wanted.similarity,
        ),
        moments=moments,
        disk=4096 + (24 * teacher.layers * student.layers if wanted.similarity else 0),
    )


def align_layers(wanted: Wanted, rows: Counts) -> Cost:
    """Return the cost of maps, and of the one pass of the teacher that has all that is kept of it."""
    fits, splits = not wanted.projects, [rows[split] for split in LOSS_SPLITS]
    own = rows["align"] if fits else Rows()
    taught = sum(split.tokens for split in splits) if wanted.keeps else 0
    passed = _passed(wanted, rows)
    kept = kept_states(wanted, splits) + kept_outputs(wanted, rows)
    return Cost(
        rows=sum(map(len, splits)) + len(own),
        teacher_tokens=taught + own.tokens,
        student_tokens=own.tokens,
        layer_tokens=own.tokens * max(wanted.students),
        operations=_align_operations(wanted, rows, own),
        calls=sum(calls(split, wanted, passed) for split in splits) * wanted.keeps
        + calls(own, wanted, wanted.deepest + max(wanted.students)),
        moments=_align_moments(wanted, rows, kept, fits=fits),
        disk=kept + maps(wanted) + refitted(wanted, rows) + _places(wanted, rows),
        kept=kept,
    )


def kept_states(wanted: Wanted, splits: Sequence[Rows]) -> float:
    """Return the bytes of what is kept of the teacher's states, all rows and pairs."""
    if not (wanted.keeps and wanted.pairs):
        return 0.0
    positions = sum(own.positions(wanted.positions) for own in splits)
    return float(positions * wanted.stored(wanted.target_width) * len(wanted.pairs))


def _passed(wanted: Wanted, rows: Counts) -> int:
    """Return the layers of the teacher that its pass goes through."""
    return wanted.teacher.layers if kept_outputs(wanted, rows) else wanted.deepest


def _align_operations(wanted: Wanted, rows: Counts, own: Rows) -> float:
    """Return the operations of the pass over all splits, of the fits (`own`: their rows), and of the maps."""
    teacher, student, splits = wanted.teacher, wanted.student, [rows[split] for split in LOSS_SPLITS]
    found = 0.0
    if len(own):
        found += teacher.forward(own.tokens, own.mean, wanted.deepest)
        found += student.forward(own.tokens, own.mean, max(wanted.students)) + _fit_operations(wanted, rows)
    if not wanted.keeps:
        return found
    found += teacher.forward(sum(split.tokens for split in splits), splits[0].mean, _passed(wanted, rows))
    if len(own) and not wanted.learns:
        mapped = sum(split.positions(wanted.positions) for split in splits)
        found += 2.0 * mapped * len(wanted.pairs) * teacher.width * student.width
    if kept_outputs(wanted, rows):
        found += teacher.read_out(sum(split.positions("answer") for split in splits))
    return found


def _align_moments(wanted: Wanted, rows: Counts, kept: float, *, fits: bool) -> dict[str, tuple[Item, ...]]:
    """Return the moments: the fit of a map, its quality card, and the teacher's pass."""
    teacher = wanted.teacher
    both = (memory.weights("teacher", teacher), memory.weights("student", wanted.student))
    held = (*both, *_fitted(wanted, rows))
    found = {}
    if fits:
        found["fitting the maps"] = (*held, _fit(wanted))
        found["judging the maps"] = (*held, *_judged(wanted, rows))
    if wanted.keeps:
        found["the teacher's pass"] = (*held, *_kept_now(wanted, rows, kept, len(wanted.pairs)))
    return found or {"nothing is kept": both}


def _kept_now(wanted: Wanted, rows: Counts, kept: float, tapped: int) -> list[Item]:
    """Return what the teacher's pass over the splits holds, and the file that is being filled."""
    size = wanted.config.capture.batch_size or wanted.config.optim.batch_size
    widest = max((rows[split].widest(size) for split in LOSS_SPLITS), key=lambda batch: batch.padded)
    found = [memory.frozen_pass(wanted.teacher, widest, tapped), memory.shard(wanted, kept)]
    if kept_outputs(wanted, rows):
        found.append(memory.logits(wanted.teacher, widest.answers, 3))
    return found


def _judged(wanted: Wanted, rows: Counts) -> list[Item]:
    """Return what judging a map holds: a block of both sides in float64, and logits where the head reads them."""
    positions = min(BLOCK, rows["align"].positions(wanted.positions))
    block = positions * (FLOAT * wanted.teacher.width + 3 * memory.DOUBLE * wanted.student.width)
    logits = (
        FLOAT * quality.CHUNK * wanted.student.vocabulary * 5 if wanted.own["interface"] == "block" else 0
    )
    return [
        Item(what="a block of states, float64", bytes=block),
        Item(what="logits of a chunk", bytes=logits),
    ]


def kept_outputs(wanted: Wanted, rows: Counts) -> float:
    """Return the bytes of kept distributions: log-probability and token of each kept one, and the log tail."""
    if (outputs := wanted.outputs) is None or outputs.live or not wanted.keeps:
        return 0.0
    whole = outputs.kept >= min(wanted.teacher.vocabulary, wanted.student.vocabulary)
    width = outputs.kept * FLOAT if whole or not outputs.named else outputs.kept * (FLOAT + 4) + FLOAT
    return float(sum(rows[split].positions("answer") for split in LOSS_SPLITS) * width)


def _fitted(wanted: Wanted, rows: Counts) -> list[Item]:
    """Return what fitting maps holds: both models' states on the align rows in float32, and the maps."""
    if wanted.projects:
        return []
    width, count = wanted.teacher.width + wanted.student.width, len(wanted.pairs)
    states = memory.kept(
        "both models' states, align rows", [rows["align"]], wanted.positions, width * count, FLOAT
    )
    return [states, Item(what="maps", bytes=maps(wanted))]


def maps(wanted: Wanted) -> float:
    """Return bytes of the maps: one per pair where states decide it, else one for all."""
    if wanted.projects or wanted.map == "Identity":
        return 0.0
    count = len(wanted.pairs) if wanted.fitted else 1
    vectors = wanted.teacher.width + wanted.student.width if wanted.fitted else 0
    kept = wanted.config.semantics.get("top_k")
    bases = (wanted.teacher.vocabulary * (wanted.teacher.width + wanted.student.width)) if kept else 0
    return FLOAT * (count * (wanted.teacher.width * wanted.student.width + vectors) + bases)


def _fit(wanted: Wanted) -> Item:
    if wanted.fitted:
        return memory.fit(wanted.teacher, wanted.student, svd=wanted.map == "Procrustes")
    return memory.heads_fit(wanted.teacher, wanted.student)


def _fit_operations(wanted: Wanted, rows: Counts) -> float:
    """Return the operations of the fits, in float64 counted double: products, and some n^3 of each solve."""
    t, s, pairs = wanted.teacher.width, wanted.student.width, len(wanted.pairs)
    positions = rows["align"].positions(wanted.positions)
    cards: float = pairs * 2 * (2 * (2 * positions * t * s) + 10 * min(t, s) ** 3)
    if wanted.own["interface"] == "block":
        cards += pairs * 2 * wanted.student.read_out(min(quality.READ, positions))
    if wanted.fitted:
        return cards + pairs * 2 * (2 * positions * t * (t + s) + _solve_operations(wanted, positions))
    if wanted.map == "Identity":
        return cards
    rows_v = wanted.teacher.vocabulary
    return cards + 2 * (2 * rows_v * (2 * t * t + 2 * s * s + t * s) + 12 * (t**3 + s**3))


def _solve_operations(wanted: Wanted, positions: int) -> float:
    """Return the operations of one map's solve; what eigenvectors take was measured, in products of matrices."""
    t, s = wanted.teacher.width, wanted.student.width
    if wanted.map == "Procrustes":
        return 40 * min(t, s) ** 3 + 2 * t * t * s
    found = t**3 / 3 + 2 * t * t * s
    if getattr(wanted.semantics, "alpha", 0) is None:  # chosen on positions left out
        found += 10 * t**3 + 2 * t * t * s + positions * (2 * t * t + len(ALPHAS) * 2 * t * s)
    return found


def refitted(wanted: Wanted, rows: Counts) -> float:
    """Return bytes of the align rows' states, which are stored where maps are fitted again."""
    if wanted.projects or wanted.refit == "never":
        return 0.0
    return float(rows["align"].positions(wanted.positions) * wanted.teacher.width * len(wanted.pairs) * FLOAT)


def _places(wanted: Wanted, rows: Counts) -> float:
    """Return the bytes that say where rows are in what is kept: some six characters a number, and headers."""
    if not wanted.keeps:
        return 400.0 * len(wanted.pairs)
    columns = len(wanted.pairs) + (3 if kept_outputs(wanted, rows) else 0)
    return 6.0 * sum(len(rows[split]) for split in LOSS_SPLITS) * (columns + 1) + 1200.0 * max(
        len(wanted.pairs), 1
    )


def align_outputs(wanted: Wanted, rows: Counts) -> Cost:
    """Return the cost of keeping the teacher's distributions alone."""
    if not (kept := kept_outputs(wanted, rows)):
        return Cost(disk=1024)
    teacher, splits = wanted.teacher, [rows[split] for split in LOSS_SPLITS]
    tokens = sum(own.tokens for own in splits)
    return Cost(
        rows=sum(map(len, splits)),
        teacher_tokens=tokens,
        calls=sum(calls(own, wanted, teacher.layers) for own in splits),
        operations=teacher.forward(tokens, splits[0].mean)
        + teacher.read_out(sum(own.positions("answer") for own in splits)),
        moments={
            "the teacher's pass": (memory.weights("teacher", teacher), *_kept_now(wanted, rows, kept, 0))
        },
        disk=kept + _places(wanted, rows),
        kept=kept,
    )
