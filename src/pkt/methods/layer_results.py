"""What layer-wise methods hand from stage to stage: pairs, maps, mapped teacher states, teacher outputs.

LayerAlignment ── save ──> alignment.json, alignment.safetensors (pairs, maps, quality)
                      └──> states/<split>/ (what is large: shards, read when they are needed)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from pkt import saving
from pkt.late import Tensor
from pkt.mapping import LayerPair
from pkt.methods.base import Alignment, Extraction
from pkt.semantics import AlignmentMap
from pkt.table import Table
from pkt.training.passes import column_of
from pkt.training.shards import Column, Shards, ShardStates, write_shards
from pkt.training.states import Reordered, States
from pkt.training.teacher import TopRows

STATES = "states"
LIMIT = 256 * 10**6  # bytes of a file of states that were in memory


@dataclass(frozen=True, kw_only=True)
class LayerExtraction(Extraction):
    """Which teacher layers go to which student layers, and the numbers that decided it, as far as any were needed.

    Attributes:
        pairs: teacher layers per student layer.
        interface: where in a layer states are read.
        scores: attribution, one per teacher layer; None: not needed.
        similarity: linear CKA, one row per teacher layer and one column per student layer; None: not needed.
    """

    pairs: tuple[LayerPair, ...]
    interface: str
    scores: tuple[float, ...] | None = None
    similarity: tuple[tuple[float, ...], ...] | None = None

    def tables(self) -> list[Table]:
        """Return one row per pair."""
        rows = tuple(
            (
                str(pair.student),
                " ".join(map(str, pair.teacher)),
                " ".join(f"{weight:.2f}" for weight in pair.weights),
                self._score(pair),
                self._similarity(pair),
            )
            for pair in self.pairs
        )
        columns = ("student layer", "teacher layer", "weight", "attribution", "CKA")
        return [Table(title=f"layer pairs at the {self.interface} interface", columns=columns, rows=rows)]

    def _score(self, pair: LayerPair) -> str:
        if self.scores is None:
            return "not needed"
        return " ".join(f"{self.scores[layer - 1]:.3g}" for layer in pair.teacher)

    def _similarity(self, pair: LayerPair) -> str:
        if self.similarity is None:
            return "not needed"
        return " ".join(f"{self.similarity[layer - 1][pair.student - 1]:.3f}" for layer in pair.teacher)


@dataclass(frozen=True, kw_only=True)
class LayerAlignment(Alignment):
    """Per paired student layer: the map, its quality card, and the teacher's states of each split.

    Attributes:
        pairs: teacher layers per student layer.
        interface: where in a layer the states were read.
        positions: ``answer`` or ``all``.
        maps: per student layer; empty where the states are the teacher's own (hidden_kd).
        scales: per student layer, what mapped states are multiplied by.
        quality: per student layer, the fields of its map's quality card.
        dtype: as which states are stored, or rounded where the teacher runs beside the training.
        orders: split -> student layer -> the position whose state each position gets; empty but for a control.
        targets: split -> student layer -> states at `positions`, unmapped where the maps go on learning (also of the
            align split, where they are fitted again); empty where there is no layer term, or where the teacher runs
            beside the training.
        outputs: split -> the teacher's likeliest tokens at answer positions; empty where no term reads the
            teacher's outputs, or where the teacher is live.
    """

    pairs: tuple[LayerPair, ...] = ()
    interface: str = "block"
    positions: str = "answer"
    maps: dict[int, AlignmentMap] = field(default_factory=dict)
    scales: dict[int, float] = field(default_factory=dict)
    quality: dict[int, dict[str, float | None]] = field(default_factory=dict)
    dtype: str = "float32"
    orders: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    targets: dict[str, dict[int, States]] = field(default_factory=dict, metadata=saving.APART)
    outputs: dict[str, TopRows] = field(default_factory=dict, metadata=saving.APART)

    def save(self, folder: Path) -> None:
        """Write everything into a folder; states that lie on disk already are linked there."""
        super().save(folder)
        for split in dict.fromkeys((*self.targets, *self.outputs)):
            _put(folder / STATES / split, self._columns_of(split))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote; states stay on disk."""
        own = super().load(folder)
        targets, outputs = {}, {}
        for place in sorted((folder / STATES).glob("*")):
            columns = (shards := Shards.open(place)).columns
            layers = [pair.student for pair in own.pairs if column_of(pair.student) in columns]
            order = own.orders.get(place.name, {})
            states = {k: shards[column_of(k)] for k in layers}
            if layers:
                targets[place.name] = reordered(states, order)
            if (top := TopRows.among({name: shards[name] for name in columns})) is not None:
                outputs[place.name] = top
        return replace(own, targets=targets, outputs=outputs)

    @property
    def kept_bytes(self) -> int:
        """Bytes of the teacher's states and outputs that are kept."""
        splits = dict.fromkeys((*self.targets, *self.outputs))
        return sum(states.bytes for split in splits for states in self._columns_of(split).values())

    def _columns_of(self, split: str) -> dict[str, States]:
        found = {
            column_of(k): states.states if isinstance(states, Reordered) else states
            for k, states in self.targets.get(split, {}).items()
        }
        return found | (self.outputs[split].columns if split in self.outputs else {})

    def tables(self) -> list[Table]:
        """Return the maps' quality cards, and how much was kept of the teacher's outputs."""
        tables = []
        if self.quality:
            title = f"map quality on the align split ({self.positions} positions)"
            tables.append(Table(title=title, columns=self._columns(), rows=self._rows()))
        if self.outputs:
            columns = ("split", "positions", "tokens kept", "mass kept")
            rows = tuple((split, *top.summary()) for split, top in self.outputs.items())
            tables.append(Table(title="the teacher's outputs", columns=columns, rows=rows))
        return tables

    def _columns(self) -> tuple[str, ...]:
        names = {name for card in self.quality.values() for name, value in card.items() if value is not None}
        return ("student layer", "teacher layer", *sorted(names))

    def _rows(self) -> tuple[tuple[str, ...], ...]:
        return tuple(
            (
                str(pair.student),
                " ".join(map(str, pair.teacher)),
                *(_shown(self.quality[pair.student].get(name)) for name in self._columns()[2:]),
            )
            for pair in self.pairs
        )

    def warnings(self) -> list[str]:
        """Warn of positions left out, and of maps that are determined on a part of the space only."""
        notes = []
        if left := {k: int(own["left_out"] or 0) for k, own in self.quality.items() if own.get("left_out")}:
            worst = max(left, key=left.__getitem__)
            count = left[worst] + int(self.quality[worst]["positions"] or 0)
            notes.append(
                f"massive activations: up to {left[worst]} of {count} positions of the align split (student layers "
                f"{', '.join(map(str, left))}) have states many times as long as the others, and are left out of "
                "fits, statistics and quality cards"
            )
        for map_ in {map_.name: map_ for map_ in self.maps.values()}.values():
            info, width = map_.info, min(map_.weight.shape)
            notes += [
                f"the {who}'s head has rank {info[f'rank_{who}']} of {info[f'width_{who}']}: "
                f"semantics={map_.name} maps that part"
                for who in ("teacher", "student")
                if f"rank_{who}" in info and info[f"rank_{who}"] < info[f"width_{who}"]
            ]
            if map_.name == "procrustes" and info["rank"] < width:
                notes.append(
                    f"the align split's states vary in {info['rank']} of {width} directions: semantics=procrustes "
                    "turns the others arbitrarily; raise data.sizes.align"
                )
        return notes


def reordered(states: Mapping[int, States], orders: Mapping[int, Tensor]) -> dict[int, States]:
    """Return states by layer, those with an order of their own in it."""
    return {k: Reordered(states=own, order_N=orders[k]) if k in orders else own for k, own in states.items()}


def _put(folder: Path, columns: Mapping[str, States]) -> None:
    """Keep some columns of one split in a folder."""
    lying = {id(own.shards): own.shards for own in columns.values() if isinstance(own, ShardStates)}
    if len(lying) == 1:
        next(iter(lying.values())).put(folder)
        return
    kinds = {name: Column.like(own) for name, own in columns.items()}
    rows = len(next(iter(columns.values())).offsets_R1) - 1
    write_shards(
        folder,
        kinds,
        [[row] for row in range(rows)],
        lambda rows: {name: own.of(rows) for name, own in columns.items()},
        limit=LIMIT,
    )


def _shown(value: Any) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{math.nan if value is None else value:.4g}"
