"""One forward pass of a frozen model over some rows, and everything that is wanted of it.

    rows -> batch -> [states that enter a layer] -> layers -> reads: states at an interface, mapped
                                                       └────> final norm -> outputs: the next-token distributions

Shape suffixes: B rows, T positions, n positions of the batch that are kept, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field

from pkt.data.batching import Batch, collate, position_counts, position_mask
from pkt.data.encoding import Encoded
from pkt.errors import PktError
from pkt.late import Tensor, torch
from pkt.models.architecture import Architecture
from pkt.models.taps import Interface, decode, skip_above, skip_below, tap
from pkt.objectives import CHUNK, TokenDistribution, shared_columns, token_distribution
from pkt.training.attended import AttendedRead
from pkt.training.chunked import ChunkRead
from pkt.training.meter import Meter
from pkt.training.shards import Column
from pkt.training.states import States

LOG_PROBS, TOKENS, LOG_TAIL = "log_probs", "tokens", "log_tail"  # columns of distributions


def column_of(layer: int) -> str:
    """Return the name of the column that has the states kept for a layer."""
    return f"layer_{layer}"


@dataclass(frozen=True, kw_only=True)
class Read:
    """One thing to keep: a weighted sum of layers' states, mapped.

    Attributes:
        layers: layer numbers, from 1.
        weights: one per layer (a plain pair has the single weight 1).
        width: width of what is kept.
        map: (N, D) -> (N, width); None keeps the states as they are.
        scale: what is kept is multiplied by it.
    """

    layers: tuple[int, ...]
    width: int
    weights: tuple[float, ...] = (1.0,)
    map: Callable[[Tensor], Tensor] | None = None
    scale: float = 1.0

    def __call__(self, states: Mapping[int, Tensor], mask_BT: Tensor) -> Tensor:
        """Return the (N, width) states at the positions that `mask_BT` selects, row after row."""
        read = states[self.layers[0]][mask_BT].float() * self.weights[0]
        for layer, weight in zip(self.layers[1:], self.weights[1:], strict=True):
            read = read + weight * states[layer][mask_BT].float()
        read = self.map(read) if self.map is not None else read
        return read if self.scale == 1.0 else read * self.scale


@dataclass(frozen=True, kw_only=True)
class ReadOut:
    """How a model's next-token distributions are kept.

    Attributes:
        shared: ids that both models have; all of the teacher's where they are `ordered`.
        temperature: tau.
        top_k: tokens kept per position; None: all.
        counts_rest: whether the other tokens count too, as one more (see `shared_columns`).
        ordered: log-probabilities alone, in descending order.
    """

    shared: Tensor
    temperature: float = 1.0
    top_k: int | None = None
    counts_rest: bool = False
    ordered: bool = False

    @property
    def tokens(self) -> int:
        """Tokens among which are those that are kept."""
        return len(self.shared) + self.counts_rest

    @property
    def kept(self) -> int:
        """Tokens that are kept per position."""
        return self.tokens if self.top_k is None else min(self.top_k, self.tokens)

    def columns(self, encoded: Encoded) -> dict[str, Column]:
        """Return what is kept of some rows."""
        counts = position_counts(encoded, "token")
        found = {LOG_PROBS: Column(counts=counts, width=self.kept, dtype=torch.float32)}
        if self.kept < self.tokens and not self.ordered:
            found[TOKENS] = Column(counts=counts, width=self.kept, dtype=torch.int32)
            found[LOG_TAIL] = Column(counts=counts, width=1, dtype=torch.float32)
        return found

    @torch.no_grad()
    def of(self, arch: Architecture, final_nD: Tensor) -> TokenDistribution:
        """Return the distributions of some final states, V numbers per position at a time."""
        rest = self.temperature if self.counts_rest else None
        logits_nV = shared_columns(arch.read_out(final_nD), self.shared, rest=rest)
        if self.ordered:
            log_probs_nV = (logits_nV.float() / self.temperature).log_softmax(-1)
            return TokenDistribution(log_probs_nK=log_probs_nV.topk(self.kept, dim=-1).values)
        return token_distribution(logits_nV, top_k=self.top_k, temperature=self.temperature)

    def __call__(self, arch: Architecture, final_BTD: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the columns of a batch, chunk by chunk."""
        found: dict[str, list[Tensor]] = {}
        for chunk_nD in torch.split(final_BTD[position_mask(batch, "token")], CHUNK):
            own = self.of(arch, chunk_nD)
            found.setdefault(LOG_PROBS, []).append(own.log_probs_nK)
            if own.tokens_nK is not None and own.log_tail_n is not None:
                found.setdefault(TOKENS, []).append(own.tokens_nK.int())
                found.setdefault(LOG_TAIL, []).append(own.log_tail_n[:, None])
        return {name: torch.cat(parts) for name, parts in found.items()}


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """States of every position that enter a layer; the layers below it need not run.

    Attributes:
        layer: the first layer that runs, from 1.
        states: what enters it.
    """

    layer: int
    states: States

    def entering(self, arch: Architecture, batch: Batch) -> AbstractContextManager[None]:
        """Start forward passes of a batch at `layer`."""
        states_BTD = self.states.padded(batch.index, batch.input_ids.shape[1])
        return skip_below(arch, self.layer, states_BTD.to(arch.device, arch.dtype))


@dataclass(frozen=True, kw_only=True)
class Pass:
    """A frozen model, some rows, and what is wanted of them.

    Attributes:
        arch: the model; layers above the deepest one that is read are not run, unless outputs are wanted.
        encoded: the rows.
        reads: states to keep, by the layer that they are kept for (usually the student's).
        interface: where in a layer they are read.
        positions: at which positions of a row: ``answer`` or ``all``.
        outputs: how next-token distributions at answer positions are kept; None: they are not wanted.
        chunks: how the likelihoods of the answers' chunks are; None: they are not.
        attended: how the answers themselves are, for a term that attends to them; None: they are not.
        prefix: states that enter some layer, from which a pass starts; None starts at the tokens.
        meter: counts the forward tokens.
    """

    arch: Architecture
    encoded: Encoded
    reads: Mapping[int, Read] = field(default_factory=dict)
    interface: Interface = Interface.block
    positions: str = "answer"
    outputs: ReadOut | None = None
    chunks: ChunkRead | None = None
    attended: AttendedRead | None = None
    prefix: Prefix | None = None
    meter: Meter = field(default_factory=Meter)

    def columns(self, dtype: torch.dtype) -> dict[str, Column]:
        """Return what is kept of all rows, with states stored as `dtype`."""
        counts = position_counts(self.encoded, self.positions)
        found = {
            column_of(layer): Column(counts=counts, width=read.width, dtype=dtype)
            for layer, read in self.reads.items()
        }
        for own in self._read_outs:
            found |= own.columns(self.encoded)
        return found

    @property
    def _read_outs(self) -> list[ReadOut | ChunkRead | AttendedRead]:
        return [own for own in (self.outputs, self.chunks, self.attended) if own is not None]

    @property
    def _layers(self) -> list[int]:
        return sorted({layer for read in self.reads.values() for layer in read.layers})

    def count(self, rows: list[int]) -> None:
        """Add what a pass over some rows costs to the meter."""
        last = self.arch.depth if self._read_outs else self._layers[-1]
        below = self.prefix.layer - 1 if self.prefix is not None else 0
        self.meter.count(sum(self.encoded.lengths[row] for row in rows), layers=last - below)

    @torch.no_grad()
    def __call__(self, rows: list[int]) -> dict[str, Tensor]:
        """Run some rows together, and return the columns, row after row.

        Raises:
            PktError: numbers that are not finite.
        """
        arch, layers = self.arch, self._layers
        batch = collate(self.encoded, rows).to(arch.device)
        with ExitStack() as stack:
            if self.prefix is not None:
                stack.enter_context(self.prefix.entering(arch, batch))
            if not self._read_outs:
                stack.enter_context(skip_above(arch, layers[-1]))
            states = stack.enter_context(tap(arch, layers, self.interface)) if layers else {}
            final_BTD = decode(arch, batch.input_ids, batch.attention_mask)
        mask_BT = position_mask(batch, self.positions)
        found = {
            column_of(layer): _finite(read(states, mask_BT), read, batch)
            for layer, read in self.reads.items()
        }
        for own in self._read_outs:
            found |= _numbers(own(arch, final_BTD, batch), batch)
        return found


def _finite(states_nD: Tensor, read: Read, batch: Batch) -> Tensor:
    if not bool(states_nD.isfinite().all()):
        raise PktError(
            f"states of layer {', '.join(map(str, read.layers))} are NaN or infinite (rows {batch.index[:4]}...): "
            "nothing can be learned from them. Load the models in float32 or bfloat16 (model.teacher.dtype, "
            "model.student.dtype), or look at the model's files."
        )
    return states_nD


def _numbers(outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    if any(bool(values.isnan().any()) for values in outputs.values()):
        raise PktError(
            f"the teacher's next-token distributions are not numbers (rows {batch.index[:4]}...); load it in float32 "
            "or bfloat16 (model.teacher.dtype), or look at its files."
        )
    return outputs
