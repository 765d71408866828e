"""What the teacher says of a batch: read from what was kept, or computed when it is needed.

    batch ── Kept ──> its rows' states and distributions, from memory or disk
          ── Live ──> the teacher runs ──────────────────> the same
          ── Ahead ─> either of them, for the batches to come, while the student trains

Tokens are positions in the list of ids that both models have (`ReadOut.shared`), so padded heads line up; of two
vocabularies one more stands for all others.
Shape suffixes: N positions of all rows, n positions of a batch, K kept tokens, D width.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from pkt.data.batching import Batch, collate, position_mask
from pkt.data.encoding import Encoded
from pkt.late import Tensor, torch
from pkt.models.architecture import Architecture
from pkt.models.taps import decode
from pkt.objectives import Distributions, TokenDistribution
from pkt.training.attended import ATTENDED, AttendedRead
from pkt.training.chunked import CHUNKS, ChunkRead
from pkt.training.meter import Meter
from pkt.training.passes import LOG_PROBS, LOG_TAIL, TOKENS, Pass, ReadOut, column_of
from pkt.training.shards import ShardStates, rounded
from pkt.training.states import States

_FIRST = {LOG_PROBS, CHUNKS, ATTENDED}  # one of these is among the columns where outputs are wanted
_RUNNING = threading.Lock()  # hooks make a model's layers one pass's own while it runs


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the teacher says of a batch's rows.

    Attributes:
        states: per paired student layer, (n, D) at the positions that are kept of each row, row after row.
        outputs: distributions at answer positions, row after row; None where no term reads them.
    """

    states: Mapping[int, Tensor] = field(default_factory=dict)
    outputs: Distributions | None = None


class Source(Protocol):
    """Something that knows what the teacher says."""

    def of(self, batch: Batch) -> Given:
        """Return it for a batch, on the batch's device."""
        ...

    def count(self, batch: Batch) -> None:
        """Add what a batch costs the teacher to its meter; apart from `of`, which may run long before."""
        ...


class TeacherOutput(Protocol):
    """A source of the teacher's distributions."""

    def of(self, batch: Batch) -> Distributions:
        """Return those of a batch's answer positions, row after row, on the batch's device."""
        ...

    def count(self, batch: Batch) -> None:
        """Add what a batch costs the teacher to its meter."""
        ...


@dataclass(frozen=True, kw_only=True)
class TopRows:
    """Kept outputs of R rows: K log-probabilities, their tokens and the log tail mass per answer position.

    Attributes:
        log_probs: (N, K); None where no term reads distributions.
        tokens: (N, K) int32; None: all V, in order, or in descending order.
        log_tail: (N, 1); None with `tokens`.
        chunks: (C, 1), log-likelihoods of the answers' chunks; None where no term reads them.
        attended: (M, 1 + 3 D_T), the answers themselves; None where no term attends to them.
    """

    log_probs: States | None = None
    tokens: States | None = None
    log_tail: States | None = None
    chunks: States | None = None
    attended: States | None = None

    @classmethod
    def among(cls, columns: Mapping[str, States]) -> TopRows | None:
        """Return the outputs among some columns; None where there are none."""
        if not _FIRST & columns.keys():
            return None
        return cls(
            log_probs=columns.get(LOG_PROBS),
            tokens=columns.get(TOKENS),
            log_tail=columns.get(LOG_TAIL),
            chunks=columns.get(CHUNKS),
            attended=columns.get(ATTENDED),
        )

    @property
    def columns(self) -> dict[str, States]:
        """What `among` is given."""
        own = {
            LOG_PROBS: self.log_probs,
            TOKENS: self.tokens,
            LOG_TAIL: self.log_tail,
            CHUNKS: self.chunks,
            ATTENDED: self.attended,
        }
        return {name: states for name, states in own.items() if states is not None}

    def of(self, batch: Batch) -> Distributions:
        """Return what is kept of a batch."""
        return distributions(
            {name: states.of(batch.index) for name, states in self.columns.items()}, batch.input_ids.device
        )

    def count(self, batch: Batch) -> None:
        """Add nothing: it was counted when it was captured."""

    def summary(self) -> tuple[str, str, str]:
        """Return as text: the number of positions, the tokens kept at each, and their mean probability mass.

        Of chunks alone: their number, and dashes; so of answers.
        """
        if self.log_probs is None:
            alone = self.chunks or self.attended
            return str(0 if alone is None else alone.count), "-", "-"
        count, total = self.log_probs.count, 0.0
        for piece_nK in self.log_probs.pieces():
            total += float(piece_nK.double().exp().sum())
        return str(count), str(self.log_probs.width), f"{total / count if count else float('nan'):.6f}"


def distributions(columns: Mapping[str, Tensor], device: torch.device) -> Distributions:
    """Return the outputs of a batch from the numbers kept of them."""
    found = Distributions(
        chunks_C=columns[CHUNKS].to(device)[:, 0] if CHUNKS in columns else None,
        attended_MX=columns[ATTENDED].to(device) if ATTENDED in columns else None,
    )
    if LOG_PROBS not in columns:
        return found
    log_probs = columns[LOG_PROBS].to(device)
    if TOKENS not in columns:
        return replace(found, tensors=(log_probs,), read=lambda p: TokenDistribution(log_probs_nK=p))
    tokens = columns[TOKENS].to(device, torch.int64)
    tail = columns[LOG_TAIL].to(device)[:, 0]
    return replace(
        found,
        tensors=(log_probs, tokens, tail),
        read=lambda p, ids, rest: TokenDistribution(log_probs_nK=p, tokens_nK=ids, log_tail_n=rest),
    )


@dataclass(frozen=True, kw_only=True)
class LiveTeacher:
    """The teacher's distributions alone: one forward pass per batch, logits chunk by chunk, nothing kept.

    Attributes:
        arch: the frozen teacher.
        read_out: what of its distributions.
        chunks: what of the answers' chunks; None: nothing.
        attended: how the answers are attended to; None: they are not.
        encoded: the rows as it reads them; None: a batch has its tokens.
        meter: counts the forward tokens.
    """

    arch: Architecture
    read_out: ReadOut
    chunks: ChunkRead | None = None
    attended: AttendedRead | None = None
    encoded: Encoded | None = None
    meter: Meter = field(default_factory=Meter)

    @torch.no_grad()
    def of(self, batch: Batch) -> Distributions:
        """Run the teacher on a batch."""
        own = self._own(batch)
        final_BTD = decode(self.arch, own.input_ids, own.attention_mask)
        return Distributions(
            tensors=(final_BTD[position_mask(own, "token")],),
            read=lambda final_nD: self.read_out.of(self.arch, final_nD),
            chunks_C=None if self.chunks is None else self.chunks(self.arch, final_BTD, own)[CHUNKS][:, 0],
            attended_MX=None if self.attended is None else self.attended(self.arch, final_BTD, own)[ATTENDED],
        )

    def count(self, batch: Batch) -> None:
        """Add a forward pass."""
        self.meter.count(int(self._own(batch).attention_mask.sum()), layers=self.arch.depth)

    def _own(self, batch: Batch) -> Batch:
        if self.encoded is None:
            return batch
        return collate(self.encoded, batch.index).to(batch.input_ids.device)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What was captured before.

    Attributes:
        states: per paired student layer.
        outputs: the teacher's distributions; None where no term reads them.
    """

    states: Mapping[int, States] = field(default_factory=dict)
    outputs: TeacherOutput | None = None

    def of(self, batch: Batch) -> Given:
        """Read it."""
        device = batch.input_ids.device
        return Given(
            states={layer: _on(device, own.of(batch.index)) for layer, own in self.states.items()},
            outputs=self.outputs.of(batch) if self.outputs is not None else None,
        )

    @property
    def files(self) -> int:
        """Files that have to be read; none where all is in memory."""
        columns = self.outputs.columns if isinstance(self.outputs, TopRows) else {}
        held = (*self.states.values(), *columns.values())
        return max((len(own.shards.files) for own in held if isinstance(own, ShardStates)), default=0)

    def count(self, batch: Batch) -> None:
        """Add what distributions cost that are not kept."""
        if self.outputs is not None:
            self.outputs.count(batch)


def _on(device: torch.device, values: Tensor) -> Tensor:
    """Copy to a device, without waiting for the copy where that is a GPU."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


@dataclass(frozen=True, kw_only=True)
class Live:
    """The teacher itself, run when it is asked.

    Attributes:
        wanted: what of it.
        together: rows of a forward pass. With one, what is said of a row does not depend, to the last bit, on the rows
            beside it.
        dtype: as which kept states would be stored: the same rounding.
    """

    wanted: Pass
    together: int
    dtype: torch.dtype

    def of(self, batch: Batch) -> Given:
        """Run the teacher on a batch's rows."""
        device, rows = batch.input_ids.device, batch.index
        with _RUNNING:
            parts = [self.wanted(rows[i : i + self.together]) for i in range(0, len(rows), self.together)]
        columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        states = {
            layer: rounded(columns[column_of(layer)], self.dtype).to(device) for layer in self.wanted.reads
        }
        outputs = distributions(columns, device) if _FIRST & columns.keys() else None
        return Given(states=states, outputs=outputs)

    def count(self, batch: Batch) -> None:
        """Add a forward pass."""
        self.wanted.count(batch.index)


@dataclass(kw_only=True)
class Ahead:
    """A source that is asked for the next batches while the student trains on this one.

    Attributes:
        source: what is asked, in a thread of its own.
        order: the rows of every batch to come, in the order in which they will be asked for.
        make: rows -> batch.
        most: batches that may wait.
    """

    source: Source
    order: Sequence[list[int]]
    make: Callable[[list[int]], Batch]
    most: int
    _pool: ThreadPoolExecutor | None = field(default=None, init=False)
    _waiting: dict[int, Future[Given]] = field(default_factory=dict, init=False)
    _last: int = field(default=-1, init=False)  # place of the batch that was asked for last
    _counted: set[int] = field(default_factory=set, init=False)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ask ahead while inside."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead") as self._pool:
            try:
                yield
            finally:
                for future in self._waiting.values():
                    future.cancel()
                self._waiting.clear()

    def of(self, batch: Batch) -> Given:
        """Return what is waiting for this batch, and ask for those after it."""
        found = self._place(batch.index)
        if self._pool is None or found is None:
            return self.source.of(batch)
        for passed in [i for i in self._waiting if i < found - self.most]:
            self._waiting.pop(passed).cancel()
        for i in range(found, min(found + self.most + 1, len(self.order))):
            if i not in self._waiting:
                self._waiting[i] = self._pool.submit(self._ask, i)
        self._last = found
        return self._waiting[found].result()

    def count(self, batch: Batch) -> None:
        """Add what the source would, once for a batch that is gone through twice, of which it is asked once."""
        found = self._place(batch.index)
        if found is None or found not in self._counted:
            self.source.count(batch)
        if found is not None:
            self._counted = {i for i in self._counted if i >= self._last - self.most} | {found}

    def _ask(self, i: int) -> Given:
        return self.source.of(self.make(self.order[i]))

    def _place(self, rows: list[int]) -> int | None:
        """Return the place of a batch in the order; None of one that is not in it.

        The next one is expected. A step whose terms are compared first is gone through twice, so that the search for
        another begins a little before.
        """
        before = max(0, self._last - self.most)
        places = [self._last + 1, *range(before, len(self.order))]
        return next((i for i in places if i < len(self.order) and self.order[i] == rows), None)
