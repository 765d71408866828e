"""What layer-wise methods hand from stage to stage: pairs, maps, mapped teacher states, teacher outputs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from pkt.mapping import LayerPair
from pkt.semantics import AlignmentMap
from pkt.table import Table
from pkt.training.states import RowStates, load_states, save_states
from pkt.training.teacher import TopRows, load_top, save_top


@dataclass(frozen=True, kw_only=True)
class LayerExtraction:
    """Which teacher layers go to which student layers, and what that rests on (None: not needed).

    Attributes:
        pairs: teacher layers per student layer.
        interface: where in a layer states are read.
        scores: attribution, one per teacher layer.
        similarity: linear CKA, one row per teacher layer and one column per student layer.
    """

    pairs: tuple[LayerPair, ...]
    interface: str
    scores: tuple[float, ...] | None = None
    similarity: tuple[tuple[float, ...], ...] | None = None

    def save(self, folder: Path) -> None:
        """Write `extraction.json`."""
        (folder / "extraction.json").write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> LayerExtraction:
        """Read what `save` wrote."""
        data = json.loads((folder / "extraction.json").read_text(encoding="utf-8"))
        scores, similarity = data["scores"], data["similarity"]
        return cls(
            pairs=loaded_pairs(data["pairs"]),
            interface=data["interface"],
            scores=tuple(scores) if scores is not None else None,
            similarity=tuple(map(tuple, similarity)) if similarity is not None else None,
        )

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

    def warnings(self) -> list[str]:
        """Return nothing: a pairing has no defects of its own."""
        return []


@dataclass(frozen=True, kw_only=True)
class LayerAlignment:
    """Per paired student layer: the map, its quality card, and the teacher's states of each split.

    Attributes:
        pairs: teacher layers per student layer.
        interface: where in a layer the states were read.
        positions: ``answer`` or ``all``.
        maps: per student layer; empty where the states are the teacher's own (hidden_kd).
        quality: per student layer, fields of the quality card.
        targets: split -> student layer -> states at `positions`; empty where there is no layer term.
        outputs: split -> the teacher's likeliest tokens at answer positions; empty without a KL term, or with
            a live teacher.
    """

    pairs: tuple[LayerPair, ...] = ()
    interface: str = "block"
    positions: str = "answer"
    maps: dict[int, AlignmentMap] = field(default_factory=dict)
    quality: dict[int, dict[str, float | None]] = field(default_factory=dict)
    targets: dict[str, dict[int, RowStates]] = field(default_factory=dict)
    outputs: dict[str, TopRows] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write maps, targets and outputs as safetensors and the rest as JSON."""
        owners = self._owners()
        data = {
            "pairs": [asdict(pair) for pair in self.pairs],
            "interface": self.interface,
            "positions": self.positions,
            "quality": self.quality,
            "maps": {layer: {"file": f, **_header(self.maps[layer])} for layer, f in owners.items()},
            "targets": sorted(self.targets),
            "outputs": sorted(self.outputs),
        }
        (folder / "alignment.json").write_text(json.dumps(data, indent=1), encoding="utf-8")
        for layer in set(owners.values()):
            save_file(self.maps[layer].tensors(), folder / f"map_{layer}.safetensors")
        for split, states in self.targets.items():
            save_states(states, folder / f"targets_{split}.safetensors")
        for split, top in self.outputs.items():
            save_top(top, folder / f"outputs_{split}.safetensors")

    def _owners(self) -> dict[int, int]:
        """Return, per layer, the first layer with the same map: a map that pairs share is written once."""
        first: dict[int, int] = {}
        return {layer: first.setdefault(id(map_), layer) for layer, map_ in self.maps.items()}

    @classmethod
    def load(cls, folder: Path) -> LayerAlignment:
        """Read what `save` wrote."""
        data = json.loads((folder / "alignment.json").read_text(encoding="utf-8"))
        loaded: dict[int, AlignmentMap] = {}
        for header in data["maps"].values():
            if (owner := header.pop("file")) not in loaded:
                tensors = load_file(folder / f"map_{owner}.safetensors")
                loaded[owner] = AlignmentMap.from_tensors(tensors, **header)
            header["map"] = loaded[owner]
        maps = {int(layer): header["map"] for layer, header in data["maps"].items()}
        return cls(
            pairs=loaded_pairs(data["pairs"]),
            interface=data["interface"],
            positions=data["positions"],
            maps=maps,
            quality={int(layer): card for layer, card in data["quality"].items()},
            targets={s: load_states(folder / f"targets_{s}.safetensors") for s in data["targets"]},
            outputs={s: load_top(folder / f"outputs_{s}.safetensors") for s in data["outputs"]},
        )

    def tables(self) -> list[Table]:
        """Return one row per map with its quality card, and what was kept of the teacher's outputs."""
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
        """Say where a map is not determined on the whole space."""
        notes = []
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


def _header(map_: AlignmentMap) -> dict[str, Any]:
    return {"name": map_.name, "normalise": map_.normalise, "info": map_.info}


def _shown(value: Any) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{math.nan if value is None else value:.4g}"


def loaded_pairs(data: list[Mapping[str, Any]]) -> tuple[LayerPair, ...]:
    """Return layer pairs from JSON."""
    return tuple(
        LayerPair(student=p["student"], teacher=tuple(p["teacher"]), weights=tuple(p["weights"]))
        for p in data
    )
