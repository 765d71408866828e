"""Run a frozen model over rows once, and keep what is read later, in memory or on disk.

    rows -> length-sorted batches -> Pass -> RowStates | Shards

The teacher's states are kept already mapped into the student's space, at the wanted positions only
(D_S numbers per position instead of L_T x D_T), after which the teacher can be freed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pkt.data.batching import sorted_batches
from pkt.data.encoding import Encoded
from pkt.late import torch
from pkt.models.architecture import Architecture
from pkt.models.taps import Interface
from pkt.processes import ALONE, Processes
from pkt.training.meter import Meter
from pkt.training.passes import Pass, Prefix, Read, column_of
from pkt.training.shards import write_shards
from pkt.training.states import RowStates, States


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """Where captured numbers are kept on disk.

    Attributes:
        folder: of the files.
        limit: bytes of a file.
        processes: who fills it.
    """

    folder: Path
    limit: int
    processes: Processes = ALONE


def capture_all(
    wanted: Pass,
    *,
    batch_size: int,
    dtype: torch.dtype | None = None,
    shelf: Shelf | None = None,
    listen: Callable[[int], None] = lambda _rows: None,
) -> dict[str, States]:
    """Run a pass over all rows, and keep every column.

    Args:
        wanted: the model, the rows and what is wanted.
        batch_size: rows per forward pass.
        dtype: storage type of states (None: float32); statistics before it are float32.
        shelf: where they are kept; None: in memory.
        listen: called with the number of rows done after each batch.

    Returns:
        By column.

    Raises:
        PktError: numbers that are not finite.
    """
    batches = sorted_batches(wanted.encoded.lengths, batch_size)

    def done(rows: list[int]) -> None:
        wanted.count(rows)
        listen(len(rows))

    columns = wanted.columns(dtype or torch.float32)
    if shelf is not None:
        shards = write_shards(
            shelf.folder, columns, batches, wanted, limit=shelf.limit, listen=done, processes=shelf.processes
        )
        return {name: shards[name] for name in columns}
    kept = {name: RowStates.empty(list(own.counts), own.width, own.dtype) for name, own in columns.items()}
    for rows in batches:
        for name, values in wanted(rows).items():
            kept[name].write(rows, values)
        done(rows)
    return dict(kept)


def capture(
    arch: Architecture,
    encoded: Encoded,
    reads: Mapping[int, Read],
    *,
    interface: Interface,
    positions: str,
    batch_size: int,
    dtype: torch.dtype | None = None,
    meter: Meter | None = None,
    shelf: Shelf | None = None,
    listen: Callable[[int], None] = lambda _rows: None,
) -> dict[int, States]:
    """Capture states of every row at one supervision interface, by the layer that they are kept for.

    Args:
        arch: the frozen model.
        encoded: the rows.
        reads: what to keep.
        interface: where in a layer the state is read.
        positions: ``answer`` or ``all``.
        batch_size: rows per forward pass.
        dtype: see `capture_all`, as the others.
        meter: counts the forward tokens.
        shelf: where states are kept.
        listen: told of rows that are done.
    """
    wanted = Pass(
        arch=arch,
        encoded=encoded,
        reads=reads,
        interface=interface,
        positions=positions,
        meter=meter if meter is not None else Meter(),
    )
    kept = capture_all(wanted, batch_size=batch_size, dtype=dtype, shelf=shelf, listen=listen)
    return {layer: kept[column_of(layer)] for layer in reads}


def advance(
    arch: Architecture,
    encoded: Encoded,
    layer: int,
    prefix: Prefix | None,
    *,
    batch_size: int,
    meter: Meter | None = None,
    shelf: Shelf | None = None,
    listen: Callable[[int], None] = lambda _rows: None,
) -> Prefix:
    """Return the states that enter the layer after `layer`, from those that enter some layer up to it.

    Args:
        arch: the model; layers up to `layer` do not change any more.
        encoded: the rows.
        layer: the last layer that runs, from 1.
        prefix: where to start; None starts at the tokens.
        batch_size: rows per forward pass.
        meter: counts the forward tokens.
        shelf: see `capture_all`, as the last one.
        listen: told of rows that are done.
    """
    wanted = Pass(
        arch=arch,
        encoded=replace(encoded, met=None, follows=None),  # every position enters the next layer
        reads={layer: Read(layers=(layer,), width=arch.width)},
        positions="all",
        prefix=prefix,
        meter=meter if meter is not None else Meter(),
    )
    kept = capture_all(wanted, batch_size=batch_size, dtype=arch.dtype, shelf=shelf, listen=listen)
    return Prefix(layer=layer + 1, states=kept[column_of(layer)])
