"""What a method is, and the plain data that it hands from stage to stage.

    extract -> Extraction (which layers)  -> align -> Alignment (how they read in the student's space)
                                          -> transfer -> Transferred (the student, changed)

A method is one file here and one file in conf/method/. It declares the stages that it has; the pipeline
stores each stage's result under a key made of what the method names as that stage's settings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from safetensors.torch import load_file, save_file

from pkt.mapping import LayerPair
from pkt.methods.workbench import Workbench
from pkt.semantics import AlignmentMap
from pkt.training.loop import History
from pkt.training.states import RowStates, load_states, save_states
from pkt.training.trainable import Trainable


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """Which teacher layers go to which student layers, and the attribution behind it (None: not needed)."""

    pairs: tuple[LayerPair, ...]
    interface: str
    scores: tuple[float, ...] | None = None

    def save(self, folder: Path) -> None:
        """Write `extraction.json`."""
        (folder / "extraction.json").write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Extraction:
        """Read what `save` wrote."""
        data = json.loads((folder / "extraction.json").read_text(encoding="utf-8"))
        pairs = tuple(
            LayerPair(student=p["student"], teacher=tuple(p["teacher"]), weights=tuple(p["weights"]))
            for p in data["pairs"]
        )
        scores = tuple(data["scores"]) if data["scores"] is not None else None
        return cls(pairs=pairs, interface=data["interface"], scores=scores)


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Per paired student layer: the map, its quality card, and the mapped teacher states of each split."""

    pairs: tuple[LayerPair, ...]
    interface: str
    positions: str
    maps: dict[int, AlignmentMap]
    quality: dict[int, dict[str, float]]
    targets: dict[str, dict[int, RowStates]]  # split -> student layer -> states

    def save(self, folder: Path) -> None:
        """Write maps and targets as safetensors and the rest as JSON."""
        data = {
            "pairs": [asdict(pair) for pair in self.pairs],
            "interface": self.interface,
            "positions": self.positions,
            "quality": self.quality,
            "maps": {
                layer: {"name": m.name, "normalise": m.normalise, "info": m.info}
                for layer, m in self.maps.items()
            },
            "splits": sorted(self.targets),
        }
        (folder / "alignment.json").write_text(json.dumps(data, indent=1), encoding="utf-8")
        tensors = {f"{layer}.{name}": t for layer, m in self.maps.items() for name, t in m.tensors().items()}
        save_file(tensors, folder / "maps.safetensors")
        for split, states in self.targets.items():
            save_states(states, folder / f"targets_{split}.safetensors")

    @classmethod
    def load(cls, folder: Path) -> Alignment:
        """Read what `save` wrote."""
        data = json.loads((folder / "alignment.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "maps.safetensors")
        maps = {}
        for layer, header in data["maps"].items():
            own = {n.removeprefix(f"{layer}."): t for n, t in tensors.items() if n.startswith(f"{layer}.")}
            maps[int(layer)] = AlignmentMap.from_tensors(own, **header)
        pairs = tuple(
            LayerPair(student=p["student"], teacher=tuple(p["teacher"]), weights=tuple(p["weights"]))
            for p in data["pairs"]
        )
        return cls(
            pairs=pairs,
            interface=data["interface"],
            positions=data["positions"],
            maps=maps,
            quality={int(layer): card for layer, card in data["quality"].items()},
            targets={split: load_states(folder / f"targets_{split}.safetensors") for split in data["splits"]},
        )


@dataclass(frozen=True, kw_only=True)
class Transferred:
    """The student after transfer: what trained, how it went, what it cost."""

    trainable: Trainable
    history: History
    layers: tuple[int, ...]
    budget: dict[str, float] = field(default_factory=dict)


class Method(Protocol):
    """A published method, or one of ours."""

    name: str
    stages: ClassVar[tuple[str, ...]]

    def settings(self, stage: str, bench: Workbench) -> Mapping[str, Any]:
        """Name everything in the request, besides models and rows, that this stage's result depends on."""
        ...

    def extract(self, bench: Workbench) -> Extraction:
        """Choose what to take from the teacher."""
        ...

    def align(self, bench: Workbench, extraction: Extraction) -> Alignment:
        """Bring it into the student's space."""
        ...

    def transfer(self, bench: Workbench, alignment: Alignment | None, snapshots: Path | None) -> Transferred:
        """Change the student."""
        ...


def described(strategy: Any) -> dict[str, Any]:
    """Name a strategy and its settings, for the key of an artifact and for the card."""
    return {"strategy": type(strategy).__name__, **asdict(strategy)}
