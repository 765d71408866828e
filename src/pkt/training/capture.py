"""Run a frozen model over rows once, and keep the states that are read later.

    rows -> length-sorted batches -> decoder up to the deepest layer asked for -> reads -> RowStates

The teacher's states are kept already mapped into the student's space, at the wanted positions only
(D_S numbers per position instead of L_T x D_T), after which the teacher can be freed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from pkt.data.batching import Batch, collate, sorted_batches
from pkt.data.encoding import Encoded
from pkt.errors import PktError
from pkt.late import Tensor, torch
from pkt.models.architecture import Architecture
from pkt.models.taps import Interface, decode, skip_above, skip_below, tap
from pkt.training.meter import Meter
from pkt.training.states import RowStates


@dataclass(frozen=True, kw_only=True)
class Read:
    """One thing to keep: a weighted sum of layers' states, mapped.

    Attributes:
        layers: layer numbers, from 1.
        weights: one per layer (a plain pair has the single weight 1).
        width: width of what is kept.
        map: (N, D) -> (N, width); None keeps the states as they are.
    """

    layers: tuple[int, ...]
    width: int
    weights: tuple[float, ...] = (1.0,)
    map: Callable[[Tensor], Tensor] | None = None

    def __call__(self, states: Mapping[int, Tensor], mask_BT: Tensor) -> Tensor:
        """Return the (N, width) states at the positions that `mask_BT` selects, row after row."""
        read = states[self.layers[0]][mask_BT].float() * self.weights[0]
        for layer, weight in zip(self.layers[1:], self.weights[1:], strict=True):
            read = read + weight * states[layer][mask_BT].float()
        return self.map(read) if self.map is not None else read


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """States of every position that enter a layer; the layers below it need not run.

    Attributes:
        layer: the first layer that runs, from 1.
        states: what enters it.
    """

    layer: int
    states: RowStates

    def entering(self, arch: Architecture, batch: Batch) -> AbstractContextManager[None]:
        """Start forward passes of a batch at `layer`."""
        states_BTD = self.states.padded(batch.index, batch.input_ids.shape[1])
        return skip_below(arch, self.layer, states_BTD.to(arch.device, arch.dtype))


def position_mask(batch: Batch, positions: str) -> Tensor:
    """Select the positions of a batch that a term covers, as (B, T) bool.

    Args:
        batch: right-padded rows.
        positions: ``answer`` (those that predict an answer token) or ``all`` (every non-padding one).
    """
    return batch.supervised if positions == "answer" else batch.attention_mask.bool()


def position_counts(encoded: Encoded, positions: str) -> list[int]:
    """Return how many positions `position_mask` selects in each row, without building a batch."""
    if positions == "answer":
        return [
            length - prompt for length, prompt in zip(encoded.lengths, encoded.prompt_lengths, strict=True)
        ]
    return list(encoded.lengths)


@torch.no_grad()
def capture(
    arch: Architecture,
    encoded: Encoded,
    reads: Mapping[int, Read],
    *,
    interface: Interface,
    positions: str,
    batch_size: int,
    dtype: torch.dtype | None = None,
    prefix: Prefix | None = None,
    meter: Meter | None = None,
    listen: Callable[[int], None] | None = None,
) -> dict[int, RowStates]:
    """Capture states of every row at one supervision interface.

    Args:
        arch: the frozen model; layers above the deepest one read are not run.
        encoded: the rows.
        reads: what to keep under which key (usually the student's layer number).
        interface: where in a layer the state is read.
        positions: ``answer`` or ``all``.
        batch_size: rows per forward pass.
        dtype: storage type of the states (None: float32); statistics before it are float32.
        prefix: states that enter some layer, from which the pass starts; None starts at the tokens.
        meter: counts the forward tokens.
        listen: called with the number of rows done after each batch.

    Returns:
        RowStates per key, on the CPU.

    Raises:
        PktError: a state that is not finite.
    """
    counts = position_counts(encoded, positions)
    kept = {key: RowStates.empty(counts, read.width, dtype or torch.float32) for key, read in reads.items()}
    layers = sorted({layer for read in reads.values() for layer in read.layers})
    for rows in sorted_batches(encoded.lengths, batch_size):
        batch = collate(encoded, rows).to(arch.device)
        with ExitStack() as stack:
            if prefix is not None:
                stack.enter_context(prefix.entering(arch, batch))
            stack.enter_context(skip_above(arch, layers[-1]))
            states = stack.enter_context(tap(arch, layers, interface))
            decode(arch, batch.input_ids, batch.attention_mask)
        mask_BT = position_mask(batch, positions)
        for key, read in reads.items():
            kept[key].write(rows, _finite(read(states, mask_BT), read, batch))
        if meter is not None:
            run = layers[-1] - (prefix.layer - 1 if prefix is not None else 0)
            meter.count(int(batch.attention_mask.sum()), layers=run)
        if listen is not None:
            listen(len(rows))
    return kept


def _finite(states_ND: Tensor, read: Read, batch: Batch) -> Tensor:
    if not bool(states_ND.isfinite().all()):
        raise PktError(
            f"states of layer {', '.join(map(str, read.layers))} are NaN or infinite (rows {batch.index[:4]}...): "
            "nothing can be learned from them. Load the models in float32 or bfloat16 (model.teacher.dtype, "
            "model.student.dtype), or look at the model's files."
        )
    return states_ND


def advance(
    arch: Architecture,
    encoded: Encoded,
    layer: int,
    prefix: Prefix | None,
    *,
    batch_size: int,
    meter: Meter | None = None,
    listen: Callable[[int], None] | None = None,
) -> Prefix:
    """Return the states that enter the layer after `layer`, from those that enter some layer up to it.

    Args:
        arch: the model; layers up to `layer` do not change any more.
        encoded: the rows.
        layer: the last layer that runs, from 1.
        prefix: where to start; None starts at the tokens.
        batch_size: rows per forward pass.
        meter: counts the forward tokens.
        listen: called with the number of rows done after each batch.
    """
    states = capture(
        arch,
        encoded,
        {layer: Read(layers=(layer,), width=arch.width)},
        interface=Interface.block,
        positions="all",
        batch_size=batch_size,
        dtype=arch.dtype,
        prefix=prefix,
        meter=meter,
        listen=listen,
    )
    return Prefix(layer=layer + 1, states=states[layer])
